"""The LoRA inside FaceID: low-rank changes of the projections of every attention.

It is part of the file of a FaceID, and is worn and taken off with it. The file beside it that other
loaders need contains the same weights.
"""

from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn

from refiners_core import Chain, Edit, Multiply, Seat, Sum, When
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.image_prompt import numbered
from refiners_core.weights import KeyMap

NAMES: Final = ("to_q", "to_k", "to_v", "to_out")
"""The projections of an attention that the LoRA changes."""
SLOTS: Final = ("unet.self_attention.attend", "unet.cross_attention.attend")
"""The slots of the attentions that the LoRA changes."""
INNER_LORA_KEYS: Final = KeyMap({f"{{n}}.{name}": f"{{n}}.{name}_lora" for name in NAMES})
"""The layout in which such a LoRA is published, below `ip_adapter`."""


class LowRank(Chain):
    """A change of low rank (LoRA, arXiv:2106.09685, section 4.1).

    Args:
        width: The features of the input.
        rank: The rank.
        out_width: The features of the output.
    """

    def __init__(self, width: int, rank: int, out_width: int) -> None:
        super().__init__(
            down=nn.Linear(width, rank, bias=False), up=nn.Linear(rank, out_width, bias=False)
        )
        up = self.layer("up", nn.Linear)
        if not up.weight.is_meta:
            nn.init.zeros_(up.weight)  # an untrained one changes nothing


def rank_of(tensors: Mapping[str, Tensor]) -> int:
    """Returns the rank of the LoRA in published tensors; 0 without one."""
    suffix = ".to_q_lora.down.weight"
    return next((len(tensor) for key, tensor in tensors.items() if key.endswith(suffix)), 0)


def inner_lora(model: LatentDiffusion, rank: int) -> Chain:
    """Builds the changes of every attention, by their published numbers.

    Args:
        model: The model.
        rank: The rank of the changes.
    """
    text = model.unet.config.text_width
    changes: dict[str, nn.Module] = {}
    for slot in SLOTS:
        for number, seat in numbered(model, slot).values():
            width: int = getattr(seat.chain, "width")  # noqa: B009  (both attentions have it)
            source = text if slot == SLOTS[1] else width
            sizes = {"to_q": width, "to_k": source, "to_v": source, "to_out": width}
            changes[number] = Chain(**{name: LowRank(sizes[name], rank, width) for name in NAMES})
    return Chain(**changes)


def lora_edits(
    model: LatentDiffusion, changes: Chain, scale: str, strength: str
) -> tuple[Edit, ...]:
    """Returns edits that add the changes to the projections of every attention.

    Args:
        model: The model.
        changes: The changes that `inner_lora` has built for a model of this kind.
        scale: The context key of the adapter's scale, without which nothing runs.
        strength: The context key of the strength of the changes, without which nothing runs.
    """
    places: dict[str, tuple[str, str]] = {}
    for slot in SLOTS:
        for path, (number, _) in numbered(model, slot).items():
            attention = path.removesuffix(".attend")
            for name in NAMES:
                inside = name if name == "to_out" else f"project.{name}"
                places[f"{attention}.{inside}"] = (number, name)

    def changed(inner: nn.Module, seat: Seat) -> Sum:
        number, name = places[seat.path]
        change = changes.layer(number, Chain).layer(name, LowRank)
        return Sum(
            base=inner,
            face=When(scale, When(strength, change=change, strength=Multiply(strength))),
        )

    seats = model.slot("unet.linear").where(lambda seat: seat.path in places)
    return seats.expect(len(places)).wrap(changed, name="face")
