"""A model as diffusers publishes it: a folder with a folder for each part."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from refiners_core.errors import ModelError
from refiners_core.weights import PICKLES, KeyMap, load, rewriting_hint

_STEMS: Final = ("diffusion_pytorch_model", "model")
_KINDS: Final[dict[torch.dtype | None, tuple[str, ...]]] = {
    None: ("", ".fp16", ".bf16"),
    torch.float16: (".fp16", "", ".bf16"),
    torch.bfloat16: (".bf16", "", ".fp16"),
}
"""How files in other precisions are marked, those first that suit a type."""


class PublishedFolder:
    """Finds configurations and weights of the parts of a model.

    Args:
        path: The folder.

    Raises:
        ModelError: There is no such folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path: Final = Path(path)
        if not self.path.is_dir():
            raise ModelError(
                f"{self.path} is no folder.", hint="Give the folder that has unet/, vae/ and so on."
            )

    def part(self, name: str) -> Path:
        """Returns the folder of a part.

        Raises:
            ModelError: It is not there.
        """
        path = self.path / name
        if not path.is_dir():
            parts = ", ".join(sorted(one.name for one in self.path.iterdir() if one.is_dir()))
            raise ModelError(
                f"{self.path} has no {name}/; it has {parts or 'no folders'}.",
                hint="Give the folder of a whole model, as diffusers publishes it.",
            )
        return path

    def config(self, name: str, file: str = "config.json") -> Mapping[str, Any]:
        """Returns the configuration of a part.

        Raises:
            ModelError: It is not there, or no JSON.
        """
        return _table(self.part(name) / file)

    def index(self) -> Mapping[str, Any]:
        """Returns what the whole is, and says of itself; nothing where it does not say.

        Raises:
            ModelError: `model_index.json` is no JSON.
        """
        path = self.path / "model_index.json"
        return _table(path) if path.is_file() else {}

    def weights(self, name: str, dtype: torch.dtype | None = None) -> Path:
        """Returns the safetensors file of a part, or the index of its files if there are several.

        Of files in different precisions it is that in half precision where it is asked for, and
        otherwise the whole one; where there is only one, it is that one.

        Raises:
            ModelError: There is none.
        """
        folder = self.part(name)
        for kind in _KINDS.get(dtype, _KINDS[None]):
            for stem in _STEMS:
                for file in (
                    f"{stem}{kind}.safetensors",
                    f"{stem}.safetensors.index{kind}.json",
                ):
                    if (folder / file).is_file():
                        return folder / file
        found = sorted(one.name for one in folder.iterdir())
        if pickles := [one for one in found if one.endswith(PICKLES)]:
            raise ModelError(
                f"{folder} has its weights only as a pickle, {pickles[0]}, which was not opened.",
                hint=rewriting_hint(folder / pickles[0], folder / f"{_STEMS[0]}.safetensors"),
            )
        raise ModelError(
            f"{folder} has no weights that can be read; it has {', '.join(found) or 'nothing'}.",
            hint="Weights are read from model.safetensors or diffusion_pytorch_model.safetensors.",
        )


def _table(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}.", hint="Fetch the model again."
        ) from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} is no table.", hint="Fetch the model again.")
    return found


def load_parts(
    parts: Mapping[str, tuple[nn.Module, KeyMap]],
    files: Mapping[str, str | Path],
    *,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> None:
    """Gives each part of a model the weights of its file.

    Args:
        parts: For each published name of a part, the part and its layout.
        files: A file for each name.
        dtype: What weights are cast to.
        device: Where they go.

    Raises:
        ModelError: A part has no file; nothing was loaded.
        WeightsError: A file is unreadable, or not that of the part.
    """
    if missing := [name for name in parts if name not in files]:
        raise ModelError(
            f"there are no weights for {', '.join(missing)}.",
            hint=f"Give files for {', '.join(parts)}.",
        )
    for name, (part, keys) in parts.items():
        load(part, files[name], keys, dtype=dtype, device=device)
