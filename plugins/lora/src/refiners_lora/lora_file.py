"""The contents of a LoRA file: two factors and an alpha for each layer that it names."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.weights import PICKLES, TensorFile, rewriting_hint
from refiners_lora.peft_method import check_method

METADATA: Final = "lora_adapter_metadata"
"""The metadata key of a safetensors file under which diffusers stores PEFT's configurations, as
JSON."""
CONFIG: Final = "adapter_config.json"
"""The file in which PEFT stores its configuration, beside the weights."""
PEFT: Final = "base_model.model."
"""The prefix of layer names in files that PEFT writes."""


@dataclass
class Module:
    """The low-rank update of one layer."""

    name: str
    """The layer's name, as the file spells it."""
    down: Tensor | None = None
    """(rank, in), or (rank, in, height, width) for a convolution."""
    up: Tensor | None = None
    """(out, rank), or (out, rank, 1, 1)."""
    alpha: float | None = None
    """The strength before division by the rank; None if the file has no key for it."""

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """The weights `down` and `up`, which a checked file has."""
        assert self.down is not None, self.name
        assert self.up is not None, self.name
        return self.down, self.up


@dataclass(frozen=True)
class LoraFile:
    """A file that holds a LoRA and nothing else."""

    path: Path
    modules: Mapping[str, Module]
    """The updates by layer name, as the file spells it."""
    odd_keys: tuple[str, ...]
    """Keys that do not belong to a LoRA."""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """PEFT's configuration: fields, or `<component>.<field>`."""
    lacks_config: bool = False
    """Whether PEFT wrote the file, but the configuration with its alphas is missing."""


def read_lora(path: Path, config: Path | None = None) -> LoraFile:
    """Reads a LoRA file in any dialect and checks everything that does not depend on a model.

    Args:
        path: A safetensors file.
        config: PEFT's configuration; by default `adapter_config.json` beside the file.

    Raises:
        WeightsError: The file is unreadable, is not a LoRA, or is damaged.
    """
    if path.suffix in PICKLES:
        raise WeightsError(
            f"{path} is a pickle, which could run any code, so it was not opened.",
            hint=rewriting_hint(path, path.with_suffix(".safetensors")),
        )
    with TensorFile(path) as file:
        tensors = {key: file.tensor(key) for key in file.names()}
        metadata = file.metadata()
    modules: dict[str, Module] = {}
    odd: list[str] = []
    for key, tensor in tensors.items():
        if (match := _KEY.fullmatch(key)) is None:
            odd.append(key)
            continue
        name = match["name"].replace(PEFT, "", 1)
        module = modules.setdefault(name, Module(name))
        role = _ROLES.get(match["half"], "alpha")
        if getattr(module, role) is not None:
            raise WeightsError(
                f"{path.name} holds two weights `{role}` for {name!r}.",
                hint="Give a file of one adapter: PEFT keeps each in a folder.",
            )
        setattr(module, role, _alpha(path, key, tensor) if role == "alpha" else tensor)
    # An alpha without factors changes nothing.
    odd += [
        f"{module.name}.alpha"
        for module in modules.values()
        if module.down is None and module.up is None
    ]
    modules = {
        name: module
        for name, module in modules.items()
        if module.down is not None or module.up is not None
    }
    check_method(path, {key: tuple(tensor.shape) for key, tensor in tensors.items()}, [*modules])
    for module in modules.values():
        _check(path, module)
    beside = config or path.with_name(CONFIG)
    is_peft = any(PEFT in key for key in tensors)
    fields, lacks_config = _config(path, beside, metadata, is_peft=is_peft)
    return LoraFile(path, modules, tuple(odd), fields, lacks_config)


def _alpha(path: Path, key: str, tensor: Tensor) -> float:
    if tensor.numel() != 1 or not torch.isfinite(tensor.float()).all():
        raise WeightsError(
            f"{path.name} is damaged: {key!r} is not a finite number.", hint="Fetch it again."
        )
    return float(tensor)


def _check(path: Path, module: Module) -> None:
    if module.down is None or module.up is None:
        present, missing = ("down", "up") if module.up is None else ("up", "down")
        raise WeightsError(
            f"{path.name} is incomplete: {module.name!r} has a weight `{present}`, no `{missing}`.",
            hint="Fetch it again.",
        )
    down, up = module.factors
    if down.ndim not in (2, 4) or up.ndim not in (2, 4) or down.shape[0] != up.shape[1]:
        raise WeightsError(
            f"{path.name} is damaged: the weights of {module.name!r} do not share a rank: down is "
            f"{list(down.shape)}, up is {list(up.shape)}.",
            hint="Fetch it again.",
        )
    if not (down.is_floating_point() and up.is_floating_point() and down.numel() and up.numel()):
        raise WeightsError(
            f"{path.name} is damaged: the weights of {module.name!r} are {list(down.shape)} "
            f"{str(down.dtype).removeprefix('torch.')} and {list(up.shape)} "
            f"{str(up.dtype).removeprefix('torch.')}.",
            hint="Give a file of floating-point weights.",
        )
    # torch has no isfinite for 8-bit floats.
    if not all(torch.isfinite(w if w.itemsize > 1 else w.float()).all() for w in (down, up)):
        raise WeightsError(
            f"{path.name} is damaged: the weights of {module.name!r} are not all finite numbers.",
            hint="Fetch it again, or ask its author: training diverged.",
        )


def _config(
    path: Path, beside: Path, metadata: Mapping[str, str], *, is_peft: bool
) -> tuple[Mapping[str, Any], bool]:
    """Returns PEFT's configuration, and whether it is missing though PEFT wrote the file."""
    origin, text = f"the metadata {METADATA!r} of {path.name}", metadata.get(METADATA)
    try:
        if text is None and is_peft and beside.is_file():
            origin, text = str(beside), beside.read_text("utf-8")
        if text is None:
            return {}, is_peft
        config = dict(cast("Mapping[str, Any]", json.loads(text)))
    except (ValueError, TypeError) as error:
        raise WeightsError(
            f"{origin} is not a JSON object: {error}.", hint="Fetch the file again."
        ) from error
    return config, False


_KEY: Final = re.compile(
    r"(?P<name>.+?)"
    r"(?:(?:\.lora_|\.lora\.|\.lora_linear_layer\.|(?<=_lora)\.)(?P<half>down|up|A|B)(?:\.\w+)?\.weight"
    r"|(?:\.lora)?\.alpha)"
)
_ROLES: Final = {"down": "down", "A": "down", "up": "up", "B": "up"}
