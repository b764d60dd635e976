"""Reads a LoRA file of any method as exact changes of the weights of a model."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from refiners_core import Model
from refiners_core.errors import AdapterError, WeightsError
from refiners_lora.language_name import is_language_model
from refiners_lora.layer_match import match_layers
from refiners_lora.layer_name import Place
from refiners_lora.lora_file import LoraFile, Module, read_lora
from refiners_lora.method.change import Change, changed_channels, operation
from refiners_lora.method.low_rank import LowRank
from refiners_lora.method.rescaling import Rescaling
from refiners_lora.method.table import build
from refiners_lora.rework.target import Factors, Target, group_of
from refiners_lora.strength import alphas_of
from refiners_lora.worn import checked_base

PARTS: Final = ("unet", "text_encoder", "text_encoder_2")
"""The components whose adapters PEFT saves in folders of their names."""
WEIGHTS: Final = "adapter_model.safetensors"
"""The file of weights in a folder that PEFT saves."""
_SHOWN: Final = 3


class Dropped(NamedTuple):
    """A change that a plain LoRA cannot carry."""

    layer: str
    """The layer, as the file spells it."""
    what: str
    """The change in words, such as `a change of a bias`."""


@dataclass(frozen=True)
class Origin:
    """A file or model from which a LoRA is made."""

    name: str
    """The name of the file, without its folder."""
    sha256: str
    """The hash of its bytes; of a model, of the weights that were compared."""
    strength: float = 1.0
    """The strength at which it counts."""


@dataclass(frozen=True)
class Changes:
    """The changes of a model's weights that a file holds."""

    origin: Origin
    targets: Mapping[str, Target]
    """The changes by the path of the layer."""
    dropped: tuple[Dropped, ...] = field(default=())
    """The changes that a plain LoRA cannot carry."""


def read_changes(path: str | os.PathLike[str], model: Model) -> Changes:
    """Reads a file as exact changes of weights.

    Args:
        path: A safetensors file in any layout that is read, or a folder that PEFT saved: with
            `adapter_model.safetensors`, or with a folder for each component.
        model: The model that the file is for. Its weights are read only for methods that change a
            layer in proportion to its weight; otherwise it may be on the meta device.

    Raises:
        WeightsError: The file is unreadable, not a LoRA, or for another base.
        AdapterError: A method reads the weights of the model, which has none; or the model is a
            language model.
    """
    check_image_model(model)
    files = _files(Path(path).expanduser())
    file = _joined(Path(path), [(part, read_lora(weights)) for part, weights in files])
    matches = match_layers(file, model)
    alphas = alphas_of(file, matches)
    targets: dict[str, Target] = {}
    names = {match.module.name for match in matches}
    dropped = [Dropped(name, "a change of a layer that the model does not have")
               for name in file.modules if name not in names]  # fmt: skip
    for (place, module), alpha in zip(matches, alphas, strict=True):
        if reads_base(module):
            _check_weights(place, module, file)
        change = build(module.method, place.seat, module.tensors, alpha)
        dropped += _beside(place, module, change)
        if place.seat.is_a(nn.Linear, nn.Conv2d) and (target := _target(place, module, change)):
            targets[place.seat.path] = target
    return Changes(Origin(Path(path).name, _sha256(w for _, w in files)), targets, tuple(dropped))


def check_image_model(model: Model) -> None:
    """Checks that the layouts of files have names for the layers of a model.

    Raises:
        AdapterError: The model is a language model.
    """
    if is_language_model(model):
        raise AdapterError(
            f"LoRAs are reworked for image models; this model is {model.base}, a language model.",
            hint="Wear the adapters together, or put them into the weights: adapter.merge().",
        )


def reads_base(module: Module) -> bool:
    """Whether a change depends on the weights of the base layer."""
    method = module.method
    return method.needs_base or method.reads_base or module.title == "a DoRA"


def needs_weights(path: str | os.PathLike[str]) -> bool:
    """Whether a file can be read only together with the weights of its base model.

    Raises:
        WeightsError: The file is unreadable or not a LoRA.
    """
    files = _files(Path(path).expanduser())
    return any(reads_base(module) for _, f in files for module in read_lora(f).modules.values())


def refuse_dropped(changes: Sequence[Changes], *, drop: bool) -> None:
    """Refuses changes that a plain LoRA cannot carry, unless they may be dropped.

    Raises:
        AdapterError: A file has such changes, and they may not be dropped.
    """
    for each in changes:
        if each.dropped and not drop:
            kinds = dict.fromkeys(dropped.what for dropped in each.dropped)
            layers = ", ".join(dropped.layer for dropped in each.dropped[:_SHOWN])
            more = len(each.dropped) - _SHOWN
            layers += f" and {more} more" if more > 0 else ""
            raise AdapterError(
                f"{each.origin.name} has changes that a plain LoRA cannot carry: "
                f"{', '.join(kinds)}, at {layers}.",
                hint="Leave them out with drop=True.",
            )


def _files(path: Path) -> list[tuple[str, Path]]:
    """Returns the files of weights of an argument, with the component that each is for."""
    if not path.is_dir():
        return [("", path)]
    if (path / WEIGHTS).is_file():
        return [("", path / WEIGHTS)]
    files = [(part, path / part / WEIGHTS) for part in PARTS]
    present = [(part, file) for part, file in files if file.is_file()]
    if not present:
        raise WeightsError(
            f"{path} has neither {WEIGHTS} nor a folder {' or '.join(PARTS)} with one.",
            hint="Give a safetensors file, or a folder that PEFT saved.",
        )
    return present


def _joined(path: Path, files: Sequence[tuple[str, LoraFile]]) -> LoraFile:
    """Returns the files of several components as one file, with the component before each name."""
    if len(files) == 1 and not files[0][0]:
        return files[0][1]
    modules: dict[str, Module] = {}
    config: dict[str, Any] = {}
    odd: list[str] = []
    for part, file in files:
        for name, module in file.modules.items():
            full = name if name.startswith(f"{part}.") else f"{part}.{name}"
            module.name = full
            modules[full] = module
        config |= {f"{part}.{key}": value for key, value in file.config.items()}
        odd += file.odd_keys
    lacks_config = any(file.lacks_config for _, file in files)
    return LoraFile(path, modules, tuple(odd), config, lacks_config)


def _check_weights(place: Place, module: Module, file: LoraFile) -> None:
    layer = place.seat.layer
    checked_base(layer, place.seat.path, module.title)
    if getattr(layer, "weight").is_meta:  # noqa: B009
        raise AdapterError(
            f"{file.path.name} holds {module.title} for {module.name!r}, which depends on the "
            "weights of its base model, and this model has none.",
            hint="Load the model with its weights.",
        )


def _beside(place: Place, module: Module, change: Change) -> list[Dropped]:
    """Returns what a plain LoRA cannot carry of the change of a layer."""
    if place.seat.is_a(nn.Embedding):
        return [Dropped(module.name, "a change of token embeddings")]
    if not place.seat.is_a(nn.Linear, nn.Conv2d):
        return [Dropped(module.name, "a change of a norm")]
    layer: Any = place.seat.layer
    has_bias = bool({"diff_b", "up_bias"} & {*module.tensors})
    if isinstance(change, Rescaling) and layer.bias is not None:
        has_bias = has_bias or ("ia3_l" in module.tensors and not change.on_input)
    return [Dropped(module.name, "a change of a bias")] if has_bias else []


def _target(place: Place, module: Module, change: Change) -> Target | None:
    """Returns the change of the weight of a layer; None if only its bias changes."""
    method, tensors = module.method, module.tensors
    whole = operation(place.seat)
    if type(change) is LowRank:
        return _product(place, change)
    channels = changed_channels(method.sizes(tensors)[0], whole.shape)
    shape = operation(place.seat, channels).shape
    layer: Any = place.seat.layer
    base: Tensor = layer.weight.detach()
    if base.is_meta:  # only its shape is read
        base = torch.empty(1).expand(whole.shape)
    parts = change.delta(base, None if layer.bias is None else layer.bias.detach())
    if "weight" not in parts:
        return None
    matrix = parts["weight"].detach()[:, : shape[1]].reshape(shape[0], -1).float()
    return Target(place.published, group_of(place), shape, whole=matrix)


def _product(place: Place, change: LowRank) -> Target:
    parts = {name: layer.weight.detach() for name, layer in change.factors()}
    up, down, core = parts["up"], parts["down"], parts.get("core")
    written = Factors(down, up, change.alpha) if core is None else None
    if core is not None:  # the kernel moves into `down`
        down = torch.einsum("mnhw,ni->mihw", core.float(), down.float().flatten(1))
    whole = operation(place.seat).shape
    shape = (*whole[:1], down.shape[1], *whole[2:])
    product = up.float().flatten(1) * change.factor, down.float().flatten(1)
    return Target(place.published, group_of(place), shape, None, product, written)


def _sha256(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
