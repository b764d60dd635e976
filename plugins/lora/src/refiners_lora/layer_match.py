"""Matches the layer names of a LoRA file with a model; refuses files for other bases."""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from torch import nn

from refiners_core import Model
from refiners_core.errors import Notice, WeightsError
from refiners_lora.layer_name import ALL_SLOTS, Place, places_by_name
from refiners_lora.lora_file import LoraFile, Module
from refiners_lora.method.change import Sizes, plain
from refiners_lora.method.decomposed import MAGNITUDES, is_on_input

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
_SHOWN: Final = 3


class Match(NamedTuple):
    """A layer of the model, and the change that the file holds for it."""

    place: Place
    module: Module


def match_layers(file: LoraFile, model: Model) -> list[Match]:
    """Returns the layers of a model that a file changes.

    Layers are matched by their published names, never by order or shape. Names that the model does
    not have are left out with a `Notice`, unless they show that the file is for another base.

    Raises:
        WeightsError: The file is for another base, or has no layer of the model.
    """
    known = places_by_name(model, ALL_SLOTS)
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
            f"{file.path.name} holds {file.title} for {len(file.modules)} layers; this "
            f"{model.base} has no layer {_some(unknown)}.",
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
    if needed is None:
        return
    for name, module in file.modules.items():
        inputs = module.method.sizes(module.tensors)[0] if _READS_TEXT.search(name) else None
        if inputs is not None and inputs[0] != needed:
            base = BASES.get(inputs[0]) or _marked(file, model)
            reason = f"it reads texts of width {inputs[0]}, not {needed}"
            raise _of_another_base(file, base, model, reason)


def _check_shapes(file: LoraFile, model: Model, matches: Sequence[Match]) -> None:
    misfits: list[tuple[str, str]] = []
    first_given = 0
    for place, module in matches:
        if not place.seat.is_a(*module.method.kinds):
            kind = place.seat.role.__name__
            raise WeightsError(
                f"{file.path.name} holds {module.title} for {module.name!r}, which is a {kind}.",
                hint="Give a file whose weights are for layers of their kind.",
            )
        if reason := _misfit(place, module, model.facts):
            misfits.append((module.name, reason))
            first_given = first_given or (module.method.sizes(module.tensors)[0] or [0])[0]
    if misfits:
        name, reason = misfits[0]
        needed = _sizes(place_named(matches, name))
        reads_more = len(misfits) == 1 and name.endswith(_FIRST) and first_given > needed[1]
        base = "an inpainting model" if reads_more else _marked(file, model)
        text = f"{len(misfits)} of {len(matches)} layers have other sizes. {name!r} {reason}"
        raise _of_another_base(file, base, model, text)


def place_named(matches: Sequence[Match], name: str) -> Place:
    """Returns the place of the layer that a file spells so."""
    return next(place for place, module in matches if module.name == name)


def _marked(file: LoraFile, model: Model) -> str:
    """Returns the base that the names of layers point to."""
    for base, marks in MARKS.items():
        if base != model.base and any(map(marks.search, file.modules)):
            return base
    return "a model of other sizes"


def _misfit(place: Place, module: Module, facts: Mapping[str, Any]) -> str:
    """Returns why a change does not fit a layer, as a clause; empty if it does."""
    sizes, method, tensors = _sizes(place), module.method, module.tensors
    options = [sizes]
    if place.part == "unet" and place.name == "conv_in":
        # A LoRA for the plain UNet updates the first channels of an inpainting UNet.
        fewer = min(sizes[1], facts.get("latent_channels", sizes[1]))
        options.append((sizes[0], fewer, *sizes[2:]))
    fitting = [option for option in options if method.fits(tensors, option)]
    if not fitting:
        inputs, outputs = method.sizes(tensors)
        given = f"goes from {inputs or 'any'} to {outputs or 'any'}"
        return f"{given}, the layer from {[*sizes[1:]]} to {[sizes[0]]}"
    if any(role in tensors for role in MAGNITUDES):
        try:
            is_on_input(tensors, fitting[0])
        except ValueError as error:
            return f"has magnitudes {error}, the layer goes from {sizes[1]} to {sizes[0]} features"
    offset = tensors.get("diff_b")
    if offset is not None and tuple(offset.shape) != sizes[:1]:
        return f"changes a bias of {[*offset.shape]}, the layer has {[sizes[0]]}"
    return ""


def _sizes(place: Place) -> Sizes:
    """Returns the features of a layer: out, in and a kernel unless it is 1x1; a norm's alone."""
    layer, seat = place.seat.facts, place.seat
    if seat.is_a(nn.Linear):
        return (layer["out_features"], layer["in_features"])
    if seat.is_a(nn.Conv2d):
        return plain((layer["out_channels"], layer["in_channels"], *layer["kernel_size"]))
    if seat.is_a(nn.Embedding):
        return (layer["embedding_dim"], layer["num_embeddings"])
    return (layer["num_channels"],) if seat.is_a(nn.GroupNorm) else layer["normalized_shape"]


def _of_another_base(file: LoraFile, base: str, model: Model, reason: str) -> WeightsError:
    return WeightsError(
        f"{file.path.name} is {file.title} for {base}; this model is {model.base}: {reason}.",
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
