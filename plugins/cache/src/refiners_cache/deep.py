"""DeepCache: the deep levels of the UNet run at some calls, and others reuse what they returned."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor, nn

from refiners_cache.calls import quadratic_calls
from refiners_cache.idle import idle_between
from refiners_cache.situation import Situation
from refiners_core import Adapter, Chain, Context, Edit, Layer, Seat
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.option import number, whole


class DeepCache(Adapter):
    """Runs the deep levels of the UNet at every n-th call alone (arXiv:2312.00858, section 3.3).

    The calls in between run what lies outside one skip connection, and take the value that the deep
    levels returned to it at the last full call. A call is full as soon as anything that the value
    depends on changes: an adapter begins, ends or changes its scale, or the prompts, the size or
    the branches are others. From a full call on, the interval is counted anew.

    Args:
        interval: The number of calls of which one is full; 1 keeps the network as it is.
        branch: The skip connection, from 0 for the one nearest to the input and output; deeper ones
            save less and change less. The number is that of the authors' package.
        center: The call around which full calls lie densest, for the authors' other schedule; None
            for equal intervals.
        power: The power of that schedule, at least 1.02: with a larger one they lie denser.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: An option is out of range.

    Example:
        >>> DeepCache(name="deepcache").interval
        3
    """

    def __init__(
        self,
        *,
        interval: int = 3,
        branch: int = 0,
        center: int | None = None,
        power: float = 1.4,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.interval: Final = whole("interval", interval, 3)
        self.branch: Final = whole("branch", branch, 0, low=0)
        self.center: Final = None if center is None else whole("center", center, 15, low=0)
        self.power: Final = number("power", power, 1.4, low=1.02)

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses a schedule that these steps cannot have.

        Raises:
            ConditionError: The full calls cannot lie around `center`.
        """
        if request.sampler is not None and self.center is not None and self.interval > 1:
            total = len(request.sampler.timesteps)
            quadratic_calls(total, self.interval, self.center, self.power)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Decides at the input of the UNet, skips the deep levels and keeps what they returned.

        Raises:
            AdapterError: The model does not have so many skip connections.
        """
        on, value = self.context_key("on"), self.context_key("deep")
        written, read = model.slot("unet.skip.write"), model.slot("unet.skip.backbone")
        branch = whole("branch", self.branch, 0, low=0, high=len(written) - 1)
        first, last = written[branch], read[len(read) - 1 - branch]
        depth = ChooseDepth(self.key, self.interval, self.center, self.power)

        def chosen(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(depth, inner)

        def kept(inner: nn.Module, seat: Seat) -> nn.Module:
            return KeepInput(value, on, inner)

        return (
            *model.slot("unet.input").wrap(chosen, stage="inputs", name="depth"),
            *idle_between(model, first, last, on),
            *read.where(lambda seat: seat.path == last.path).wrap(kept, stage="around"),
        )


@dataclass(frozen=True)
class Count:
    """The record of the calls so far."""

    situation: Situation
    """The situation of the last full call."""
    calls: int
    """The number of calls since then."""


class ChooseDepth(Layer):
    """Decides whether this call of the network is full, and passes its input on.

    Args:
        key: The key of the adapter.
        interval: The number of calls of which one is full.
        center: The call around which full calls lie densest; None for equal intervals.
        power: The power of that schedule.
    """

    def __init__(self, key: str, interval: int, center: int | None, power: float) -> None:
        super().__init__()
        self.key: Final = key
        self.interval: Final = interval
        self.center: Final = center
        self.power: Final = power

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        if context.get(f"{self.key}.scale") is None:
            return x
        memory, now = context.memory, Situation.of(context, x)
        count: Count | None = memory.get(f"{self.key}.count")
        is_full = (
            count is None
            or not count.situation.is_same(now)
            or self._is_full(context, count.calls + 1)
        )
        memory[f"{self.key}.count"] = Count(now, 0 if is_full or count is None else count.calls + 1)
        context[f"{self.key}.on"] = not is_full
        return x

    def _is_full(self, context: Context, calls: int) -> bool:
        """Whether the schedule has a full call now, so many calls after the last one."""
        if self.center is None or self.interval == 1:
            return calls >= self.interval
        total: int = context["steps"]
        return context["step"] in quadratic_calls(total, self.interval, self.center, self.power)

    def extra_repr(self) -> str:
        return f"{self.key!r}, interval={self.interval}"


class KeepInput(Chain):
    """Keeps the input of a place, or gives the place the kept one while a flag is set.

    Args:
        value: The key of `context.memory` for the input.
        on: The context key of the flag.
        inner: What runs at the place.
    """

    inner: nn.Module

    def __init__(self, value: str, on: str, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.value: Final = value
        self.on: Final = on

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        flag = context.get(self.on)
        if flag:
            x = context.memory[self.value]
        elif flag is not None:
            context.memory[self.value] = x
        return self.call(self.inner, context, x)

    def extra_repr(self) -> str:
        return f"{self.value!r}, on={self.on!r}"
