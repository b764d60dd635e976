"""Passes that adapters add to a step, and guidance away from them."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Context,
    Edit,
    Layer,
    Passthrough,
    Seat,
    Selection,
    SetContext,
    Sum,
    When,
)
from refiners_core.errors import AdapterError
from refiners_core.models.diffusion import COND, LatentDiffusion, by_branch
from refiners_core.option import described, number
from refiners_guidance.rule import scale_of_rows


class ExtraPass(Adapter):
    """An adapter that runs the network once more, worse than it can, and leads away from that.

    The pass has everything of the pass with the prompt: the text, and all values of other adapters,
    such as a control picture. The result of guidance gets `strength (cond - worse)`.

    Args:
        strength: The strength of guidance at scale 1.
        layers: Parts of the network whose self-attentions are worse: `down`, `mid`, `up`, or one
            level of it, such as `up.0`.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: `strength` is negative, or `layers` is not a list of texts.
    """

    def __init__(
        self, *, strength: float = 3.0, layers: Sequence[str] = ("mid",), **options: Any
    ) -> None:
        super().__init__(**options)
        self.strength: Final = number("strength", strength, 3.0, low=0)
        names = [layers] if isinstance(layers, str) else layers
        is_list = isinstance(names, list | tuple) and len(names) > 0
        if not is_list or not all(isinstance(name, str) for name in names):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AdapterError(
                f"layers is a list of parts of the UNet, not {described(layers)}.",
                hint='Try layers=["mid"].',
            )
        self.layers: Final = tuple(names)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Adds the pass, makes it worse, and leads away from it.

        Raises:
            AdapterError: The network does not have self-attentions in one of the layers.
        """
        attention = model.slot("unet.self_attention.attend")
        parts = sorted({part for seat in attention for part in parts_of(seat.path)})
        for name in self.layers:
            if name not in parts:
                raise AdapterError(
                    f"the UNet of this {model.base} has no self-attention in {name!r}; it has some "
                    f"in {', '.join(parts)}.",
                    hint=f'Try layers=["{"mid" if "mid" in parts else parts[0]}"].',
                )
        chosen = attention.where(lambda seat: not {*self.layers}.isdisjoint(parts_of(seat.path)))
        return (*self.worse(chosen), *self.guidance(model))

    @abstractmethod
    def worse(self, attention: Selection) -> Iterable[Edit]:
        """Returns the edits of attentions that make the pass worse.

        Args:
            attention: The selected self-attentions.
        """

    def guidance(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Returns the edits that add the pass and lead away from it."""
        add = Passthrough(When(self.scale_key, AddBranch(self.key)))

        def away(inner: nn.Module, seat: Seat) -> nn.Module:
            return Sum(
                inner, When(self.scale_key, AwayFrom(self.scale_key, self.key, self.strength))
            )

        return (
            *model.slot("denoise.branches").before("pass", lambda seat: add),
            *model.slot("denoise.guidance").wrap(away),
        )


class AddBranch(SetContext):
    """Adds a branch to the step.

    Args:
        name: The branch, which is the key of the adapter.
        texts: The keys of conditions for which the branch has a tensor that the adapter encoded,
            under `<adapter key>.<key>`; it takes all others of `cond`.
    """

    def __init__(self, name: str, texts: Sequence[str] = ()) -> None:
        super().__init__("branches")
        self.name: Final = name
        self.texts: Final = tuple(texts)

    def run(self, context: Context, *inputs: Any) -> None:
        context["branches"] = (*context["branches"], self.name)
        conditions: Mapping[str, Mapping[str, Tensor]] = context["conditions"]
        changed = {
            key: {**conditions[key], self.name: _as_long(conditions[f"{self.name}.{key}"], of)}
            for key in self.texts
            if key in conditions
            for of in [conditions[key][COND]]
        }
        if changed:
            context["conditions"] = {**conditions, **changed}

    def extra_repr(self) -> str:
        return repr(self.name)


class AwayFrom(Layer):
    """Returns the difference between the prediction with the prompt and that of another branch.

    Args:
        scale: The context key of the scale.
        branch: The other branch.
        strength: The factor at scale 1.
    """

    def __init__(self, scale: str, branch: str, strength: float) -> None:
        super().__init__()
        self.scale, self.branch, self.strength = scale, branch, strength

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        passes = by_branch(context["branches"], inputs[0])
        cond = passes[COND]
        weight = self.strength * scale_of_rows(context[self.scale], len(cond))
        return weight * (cond - passes[self.branch])

    def extra_repr(self) -> str:
        return f"{self.branch!r}, strength={self.strength:g}"


def _as_long(tensors: Mapping[str, Tensor], other: Tensor) -> Tensor:
    """Returns a text with as many tokens as another; repeats leave attention to it unchanged."""
    text = tensors[COND]
    return text if text.ndim < 3 else text.repeat(1, other.shape[1] // text.shape[1], 1)


def parts_of(path: str) -> tuple[str, ...]:
    """Returns the parts of the UNet that contain a place: `up` and `up.0`, or `mid` alone.

    Args:
        path: The path of the place in the model, such as `unet.up.0.transformer_0`.
    """
    _, part, level, *_ = path.split(".")
    return (part, f"{part}.{level}") if level.isdecimal() else (part,)
