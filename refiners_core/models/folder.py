"""A model as diffusers publishes it: a folder with a folder for each part."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from refiners_core.errors import ModelError
from refiners_core.models.weight_files import STEMS, choose_weights
from refiners_core.weights import PICKLES, KeyMap, load, rewriting_hint

_CONFIGS: Final = {"scheduler": "scheduler_config.json"}
"""The names of configurations that are not `config.json`."""


class PublishedFolder:
    """Finds the configurations and weights of the parts of a model.

    Args:
        path: The folder.

    Raises:
        ModelError: The path is not a folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path: Final = Path(path)
        if not self.path.is_dir():
            raise ModelError(
                f"{self.path} is not a folder.",
                hint="Give the folder that has unet/, vae/ and so on.",
            )

    def part(self, name: str) -> Path:
        """Returns the folder of a part.

        Raises:
            ModelError: The folder of the part is missing.
        """
        path = self.path / name
        if not path.is_dir():
            parts = ", ".join(sorted(entry.name for entry in self.path.iterdir() if entry.is_dir()))
            raise ModelError(
                f"{self.path} has no {name}/; it has {parts or 'no folders'}.",
                hint="Give the folder of a whole model, as diffusers publishes it.",
            )
        return path

    @property
    def parts(self) -> set[str]:
        """The names of the folders of parts."""
        return {entry.name for entry in self.path.iterdir() if entry.is_dir()}

    def config(self, name: str) -> Mapping[str, Any]:
        """Returns the configuration of a part.

        Raises:
            ModelError: The configuration is missing, or is not JSON.
        """
        return json_table(self.part(name) / _CONFIGS.get(name, "config.json"))

    def index(self) -> Mapping[str, Any]:
        """Returns the content of `model_index.json`; an empty table if the file is missing.

        Raises:
            ModelError: The file is not JSON.
        """
        path = self.path / "model_index.json"
        return json_table(path) if path.is_file() else {}

    def weights(self, name: str, dtype: torch.dtype | None = None) -> Path:
        """Returns the safetensors file of a part, or the index of a sharded one.

        Args:
            name: The part.
            dtype: The preferred precision, where files in several are present.

        Raises:
            ModelError: The part has no weights, or only a pickle.
        """
        folder = self.part(name)
        names = sorted(entry.name for entry in folder.iterdir())
        kind = None if dtype is None else str(dtype).removeprefix("torch.")
        if chosen := choose_weights([item for item in names if (folder / item).is_file()], kind):
            return folder / chosen[0]
        if pickles := [item for item in names if item.endswith(PICKLES)]:
            raise ModelError(
                f"{folder} has its weights only as a pickle, {pickles[0]}, which was not opened.",
                hint=rewriting_hint(folder / pickles[0], folder / f"{STEMS[0]}.safetensors"),
            )
        raise ModelError(
            f"{folder} has no weights that can be read; it has {', '.join(names) or 'nothing'}.",
            hint="Weights are read from model.safetensors or diffusion_pytorch_model.safetensors.",
        )


def json_table(path: Path) -> Mapping[str, Any]:
    """Returns the content of a JSON file.

    Raises:
        ModelError: The file is missing, or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}.", hint="Fetch the model again."
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object.", hint="Fetch the model again.")
    return content


def load_parts(
    parts: Mapping[str, tuple[nn.Module, KeyMap]],
    files: Mapping[str, str | Path],
    *,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> None:
    """Loads each part of a model from its file.

    Args:
        parts: Each part and its layout, by the published name of the part.
        files: A file by the same name.
        dtype: The dtype to cast the weights to; as published if None.
        device: The device of the weights.

    Raises:
        ModelError: A part has no file; nothing was loaded.
        WeightsError: A file is unreadable, or its tensors are not those of the part.
    """
    if missing := [name for name in parts if name not in files]:
        raise ModelError(
            f"the files lack weights for {', '.join(missing)}.",
            hint=f"Give files for {', '.join(parts)}.",
        )
    for name, (part, keys) in parts.items():
        load(part, files[name], keys, dtype=dtype, device=device)
