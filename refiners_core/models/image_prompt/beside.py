"""An attention to an image beside every attention to the text, numbered as in files."""

from collections.abc import Callable, Mapping
from typing import Final

from torch import nn

from refiners_core.errors import AdapterError
from refiners_core.layers.attend import Attend
from refiners_core.layers.attention import CrossAttention
from refiners_core.model import Model
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.image_prompt.attention import ImageAttention
from refiners_core.surgery.selection import Edit
from refiners_core.surgery.tree_index import Seat
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Sum, When
from refiners_core.weights.key_map import KeyMap

IMAGE_ATTENTION_KEYS: Final = KeyMap(
    {
        "{n}.project.k.to_k_ip": "{n}.to_k_ip",
        "{n}.project.v.to_v_ip": "{n}.to_v_ip",
    }
)
"""The layout in which `image_attentions` are published, below `ip_adapter`."""


def numbered(
    model: Model, slot: str = "unet.cross_attention.attend"
) -> dict[str, tuple[str, Seat]]:
    """Returns the published number and the seat of every attention to the text, by its path.

    Published files count all attentions, self-attention and cross-attention in turn: those on the
    way down first, then those on the way up, then the middle's.

    Args:
        model: The model.
        slot: The slot of the seats, or `unet.self_attention.attend` for those of self-attention.
    """
    seats = sorted(model.slot(slot), key=_published_order)
    first = slot.startswith("unet.cross_attention")
    return {seat.path: (str(2 * i + first), seat) for i, seat in enumerate(seats)}


def image_attentions(model: LatentDiffusion, tokens: str, scale: str, mask: str = "") -> Chain:
    """Builds an attention to an image for each attention to the text.

    Args:
        model: The model.
        tokens: The context key of the image's tokens.
        scale: The context key of the adapter's scale.
        mask: The context key of masks for the pictures; empty without masks.

    Returns:
        The attentions by their published numbers.

    Raises:
        AdapterError: An attention to the text is not an `Attend` in a `CrossAttention`.
    """
    width = model.unet.config.text_width
    return Chain(
        **{
            number: ImageAttention(tokens, scale, width, *_sizes(seat), mask)
            for number, seat in numbered(model).values()
        }
    )


def image_edits(
    model: LatentDiffusion,
    attentions: Chain,
    then: Callable[[], Mapping[str, nn.Module]] | None = None,
    when: str = "",
) -> tuple[Edit, ...]:
    """Returns edits that add attention to an image to attention to the text.

    The sum is taken before the output projection.

    Args:
        model: The model.
        attentions: The attentions that `image_attentions` has built for a model of this kind.
        then: Returns the named layers that each output passes before it is added.
        when: With `then`, the context key without which nothing runs.
    """
    numbers = {path: number for path, (number, _) in numbered(model).items()}

    def with_image(inner: nn.Module, seat: Seat) -> Sum:
        image = attentions.layer(numbers[seat.path], ImageAttention)
        if then is None:
            return Sum(text=inner, image=image)
        return Sum(text=inner, image=When(when, attention=image, **then()))

    return model.slot("unet.cross_attention.attend").wrap(with_image, name="image")


def _published_order(seat: Seat) -> int:
    return ("down", "up", "mid").index(seat.path.split(".")[1])


def _sizes(seat: Seat) -> tuple[int, int]:
    """Returns the features and heads of an attention, whose projections may be quantised."""
    attention = seat.chain
    if not seat.is_a(Attend) or not isinstance(attention, CrossAttention):
        raise AdapterError(
            f"the attention at {seat.path!r} does not take an IP-Adapter.",
            hint="It needs a base model whose slot has an Attend in a CrossAttention.",
        )
    return attention.width, seat.facts["heads"]
