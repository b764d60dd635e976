"""Skipping the network where it has little to add to what it returned before."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from refiners_cache.idle import idle
from refiners_cache.situation import Situation
from refiners_core import Adapter, Chain, Context, Edit, Layer, Memory, Seat
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.option import number


class SkipByChange(Adapter):
    """Skips the levels of the UNet while a measured tensor changes little.

    A skipped call adds to its features what the levels added at the last full call. Each picture of
    a batch decides for itself, from the first branch of the pass, so that pictures do not depend on
    their neighbours; the network runs if it is due for one of them. A call is full as soon as
    anything else changes: an adapter begins, ends or changes its scale, or the prompts, the size or
    the branches are others.

    Args:
        threshold: The change from which on the network runs; 0 keeps the network as it is.
        usual: The threshold of hints.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: `threshold` is negative, or not a finite number.
    """

    def __init__(self, *, threshold: float, usual: float, **options: Any) -> None:
        super().__init__(**options)
        self.threshold: Final = number("threshold", threshold, usual, low=0)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Decides at the first level on the way down, and skips all levels."""
        down, up = model.slot("unet.down"), model.slot("unet.up")
        first, last = down[0].path, up[len(up) - 1].path
        head, key, on = self.head(model), self.key, self.context_key("on")

        def begun(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(Begin(key), inner)

        def ended(inner: nn.Module, seat: Seat) -> nn.Module:
            return Tail(key, inner)

        others = down.where(lambda seat: seat.path != first)
        before = up.where(lambda seat: seat.path != last)
        return (
            *model.slot("denoise.predict").wrap(begun, stage="inputs", name="begin"),
            *down.where(lambda seat: seat.path == first).wrap(head, stage="around", name="head"),
            *(idle(others, on) if len(others) else ()),
            *idle(model.slot("unet.mid"), on),
            *(idle(before, on) if len(before) else ()),
            *up.where(lambda seat: seat.path == last).wrap(ended, stage="around", name="tail"),
        )

    @abstractmethod
    def head(self, model: LatentDiffusion) -> Callable[[nn.Module, Seat], nn.Module]:
        """Returns a function that makes the layer at the first level, from `(inner, seat)`."""


class Begin(Layer):
    """Makes room for the decision of a step, which all its branches share."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key: Final = key

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        context[f"{self.key}.decision"] = Memory()
        return inputs[0]


class Head(Chain):
    """Decides whether the levels run, and runs the first one if they do.

    Args:
        key: The key of the adapter.
        threshold: The change from which on the network runs.
        inner: The first level.
    """

    inner: nn.Module

    def __init__(self, key: str, threshold: float, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.key: Final = key
        self.threshold: Final = threshold

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        if context.get(f"{self.key}.scale") is None:
            return self.call(self.inner, context, x)
        memory, now = context.memory, Situation.of(context, x)
        situation: Situation | None = memory.get(f"{self.key}.situation")
        has_residual = f"{self.key}.residual" in memory
        is_new = situation is None or not situation.is_same(now) or not has_residual
        memory[f"{self.key}.situation"] = now
        begun, measured = self.begin(context, x)
        due = self._due(context, measured, is_new)
        is_skipped = not is_new and not due.any()
        context[f"{self.key}.on"] = is_skipped
        context[f"{self.key}.begun"] = begun
        context[f"{self.key}.due"] = None if is_new or due.all() else due
        return begun if is_skipped else self.rest(context, x, begun)

    @abstractmethod
    def begin(self, context: Context, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the levels add to, and the tensor whose change is measured."""

    def rest(self, context: Context, x: Tensor, begun: Tensor) -> Tensor:
        """Returns what the first level returns.

        Args:
            context: The context of the call.
            x: The input of the level.
            begun: What `begin` returned.
        """
        return self.call(self.inner, context, x)

    @abstractmethod
    def judged(
        self, context: Context, measured: Tensor, kept: "Measure | None"
    ) -> tuple[Tensor, "Measure"]:
        """Returns whether the network is due for each picture, and the measure for the next call.

        Args:
            context: The context of the call.
            measured: The measured tensor, a row for each picture.
            kept: The measure of an earlier call; None if the network is due for all.
        """

    def _due(self, context: Context, measured: Tensor, is_new: bool) -> Tensor:
        """Returns whether the network is due for each picture: what the first branch decided."""
        names: Sequence[str] = context.get("branches", ("",))
        decision: Memory | None = context.get(f"{self.key}.decision")
        decided = None if decision is None else decision.get("due")
        if decided is not None:
            return decided
        first = measured.chunk(len(names))[0]
        memory, key = context.memory, f"{self.key}.measure"
        due, memory[key] = self.judged(context, first, None if is_new else memory.get(key))
        if decision is not None:
            decision["due"] = due
        return due

    def extra_repr(self) -> str:
        return f"{self.key!r}, threshold={self.threshold:g}"


@dataclass(frozen=True)
class Measure:
    """The record of a measured tensor. The branches of a pass share it, so its rows are not those
    of the pass, by which `context.memory` would keep a bare tensor."""

    tensor: Tensor
    """The tensor of an earlier call, a row for each picture."""
    total: Tensor
    """The sum of changes since the network ran, a number for each picture."""


class Tail(Chain):
    """Runs the last level and keeps what all levels added, or adds what they added before.

    Args:
        key: The key of the adapter.
        inner: The last level.
    """

    inner: nn.Module

    def __init__(self, key: str, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.key: Final = key

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        is_skipped = context.get(f"{self.key}.on")
        if is_skipped is None:
            return self.call(self.inner, context, *inputs)
        memory, key = context.memory, f"{self.key}.residual"
        if is_skipped:
            return inputs[0] + memory[key]
        output: Tensor = self.call(self.inner, context, *inputs)
        begun: Tensor = context[f"{self.key}.begun"]
        due: Tensor | None = context[f"{self.key}.due"]
        if due is None:
            memory[key] = output - begun
            return output
        kept: Tensor = memory[key]
        rows = due.repeat(len(output) // len(due))[:, None, None, None]
        memory[key] = torch.where(rows, output - begun, kept)
        return torch.where(rows, output, begun + kept)


def relative_change(x: Tensor, before: Tensor) -> Tensor:
    """Returns the mean absolute difference of each row, relative to the mean absolute value."""
    x, before = x.float().flatten(1), before.float().flatten(1)
    return (x - before).abs().mean(1) / before.abs().mean(1)


def all_due(measured: Tensor) -> tuple[Tensor, Measure]:
    """Returns that the network is due for all pictures, and the measure that begins with it."""
    zeros = torch.zeros(len(measured), device=measured.device)
    return torch.ones_like(zeros, dtype=torch.bool), Measure(measured, zeros)
