"""The names that LoRA files use for the layers of a model."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from refiners_core import Seat
from refiners_core.errors import WeightsError
from refiners_core.models.clip import CLIP_TEXT_KEYS, ClipTextEncoder, TextEncoderPair
from refiners_core.models.formats import unet_keys
from refiners_core.models.unet import UNET_KEYS, UNet
from refiners_core.weights import SAME, KeyMap, Transform

SLOTS: Final = ("unet.linear", "unet.conv", "text_encoder.linear")
"""The slots of the layers to which a LoRA adds a product of two factors."""
ALL_SLOTS: Final = (*SLOTS, "unet.norm", "text_encoder.norm", "text_encoder.embedding")
"""The slots of the layers that a file can change."""


class Published(NamedTuple):
    """The published name of a layer."""

    part: str
    """The component, as diffusers calls it: `unet`, `text_encoder` or `text_encoder_2`; or
    `decoder`."""
    name: str
    """The name in that component."""
    is_of_pair: bool
    """Whether the layer is in one of two text encoders."""
    share: int = 0
    """The index of the layer among those that are published as one."""
    shares: int = 1
    """The number of layers that are published as one."""

    @property
    def flat(self) -> str:
        """The name that kohya's trainer writes."""
        prefix = {"unet": "lora_unet_", "text_encoder_2": "lora_te2_"}.get(self.part)
        prefix = prefix or ("lora_te1_" if self.is_of_pair else "lora_te_")
        return prefix + self.name.replace(".", "_")

    @property
    def has_grid(self) -> bool:
        """Whether the layer may see a feature map or its tokens, rather than texts or times."""
        return self.part == "unet" and not _READS_TEXT.search(self.name)


class Place(NamedTuple):
    """A layer of a model that a file can change."""

    seat: Seat
    part: str
    """The component, as diffusers calls it: `unet`, `text_encoder` or `text_encoder_2`; or
    `decoder`."""
    name: str
    """The published name of the layer in that component."""
    transform: Transform = SAME
    """The conversion from the published layer, or from its share."""

    @property
    def published(self) -> Published:
        """The published name of the layer, without the layer."""
        is_of_pair = self.seat.path.startswith("text_encoder.clip_")
        how = self.transform
        return Published(self.part, self.name, is_of_pair, how.share, how.shares)


class _Layout(NamedTuple):
    """A naming convention for the layers of one component."""

    path: str
    part: str
    keys: KeyMap
    dotted: tuple[str, ...]
    """The prefixes of names with dots."""
    flat: tuple[str, ...]
    """The prefixes of names in which underscores replace the dots."""


def places_by_name(model: Any, slots: Sequence[str] = SLOTS) -> dict[str, Place]:
    """Returns every layer that a file can change, under each name that a file may use for it.

    A flat name does not show which underscores were dots, so the names in files are never parsed
    but looked up in this table. Ambiguous names are left out.

    Args:
        model: A model.
        slots: The slots of the layers; those that the model does not have are left out.
    """
    layouts = list(_layouts(model))
    places: dict[str, Place] = {}
    ambiguous: set[str] = set()
    for seat in (seat for slot in slots if slot in model.slots for seat in model.slot(slot)):
        published = ""
        for layout in layouts:
            if not seat.path.startswith(layout.path):
                continue
            name = _published(layout.keys, seat.path.removeprefix(layout.path))
            published = published or name
            place = Place(seat, layout.part, published)
            for spelled in _spelled(name, layout) if name else ():
                if places.setdefault(spelled, place).seat is not seat:
                    ambiguous.add(spelled)
    return {name: place for name, place in places.items() if name not in ambiguous}


def _layouts(model: Any) -> Iterator[_Layout]:
    unet, text = getattr(model, "unet", None), getattr(model, "text_encoder", None)
    if isinstance(unet, UNet):
        # Early attention processors, and LoRAs that PEFT saves of a bare UNet, have no prefix.
        yield _Layout("unet.", "unet", UNET_KEYS, ("unet.", ""), ("lora_unet_",))
        whole = ("model.diffusion_model.", "diffusion_model.")
        yield _Layout("unet.", "unet", unet_keys(unet.config), whole, ("lora_unet_",))
    if isinstance(text, ClipTextEncoder):
        prefixes = ("text_encoder.", "text_encoders.clip_l.transformer.", "")
        yield _text("text_encoder.", "text_encoder", prefixes, "lora_te_")
    elif isinstance(text, TextEncoderPair):
        # A name without a prefix would be ambiguous between the two.
        for i, path in enumerate(("clip_l", "clip_g")):
            part = ("text_encoder", "text_encoder_2")[i]
            prefixes = (f"{part}.", f"text_encoders.{path}.transformer.")
            yield _text(f"text_encoder.{path}.encoder.", part, prefixes, f"lora_te{i + 1}_")


def _text(path: str, part: str, dotted: tuple[str, ...], flat: str) -> _Layout:
    return _Layout(path, part, CLIP_TEXT_KEYS, dotted, (flat,))


def _published(keys: KeyMap, path: str) -> str:
    try:
        return keys.published(path)
    except WeightsError:  # a layer that a derived model adds: no file names it
        return ""


def _spelled(name: str, layout: _Layout) -> Iterator[str]:
    for variant in _variants(name):
        yield from (f"{prefix}{variant}" for prefix in layout.dotted)
        yield from (f"{prefix}{variant.replace('.', '_')}" for prefix in layout.flat)


def _variants(name: str) -> Iterator[str]:
    yield name
    if name.startswith("text_model."):  # transformers omits it since 5.6
        yield name.removeprefix("text_model.")
    above, _, layer = name.removesuffix(".0").rpartition(".")
    above, _, attention = above.rpartition(".")
    if old := _PROCESSORS.get((attention, layer)):
        yield f"{above}.{old}"


_READS_TEXT: Final = re.compile(r"attn2\.to_[kv]$")
_PROCESSORS: Final[Mapping[tuple[str, str], str]] = {
    **{
        (attention, f"to_{which}"): f"{attention}.processor.to_{which}_lora"
        for attention in ("attn1", "attn2")
        for which in ("q", "k", "v", "out")
    },
    **{
        ("self_attn", f"{which}_proj"): f"self_attn.to_{which}_lora"
        for which in ("q", "k", "v", "out")
    },
}
"""Former names of layers that diffusers kept in attention processors."""
