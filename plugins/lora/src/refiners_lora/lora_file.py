"""The contents of a LoRA file: for each layer that it names, a method, weights and an alpha."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.weights import TensorFile
from refiners_lora.method.change import Change
from refiners_lora.method.table import method_of, missing_role, odd_roles, title
from refiners_lora.peft_field import check_fields
from refiners_lora.peft_form import TOKEN_IDS, in_our_form
from refiners_lora.peft_method import check_method, is_of_language
from refiners_lora.role import PEFT, parse

METADATA: Final = "lora_adapter_metadata"
"""The metadata key of a safetensors file under which diffusers stores PEFT's configurations, as
JSON."""
CONFIG: Final = "adapter_config.json"
"""The file in which PEFT stores its configuration, beside the weights."""
RANK: Final = "ss_network_dim"
"""The metadata key under which kohya's trainer stores the rank that it was given."""


@dataclass
class Module:
    """The change of one layer, as a file holds it."""

    name: str
    """The layer's name, as the file spells it."""
    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """The weights by their roles."""
    alpha: float | None = None
    """The strength before division by the rank; None if the file has no key for it."""
    scalar: float = 1.0
    """A trained factor of the change."""

    @property
    def method(self) -> type[Change]:
        """The method, which a checked file has."""
        method = method_of(self.tensors)
        assert method is not None, self.name
        return method

    @property
    def title(self) -> str:
        """The method in words, such as `a DoRA`."""
        return title(self.method, self.tensors)


@dataclass(frozen=True)
class LoraFile:
    """A file that holds changes of layers and nothing else."""

    path: Path
    modules: Mapping[str, Module]
    """The changes by layer name, as the file spells it."""
    odd_keys: tuple[str, ...]
    """Keys that do not belong to a method."""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """PEFT's configuration: fields, or `<component>.<field>`."""
    lacks_config: bool = False
    """Whether PEFT wrote the file, but the configuration with its alphas is missing."""
    dim: int | None = None
    """The rank in kohya's metadata."""
    empty: tuple[str, ...] = ()
    """The layers with weights of rank 0, which change nothing."""

    @property
    def trained_on(self) -> str:
        """The base model that the file was trained on; empty if the configuration has no name."""
        name = self.config.get("base_model_name_or_path")
        return name if isinstance(name, str) else ""

    @property
    def title(self) -> str:
        """The methods in words, such as `a LoRA` or `a LoHa and a LoKr`."""
        titles = dict.fromkeys(module.title for module in self.modules.values())
        return " and ".join([*titles][:2]) or "a LoRA"


def read_lora(path: Path, config: Path | None = None) -> LoraFile:
    """Reads a LoRA file in any dialect and checks everything that does not depend on a model.

    Args:
        path: A safetensors file.
        config: PEFT's configuration; by default `adapter_config.json` beside the file.

    Raises:
        WeightsError: The file is unreadable, is not a LoRA, or is damaged.
    """
    with TensorFile(path) as file:
        tensors = {key: file.tensor(key) for key in file.names()}
        metadata = file.metadata()
    modules, odd = _modules(path, tensors)
    check_method(path, {key: tuple(tensor.shape) for key, tensor in tensors.items()}, [*modules])
    beside = config or path.with_name(CONFIG)
    is_peft = any(PEFT in key for key in tensors) or is_of_language([*modules])
    origin, fields = _config(path, beside, metadata, is_peft=is_peft)
    check_fields(origin, fields)
    empty: list[str] = []
    for module in [*modules.values()]:
        tensors, alpha = in_our_form(path, module.name, module.tensors, fields)
        module.tensors, module.alpha = tensors, module.alpha if alpha is None else alpha
        if {*tensors} == {"down", "up"} and alpha is not None and not len(tensors["down"]):
            empty.append(modules.pop(module.name).name)
            continue
        _check(path, module)
    _tell_sides(modules, fields)
    dim = metadata.get(RANK, "")
    return LoraFile(
        path,
        modules,
        tuple(odd),
        fields,
        is_peft and not fields,
        int(dim) if dim.isdecimal() else None,
        tuple(empty),
    )


def _modules(path: Path, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Module], list[str]]:
    """Returns the changes by layer, and the keys that belong to none."""
    modules: dict[str, Module] = {}
    keys: dict[str, dict[str, str]] = {}
    odd: list[str] = []
    for key, tensor in tensors.items():
        if (named := parse(key)) is None:
            odd.append(key)
            continue
        module = modules.setdefault(named.layer, Module(named.layer))
        roles = keys.setdefault(named.layer, {})
        if named.role in roles:
            raise WeightsError(
                f"{path.name} holds two weights `{named.role}` for {named.layer!r}.",
                hint="Give a file of one adapter: PEFT keeps each in a folder.",
            )
        roles[named.role] = key
        if named.role == "alpha":
            module.alpha = _number(path, key, tensor)
        elif named.role == "scalar":
            module.scalar = _number(path, key, tensor)
        else:
            module.tensors[named.role] = tensor
    for name, module in [*modules.items()]:
        method = method_of(module.tensors)
        if method is None:  # an alpha without weights changes nothing
            del modules[name]
            odd += keys[name].values()
        elif "weight" in module.tensors and "on_input" not in module.tensors:
            del module.tensors["weight"]
            odd.append(keys[name]["weight"])
    return modules, odd


def _number(path: Path, key: str, tensor: Tensor) -> float:
    if tensor.numel() != 1 or not torch.isfinite(tensor.float()).all():
        raise WeightsError(
            f"{path.name} is damaged: {key!r} is not a finite number.", hint="Fetch it again."
        )
    return float(tensor)


def _check(path: Path, module: Module) -> None:
    method, tensors = module.method, module.tensors
    if missing := missing_role(method, tensors):
        present = next(role for role in tensors if role in method.marks | method.may)
        raise WeightsError(
            f"{path.name} is incomplete: {module.name!r} has a weight `{present}`, no `{missing}`.",
            hint="Fetch it again.",
        )
    if odd := odd_roles(method, tensors):
        raise WeightsError(
            f"{path.name} changes {module.name!r} by two methods: beside {method.title} it has a "
            f"weight `{odd[0]}`.",
            hint="Give a file of one method for each layer.",
        )
    if fault := method.fault(tensors):
        raise WeightsError(
            f"{path.name} is damaged: the weights of {module.name!r} {fault}.",
            hint="Fetch it again.",
        )
    weights = [tensor for role, tensor in tensors.items() if role not in ("on_input", TOKEN_IDS)]
    if not all(tensor.is_floating_point() and tensor.numel() for tensor in weights):
        shown = " and ".join(
            f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
            for tensor in weights[:4]
        )
        raise WeightsError(
            f"{path.name} is damaged: the weights of {module.name!r} are {shown}.",
            hint="Give a file of floating-point weights.",
        )
    # torch has no isfinite for 8-bit floats.
    if not all(torch.isfinite(w if w.itemsize > 1 else w.float()).all() for w in weights):
        raise WeightsError(
            f"{path.name} is damaged: the weights of {module.name!r} are not all finite numbers.",
            hint="Fetch it again, or ask its author: training diverged.",
        )


def _tell_sides(modules: Mapping[str, Module], config: Mapping[str, Any]) -> None:
    """Shapes the factors of PEFT's IA3 for convolutions, (1, features, 1, 1), by their side.

    Those of linear layers are (out, 1) or (1, in). Of a convolution, only the configuration tells
    whether the factors are for inputs.
    """
    listed: Any = config.get("feedforward_modules") or ()
    endings = [listed] if isinstance(listed, str) else [str(ending) for ending in listed]
    for name, module in modules.items():
        factors = module.tensors.get("ia3_l")
        if factors is not None and factors.ndim == 4:
            is_input = any(f".{name}".endswith(f".{ending}") for ending in endings)
            module.tensors["ia3_l"] = factors.view(*((1, -1) if is_input else (-1, 1)))


def _config(
    path: Path, beside: Path, metadata: Mapping[str, str], *, is_peft: bool
) -> tuple[str, Mapping[str, Any]]:
    """Returns where PEFT's configuration is, and its fields; none if the file has none."""
    origin, text = f"the metadata {METADATA!r} of {path.name}", metadata.get(METADATA)
    try:
        if text is None and is_peft and beside.is_file():
            origin, text = str(beside), beside.read_text("utf-8")
        if text is None:
            return origin, {}
        config = dict(cast("Mapping[str, Any]", json.loads(text)))
    except (ValueError, TypeError) as error:
        raise WeightsError(
            f"{origin} is not a JSON object: {error}.", hint="Fetch the file again."
        ) from error
    return origin, config
