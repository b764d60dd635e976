"""Matches the layer names of a LoRA file with a model; refuses files for other bases."""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from refiners_core import Model
from refiners_core.errors import Notice, WeightsError
from refiners_lora.layer_name import Place, places_by_name
from refiners_lora.lora_file import LoraFile, Module

BASES: Final = {768: "sd15", 1024: "sd2", 1280: "sdxl-refiner", 2048: "sdxl"}
"""Bases by the width of the text embeddings that their UNets read."""
MARKS: Final[Mapping[str, re.Pattern[str]]] = {
    "sdxl": re.compile(
        r"^(lora_te[12]_|text_encoder_2\.)|add_embedding|label_emb|transformer_blocks[._][1-9]"
    ),
    "sd15": re.compile(
        r"^lora_te_|(down_blocks[._]0|up_blocks[._][23])[._]attentions"
        r"|input_blocks[._](1|2|10|11)[._]1|output_blocks[._](9|10|11)[._]"
    ),
}
"""Patterns of layer names that only models of one base have."""
Ends = tuple[list[int], list[int]]
"""The input and output sizes of a layer: features, or channels and kernel."""
_SHOWN: Final = 3


class Match(NamedTuple):
    """A layer of the model, and the update that the file holds for it."""

    place: Place
    module: Module


def match_layers(file: LoraFile, model: Model) -> list[Match]:
    """Returns the layers of a model that a file updates.

    Layers are matched by their published names, never by order or shape. Names that the model does
    not have are left out with a `Notice`, unless they show that the file is for another base.

    Raises:
        WeightsError: The file is for another base, or has no layer of the model.
    """
    known = places_by_name(model)
    matches = [Match(known[name], module) for name, module in file.modules.items() if name in known]
    unknown = [name for name in file.modules if name not in known]
    _check_text_width(file, model)
    for base, marks in MARKS.items():
        names = [name for name in unknown if marks.search(name)]
        if names and base != model.base:
            raise _of_another_base(file, base, model, f"it names {names[0]!r}")
    parts = {match.place.part for match in matches}
    if not matches or ("unet" not in parts and any(map(_is_of_unet, unknown))):
        raise WeightsError(
            f"{file.path.name} holds a LoRA for {len(file.modules)} layers; this {model.base} has "
            f"no layer {_some(unknown)}.",
            hint=f"Give a LoRA for {model.base}.",
        )
    seats: dict[str, str] = {}
    for place, module in matches:
        if (other := seats.setdefault(place.seat.path, module.name)) != module.name:
            raise WeightsError(
                f"{file.path.name} changes one layer under two names: {other!r} and "
                f"{module.name!r}.",
                hint="Give a file of one LoRA, in one dialect.",
            )
    _check_shapes(file, model, matches)
    _notify(file, model, unknown)
    return matches


def _check_text_width(file: LoraFile, model: Model) -> None:
    """Refuses a file whose cross-attentions read text embeddings of another width."""
    needed = model.facts.get("cross_attention_dim")
    name = next((name for name in file.modules if _READS_TEXT.search(name)), None)
    if name is None or needed is None:
        return
    width = file.modules[name].factors[0].shape[1]
    if width != needed:
        base = BASES.get(width) or _marked(file, model)
        reason = f"it reads texts of width {width}, not {needed}"
        raise _of_another_base(file, base, model, reason)


def _check_shapes(file: LoraFile, model: Model, matches: Sequence[Match]) -> None:
    misfits = [
        (module.name, given, needed)
        for place, module in matches
        if (given := _ends(*module.factors))
        != (needed := _needed(place, module.factors[0], model.facts))
    ]
    if misfits:
        name, given, needed = misfits[0]
        reason = (
            f"{len(misfits)} of {len(matches)} layers have other sizes. {name!r} goes from "
            f"{given[0]} to {given[1]}, the layer from {needed[0]} to {needed[1]}"
        )
        reads_more = len(misfits) == 1 and name.endswith(_FIRST) and given[0][0] > needed[0][0]
        base = "an inpainting model" if reads_more else _marked(file, model)
        raise _of_another_base(file, base, model, reason)


def _marked(file: LoraFile, model: Model) -> str:
    """Returns the base that the names of layers point to."""
    for base, marks in MARKS.items():
        if base != model.base and any(map(marks.search, file.modules)):
            return base
    return "a model of other sizes"


def _needed(place: Place, down: Tensor, facts: Mapping[str, Any]) -> Ends:
    """Returns the input and output sizes that an update of a layer must have."""
    layer = place.seat.facts
    if not place.seat.is_a(nn.Conv2d):
        return [layer["in_features"]], [layer["out_features"]]
    channels = layer["in_channels"]
    if place.part == "unet" and place.name == "conv_in" and down.shape[1] < channels:
        # A LoRA for the plain UNet updates the first channels of an inpainting UNet.
        channels = facts.get("latent_channels", channels)
    kernel = [] if layer["kernel_size"] == (1, 1) else list(layer["kernel_size"])
    return [channels, *kernel], [layer["out_channels"]]


def _ends(down: Tensor, up: Tensor) -> Ends:
    """Returns the input and output sizes of two factors; a kernel of 1x1 is left out."""
    kernels = [[] if end.shape[2:] in ((), (1, 1)) else [*end.shape[2:]] for end in (down, up)]
    return [down.shape[1], *kernels[0]], [up.shape[0], *kernels[1]]


def _of_another_base(file: LoraFile, base: str, model: Model, reason: str) -> WeightsError:
    return WeightsError(
        f"{file.path.name} is a LoRA for {base}; this model is {model.base}: {reason}.",
        hint=f"Give a LoRA for {model.base}, or load the model that this LoRA is for.",
    )


def _notify(file: LoraFile, model: Model, unknown: Sequence[str]) -> None:
    """Gives one notice of everything that was left out or assumed."""
    lines: list[str] = []
    if unknown:
        count = f"{len(unknown)} of {len(file.modules)} layers"
        lines.append(f"{count} are not in this {model.base} and were left out: {_some(unknown)}")
    if file.odd_keys:
        count = f"{len(file.odd_keys)} tensors"
        lines.append(f"{count} do not belong to a LoRA and were left out: {_some(file.odd_keys)}")
    if file.lacks_config:
        lines.append(
            "adapter_config.json, which holds the alphas, is not beside it: each alpha is assumed "
            "to be the rank"
        )
    if lines:
        warnings.warn(f"{file.path.name}: {'; '.join(lines)}.", Notice, stacklevel=6)


def _is_of_unet(name: str) -> bool:
    return name.startswith(("lora_unet_", "unet.", "model.diffusion_model.", "diffusion_model."))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


_FIRST: Final = ("conv_in", "input_blocks_0_0", "input_blocks.0.0")
_READS_TEXT: Final = re.compile(r"attn2[._](processor\.)?to_[kv](_lora)?$")
