"""Files of tensors: safetensors, memory-mapped."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from refiners_core.errors import WeightsError


class TensorFile:
    """An open safetensors file, whose tensors are memory-mapped when they are asked for.

    Args:
        path: The file.
        device: Where its tensors are put.

    Raises:
        WeightsError: It is missing, truncated or of another format.
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu") -> None:
        self.path = Path(path)
        try:
            self._handle: Any = safe_open(self.path, framework="pt", device=str(device))
            self._handle.__enter__()
        except SafetensorError as error:
            raise WeightsError(
                f"{self.path} is truncated or no safetensors file ({error}).",
                hint="Fetch it again, or give the .safetensors file that is published beside it.",
            ) from error
        except OSError as error:
            raise WeightsError(
                f"{self.path} cannot be read: {error.strerror or error}.",
                hint="Give the path of a .safetensors file.",
            ) from error

    def names(self) -> list[str]:
        """Returns the names of its tensors."""
        return list(self._handle.keys())

    def metadata(self) -> dict[str, str]:
        """Returns the texts that its header has beside the tensors."""
        return dict(self._handle.metadata() or {})

    def shape(self, key: str) -> tuple[int, ...]:
        """Returns the shape of a tensor; reads only the header."""
        return tuple(self._handle.get_slice(key).get_shape())

    def tensor(self, key: str) -> Tensor:
        """Returns a tensor."""
        return self._handle.get_tensor(key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.__exit__(*error)


def write(
    tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors as a safetensors file, all of it or nothing.

    Args:
        tensors: Tensors by their published names.
        path: The file; one that is there is replaced once the new one is complete.
        metadata: Texts to keep in its header.

    Raises:
        WeightsError: A tensor has no values, or the file cannot be written.
    """
    ready: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, tensor in tensors.items():
        if tensor.is_meta:
            raise WeightsError(
                f"{key!r} has no values yet, so nothing was written to {path}.",
                hint="Load weights into the tree first.",
            )
        value = tensor.detach().cpu().contiguous()
        ready[key] = value.clone() if value.data_ptr() in seen else value  # tied weights
        seen.add(value.data_ptr())
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.touch()
        mode = part.stat().st_mode  # save_file makes files that only their owner can read
        # Others' loaders ask the header for the framework.
        save_file(ready, part, metadata={"format": "pt", **(metadata or {})})
        part.chmod(mode)
        part.replace(target)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink()
        raise WeightsError(
            f"{target} cannot be written: {error}.", hint="Give a path in a folder that is there."
        ) from error
