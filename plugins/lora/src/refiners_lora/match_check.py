"""Checks of the layers of a model that a file changes, whatever the names of its layers."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from refiners_core import Model
from refiners_core.errors import Notice, WeightsError
from refiners_lora.layer_name import Place
from refiners_lora.lora_file import LoraFile, Module
from refiners_lora.method.change import Sizes, plain
from refiners_lora.method.decomposed import MAGNITUDES, is_on_input
from refiners_lora.peft_target import some


class Match(NamedTuple):
    """A layer of the model, and the change that the file holds for it."""

    place: Place
    module: Module


def check_names(file: LoraFile, matches: Sequence[Match]) -> None:
    """Refuses a file that changes one layer under two names.

    Raises:
        WeightsError: The file has two names of one layer.
    """
    seats: dict[str, str] = {}
    for place, module in matches:
        if (other := seats.setdefault(place.seat.path, module.name)) != module.name:
            raise WeightsError(
                f"{file.path.name} changes one layer under two names: {other!r} and "
                f"{module.name!r}.",
                hint="Give a file of one LoRA, in one dialect.",
            )


def check_shapes(file: LoraFile, model: Model, matches: Sequence[Match]) -> list[tuple[Match, str]]:
    """Returns the changes that do not fit their layers, each with the reason as a clause.

    Raises:
        WeightsError: A change is for layers of another kind.
    """
    misfits: list[tuple[Match, str]] = []
    for match in matches:
        place, module = match
        if not place.seat.is_a(*module.method.kinds):
            kind = place.seat.role.__name__
            raise WeightsError(
                f"{file.path.name} holds {module.title} for {module.name!r}, which is a {kind}.",
                hint="Give a file whose weights are for layers of their kind.",
            )
        if reason := _misfit(place, module, model.facts):
            misfits.append((match, reason))
    return misfits


def _misfit(place: Place, module: Module, facts: Mapping[str, Any]) -> str:
    """Returns why a change does not fit a layer, as a clause; empty if it does."""
    sizes, method, tensors = sizes_of(place, module), module.method, module.tensors
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
    offset = tensors.get("diff_b", tensors.get("whole_bias"))
    if offset is not None and tuple(offset.shape) != sizes[:1]:
        return f"changes a bias of {[*offset.shape]}, the layer has {[sizes[0]]}"
    return ""


def sizes_of(place: Place, module: Module) -> Sizes:
    """Returns the features of a layer: out, in and a kernel unless it is 1x1; a norm's alone."""
    layer, seat = place.seat.facts, place.seat
    if seat.is_a(nn.Linear):
        return (layer["out_features"], layer["in_features"])
    if seat.is_a(nn.Conv2d):
        return plain((layer["out_channels"], layer["in_channels"], *layer["kernel_size"]))
    if seat.is_a(nn.Embedding):
        sizes = (layer["embedding_dim"], layer["num_embeddings"])
        return sizes[::-1] if module.method.has_rows_first else sizes
    return (layer["num_channels"],) if seat.is_a(nn.GroupNorm) else layer["normalized_shape"]


def notify(file: LoraFile, model: Model, unknown: Sequence[str], more: Iterable[str]) -> None:
    """Gives one notice of everything that was left out or assumed.

    Args:
        file: The file.
        model: The model.
        unknown: The layers that the model does not have.
        more: Further clauses.
    """
    lines: list[str] = []
    if unknown:
        count = f"{len(unknown)} of {len(file.modules)} layers"
        lines.append(f"{count} are not in this {model.base} and were left out: {some(unknown)}")
    if file.odd_keys:
        count = f"{len(file.odd_keys)} tensors"
        lines.append(f"{count} do not belong to a LoRA and were left out: {some(file.odd_keys)}")
    if file.lacks_config:
        lines.append(
            "adapter_config.json, which holds the alphas, is not beside it: each alpha is assumed "
            "to be the rank"
        )
    if lines := [*lines, *more]:
        warnings.warn(f"{file.path.name}: {'; '.join(lines)}.", Notice, stacklevel=7)
