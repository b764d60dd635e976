"""The folders that AdapterHub writes: a configuration, and tensors by their places in the model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from torch import Tensor

from refiners_bottleneck.config import PLACES, BottleneckConfig
from refiners_core import Source
from refiners_core.errors import WeightsError
from refiners_core.weights import TensorFile, write

CONFIG: Final = "adapter_config.json"
FUSION_CONFIG: Final = "adapter_fusion_config.json"
VERSION: Final = "adapters.1.3.0"
"""The format that is written; without one, activations would have their old names."""
WRAPPERS: Final = re.compile(r"(?<![^.])(?:_orig_mod|module|_fsdp_wrapped_module)\.")
"""The segments that torch.compile and parallel training put into names."""
_BLOCK: Final = r"(?:.*\.)?(?:layers|h)\.(\d+)\."
_TENSOR: Final = re.compile(rf"{_BLOCK}(attention|output)_adapters\.adapters\.([^.]+)\.(.+)")
_FUSION: Final = re.compile(
    rf"{_BLOCK}(attention|output)_adapters\.adapter_fusion_layer\.[^.]+\.(\w+\.\w+)"
)
_FIELDS: Final = {"attention": "mh", "output": "output"}
_SHARED: Final = re.compile(r"(?:.*\.)?shared_parameters\.([^.]+)\.(.+)")
_OTHERS: Final = {
    "lora": "a LoRA or IA3",
    "mtl_lora": "an MTL-LoRA",
    "prefix_tuning": "a prefix",
    "prompt_tuning": "a prompt of trained tokens",
    "reft": "a ReFT",
}
"""The other methods of AdapterHub, by the architecture in their configurations."""


@dataclass(frozen=True)
class Folder:
    """The contents of a folder of AdapterHub, tensors unread.

    Args:
        path: The file with the tensors.
        about: The fields of its configuration file.
    """

    path: Path
    about: Mapping[str, Any]
    configs: tuple[BottleneckConfig, ...] = ()
    """The configuration, or several for different places."""
    keys: dict[tuple[int, str], dict[str, str]] = field(default_factory=dict[Any, Any])
    """For each layer and place, the full names of tensors by their names in the bottleneck."""
    shared: dict[str, str] = field(default_factory=dict[str, str])
    """The full names of the tensors that all layers share, by name."""

    @property
    def trained_on(self) -> str:
        """The model that the adapter was trained on, for messages."""
        family, name = self.about.get("model_type"), self.about.get("model_name")
        return f"{family} ({name})" if name else str(family)


def read_about(path: Path, config: Path | None, usual: str = CONFIG) -> dict[str, Any]:
    """Reads the configuration beside a file of AdapterHub.

    Args:
        path: The file with the tensors.
        config: The file with the configuration; by default the one in the same folder.
        usual: Its usual name.

    Raises:
        WeightsError: The configuration is missing or is not AdapterHub's.
    """
    beside = path.with_name(usual) if config is None else config
    try:
        about: Any = json.loads(beside.read_bytes())
    except (OSError, ValueError) as error:
        problem = "cannot be read" if beside.exists() else "is not beside it"
        raise WeightsError(
            f"{path.name} is AdapterHub's, but its configuration {usual} {problem}.",
            hint=f"Give the folder that AdapterHub wrote, with {usual} in it.",
        ) from error
    if not isinstance(about, dict) or "config" not in about:
        raise WeightsError(
            f"{beside.name} beside {path.name} has no field 'config', so it is not AdapterHub's.",
            hint=f"Give the folder that AdapterHub wrote, with its {beside.name}.",
        )
    return cast("dict[str, Any]", about)


def read_folder(source: Source) -> Folder:
    """Reads which tensors and which configuration a folder has.

    Raises:
        WeightsError: The folder has an adapter of another method, a field that is not followed,
            several adapters, or no tensor of a bottleneck.
    """
    path = source.files["weights"]
    about = read_about(path, source.files.get("config"))
    folder = Folder(path, about, _configs(about, f"{CONFIG} of {path.parent.name}"))
    names: set[str] = set()
    others: list[str] = []
    with TensorFile(path) as file:
        keys = file.names()
    for key in keys:
        plain = WRAPPERS.sub("", key)
        if match := _TENSOR.fullmatch(plain):
            layer, place, name, suffix = match.groups()
            spot = int(layer), f"{_FIELDS[place]}_adapter"
            folder.keys.setdefault(spot, {})[suffix] = key
        elif match := _SHARED.fullmatch(plain):
            name, suffix = match.groups()
            folder.shared[suffix] = key
        else:
            others.append(key)
            continue
        names.add(name)
    if others or len(names) != 1:
        held = (
            f"the tensor {others[0]!r}"
            if others
            else f"{len(names)} adapters: {', '.join(sorted(names)) or 'none'}"
        )
        raise WeightsError(
            f"{path.name} holds {held}; one bottleneck adapter of a decoder is read.",
            hint="Give the folder of one adapter, as AdapterHub's save_adapter() writes it.",
        )
    return folder


def tensors_of(folder: Folder) -> dict[str, Tensor]:
    """Returns the tensors of a folder, memory-mapped."""
    with TensorFile(folder.path) as file:
        return {key: file.tensor(key) for key in file.names()}


def fusion_tensors(folder: Folder) -> dict[tuple[tuple[int, str], str], Tensor]:
    """Returns the tensors of a fusion by their places and names.

    Raises:
        WeightsError: The file has another tensor, or several fusions.
    """
    tensors: dict[tuple[tuple[int, str], str], Tensor] = {}
    for key, value in tensors_of(folder).items():
        match = _FUSION.fullmatch(WRAPPERS.sub("", key))
        spot = match and (int(match[1]), f"{_FIELDS[match[2]]}_adapter")
        if match is None or spot is None or (spot, match[3]) in tensors:
            raise WeightsError(
                f"{folder.path.name} holds the tensor {key!r}; one fusion of bottleneck adapters "
                "of a decoder is read.",
                hint="Give the folder of one fusion, as AdapterHub's save_adapter_fusion() writes "
                "it.",
            )
        tensors[spot, match[3]] = value
    return tensors


def write_folder(
    tensors: Mapping[str, Tensor],
    about: Mapping[str, Any],
    path: str | Path,
    names: tuple[str, str],
) -> None:
    """Writes tensors, and a configuration beside them.

    Args:
        tensors: The tensors by published name.
        about: The fields of the configuration.
        path: The folder, or the path of the file with the tensors.
        names: The usual names of both files.
    """
    target = Path(path)
    if target.suffix != ".safetensors":
        target.mkdir(parents=True, exist_ok=True)
        target /= names[0]
    write(tensors, target)
    text = json.dumps({**about, "version": VERSION}, indent=2, sort_keys=True)
    target.with_name(names[1]).write_text(f"{text}\n", encoding="utf-8")


def published_place(place: str) -> str:
    """Returns the published name of a place, a key of `PLACES`, in a block."""
    return f"{PLACES[place]}.adapters"


def _configs(about: Mapping[str, Any], origin: str) -> tuple[BottleneckConfig, ...]:
    config: Any = about["config"]
    if isinstance(config, str):
        return (BottleneckConfig.named(config),)
    if not isinstance(config, dict):
        raise WeightsError(
            f"{origin} has config = {config!r}, not a table.",
            hint="Give the adapter_config.json that was published with the weights.",
        )
    table = cast("dict[str, Any]", config)
    architecture = table.get("architecture")
    parts = table.get("configs") if architecture == "union" else [table]
    configs: list[BottleneckConfig] = []
    for part in cast("list[dict[str, Any]]", parts or [{}]):
        kind = part.get("architecture")
        if kind is not None:
            around = "a union with " if architecture == "union" else ""
            raise WeightsError(
                f"{origin} is {around}{_OTHERS.get(kind, f'the method {kind!r}')} of AdapterHub "
                f"(architecture = {kind!r}); bottlenecks alone are read.",
                hint="Give the folder of a bottleneck adapter, such as one of seq_bn.",
            )
        is_old = "version" not in about
        configs.append(BottleneckConfig.from_json(part, origin, is_old=is_old))
    return tuple(configs)
