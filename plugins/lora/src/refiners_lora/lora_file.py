"""What a LoRA file holds: for each layer that it names, two thin weights and a strength."""

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
from refiners_lora.peft_method import check_kind

METADATA: Final = "lora_adapter_metadata"
"""The key of a safetensors header under which diffusers keeps PEFT's configurations, as JSON."""
CONFIG: Final = "adapter_config.json"
"""The file in which PEFT keeps its configuration, beside the weights."""
PEFT: Final = "base_model.model."
"""What PEFT's own files put before the names of layers."""


@dataclass
class Module:
    """What a file holds for one layer."""

    name: str
    """The layer's name, as the file spells it."""
    down: Tensor | None = None
    """(rank, in), or (rank, in, height, width) for a convolution."""
    up: Tensor | None = None
    """(out, rank), or (out, rank, 1, 1)."""
    alpha: float | None = None
    """The strength before division by the rank; None where the file has no key for it."""

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """Both weights, of a file that was checked."""
        assert self.down is not None, self.name
        assert self.up is not None, self.name
        return self.down, self.up


@dataclass(frozen=True)
class LoraFile:
    """A file that holds a LoRA and nothing else."""

    path: Path
    modules: Mapping[str, Module]
    """By their names."""
    odd_keys: tuple[str, ...]
    """Keys that are not of a LoRA."""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What PEFT was configured with: fields, or `<component>.<field>`."""
    lacks_config: bool = False
    """Whether the file is PEFT's own, whose strengths are in a file that is not there."""


def read_lora(path: Path) -> LoraFile:
    """Reads a LoRA file of any dialect and checks all that can be checked without a model.

    Args:
        path: A safetensors file.

    Raises:
        WeightsError: The file is unreadable, of another kind, or damaged.
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
    # A strength alone changes nothing.
    odd += [f"{it.name}.alpha" for it in modules.values() if it.down is None and it.up is None]
    modules = {n: it for n, it in modules.items() if it.down is not None or it.up is not None}
    check_kind(path, {key: tuple(tensor.shape) for key, tensor in tensors.items()}, [*modules])
    for module in modules.values():
        _check(path, module)
    config, lacks_config = _config(path, metadata, is_peft=any(PEFT in key for key in tensors))
    return LoraFile(path, modules, tuple(odd), config, lacks_config)


def _alpha(path: Path, key: str, tensor: Tensor) -> float:
    if tensor.numel() != 1 or not torch.isfinite(tensor.float()).all():
        raise WeightsError(
            f"{path.name} is damaged: {key!r} is not a finite number.", hint="Fetch it again."
        )
    return float(tensor)


def _check(path: Path, module: Module) -> None:
    if module.down is None or module.up is None:
        there, missing = ("down", "up") if module.up is None else ("up", "down")
        raise WeightsError(
            f"{path.name} is incomplete: {module.name!r} has a weight `{there}`, no `{missing}`.",
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
    if not all(torch.isfinite(it if it.itemsize > 1 else it.float()).all() for it in (down, up)):
        raise WeightsError(
            f"{path.name} is damaged: the weights of {module.name!r} are not all finite numbers.",
            hint="Fetch it again, or ask its author: training diverged.",
        )


def _config(
    path: Path, metadata: Mapping[str, str], *, is_peft: bool
) -> tuple[Mapping[str, Any], bool]:
    """Returns PEFT's configuration and whether it should be there but is not."""
    beside = path.with_name(CONFIG)
    where, text = f"the metadata {METADATA!r} of {path.name}", metadata.get(METADATA)
    try:
        if text is None and is_peft and beside.is_file():
            where, text = str(beside), beside.read_text("utf-8")
        if text is None:
            return {}, is_peft
        config = dict(cast("Mapping[str, Any]", json.loads(text)))
    except (ValueError, TypeError) as error:
        raise WeightsError(
            f"{where} is not a JSON object: {error}.", hint="Fetch the file again."
        ) from error
    return config, False


_KEY: Final = re.compile(
    r"(?P<name>.+?)"
    r"(?:(?:\.lora_|\.lora\.|\.lora_linear_layer\.|(?<=_lora)\.)(?P<half>down|up|A|B)(?:\.\w+)?\.weight"
    r"|(?:\.lora)?\.alpha)"
)
_ROLES: Final = {"down": "down", "A": "down", "up": "up", "B": "up"}
