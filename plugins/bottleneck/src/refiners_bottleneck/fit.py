"""Whether a folder of AdapterHub fits a model, and its tensors as parameters."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any, Final

from torch import nn

from refiners_bottleneck.config import BottleneckConfig
from refiners_bottleneck.folder import Folder, tensors_of
from refiners_bottleneck.leaf import Shapes, published_name, shared_by_all, twins
from refiners_core import Model, Source
from refiners_core.errors import AdapterError, Notice, WeightsError
from refiners_core.weights import MisfitError

_HOOKS: Final = ("attn_o_proj", "layer_output_proj", "layer_pre_self_attn", "layer_pre_ffn")
_USUAL: Final = ("o_proj", "mlp.down_proj", "input_layernorm")
"""Where AdapterHub hooks bottlenecks into families that it knows by an interface alone."""


SLOTS: Final = ("decoder.attention.output", "decoder.feed_forward.output", "decoder.linear")
"""The slots of a language model."""


def check_model(key: str, model: Any, folder: Folder | None) -> None:
    """Raises if an adapter cannot go on a model.

    Args:
        key: The key of the adapter.
        model: The tree of the inject.
        folder: The folder of the adapter; None for an untrained one.

    Raises:
        AdapterError: The tree is not a language model.
        WeightsError: The adapter was trained on another family, another width or another number of
            layers.
    """
    if not isinstance(model, Model) or not {*SLOTS} <= {*model.slots}:
        what = model.base if isinstance(model, Model) else type(model).__name__
        raise AdapterError(
            f"{key} goes on a language model, not on {what}.",
            hint='Try refiners.load_model("./folder-of-a-language-model").',
        )
    if folder is None:
        return
    name, family = folder.path.name, family_of(model)
    if (trained := folder.about.get("model_type")) not in (None, family):
        raise WeightsError(
            f"{name} was trained on {folder.trained_on}; this model is {family}.",
            hint=f"Load the {trained} model that it was trained on, or give an adapter for "
            f"{family}.",
        )
    width, layers = model.facts["width"], model.facts["layers"]
    if (features := folder.about.get("hidden_size")) not in (None, width):
        raise WeightsError(
            f"{name} was trained on {folder.trained_on} of {features} features; this {family} has "
            f"{width}.",
            hint="Load the model that it was trained on.",
        )
    last = max((layer for layer, _ in folder.keys), default=0)
    if last >= layers:
        raise WeightsError(
            f"{name} was trained on {folder.trained_on} with {last + 1} layers or more; this "
            f"{family} has {layers}.",
            hint="Load the model that it was trained on.",
        )


def family_of(model: Model) -> str:
    """Returns the family whose folders a model reads, which may have a base name of its own."""
    return str(getattr(getattr(model, "config", None), "family", model.base))


def check_heads(folder: Folder, source: Source) -> None:
    """Warns of a head in the folder, and refuses other places than the usual ones.

    Raises:
        WeightsError: An interface beside the weights puts bottlenecks elsewhere.

    Warns:
        Notice: The folder has a head.
    """
    beside = folder.path.parent
    heads = (beside / "head_config.json", beside / "model_head.safetensors")
    if "head" in source.files or any(path.exists() for path in heads):
        warnings.warn(
            f"{folder.path.name} was saved with a head, which is not read: the model keeps its "
            "own.",
            Notice,
            stacklevel=6,
        )
    path = source.files.get("interface", beside / "adapter_interface.json")
    if not path.exists():
        return
    interface: Mapping[str, Any] = json.loads(path.read_bytes()).get("interface") or {}
    places = tuple(interface.get(name) for name in _HOOKS)
    if places[:3] != _USUAL or places[3] not in (
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
    ):
        stated = ", ".join(f"{name} = {place}" for name, place in zip(_HOOKS, places, strict=True))
        raise WeightsError(
            f"{path.name} puts bottlenecks at {stated}; other places than those of AdapterHub's "
            "own models are not read.",
            hint="Give an adapter that was trained without an interface of its own.",
        )


def loaded(
    folder: Folder,
    spots: Mapping[tuple[int, str], BottleneckConfig],
    wanted: Mapping[tuple[int, str], Shapes],
) -> dict[tuple[int, str], dict[tuple[str, str], nn.Parameter]]:
    """Returns the tensors of a folder as parameters, by layer and place.

    Raises:
        MisfitError: Tensors are missing, are not expected, or have another shape.
    """
    tensors = tensors_of(folder)
    parameters: dict[str, nn.Parameter] = {}
    missing: list[str] = []
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    used: set[str] = set()
    result: dict[tuple[int, str], dict[tuple[str, str], nn.Parameter]] = {}
    for spot, config in spots.items():
        named = dict(folder.keys.get(spot, {}))
        for twin, name in twins(config).items():
            if twin in named:
                used.add(named[twin])
                named.setdefault(name, named[twin])
        for pair, shape in wanted[spot].items():
            shared = shared_by_all(config, *pair)
            name = shared or published_name(config, *pair)
            key = (folder.shared if shared else named).get(name)
            if key is None:
                missing.append(name if shared else f"{spot[0]}.{spot[1]}.{name}")
                continue
            used.add(key)
            if tuple(tensors[key].shape) != shape:
                misshapen[key] = tuple(tensors[key].shape), shape
            if key not in parameters:
                parameters[key] = nn.Parameter(tensors[key], requires_grad=False)
            result.setdefault(spot, {})[pair] = parameters[key]
    unexpected = tuple(sorted(tensors.keys() - used))
    if missing or unexpected or misshapen:
        title = f"{folder.path.name} does not fit its configuration"
        raise MisfitError(title, tuple(missing), unexpected, misshapen)
    return result
