"""Memory-mapped safetensors files."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from refiners_core.errors import WeightsError

PICKLES: Final = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
"""The suffixes of published pickles."""


def rewriting_hint(source: str | Path, target: str | Path) -> str:
    """Returns the hint for a user who has only a pickle."""
    return (
        "Use the .safetensors file that is published beside it. If none is, and its publisher "
        "states its sha256, convert it once: "
        f"refiners_core.weights.rewrite_pickle({str(source)!r}, {str(target)!r}, sha256=...)."
    )


class TensorFile:
    """An open safetensors file; its tensors are memory-mapped on access.

    Args:
        path: The file.
        device: The device for its tensors.

    Raises:
        WeightsError: The file is missing, truncated or of another format, such as a pickle.
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu") -> None:
        self.path = Path(path)
        try:
            self._handle: Any = safe_open(self.path, framework="pt", device=str(device))
            self._handle.__enter__()
        except SafetensorError as error:
            if self.path.suffix in PICKLES:
                raise WeightsError(
                    f"{self.path} is a pickle, which could run any code, so it was not opened.",
                    hint=rewriting_hint(self.path, self.path.with_suffix(".safetensors")),
                ) from error
            raise WeightsError(
                f"{self.path} is truncated or not a safetensors file ({error}).",
                hint="Download it again, or pass the .safetensors file published beside it.",
            ) from error
        except OSError as error:
            raise WeightsError(
                f"{self.path} cannot be read: {error.strerror or error}.",
                hint="Pass the path of a .safetensors file.",
            ) from error

    def names(self) -> list[str]:
        """Returns the names of the tensors."""
        return list(self._handle.keys())

    def metadata(self) -> dict[str, str]:
        """Returns the strings in the header beside the tensors."""
        return dict(self._handle.metadata() or {})

    def shape(self, key: str) -> tuple[int, ...]:
        """Returns the shape of a tensor, read from the header."""
        return tuple(self._handle.get_slice(key).get_shape())

    def tensor(self, key: str) -> Tensor:
        """Returns a tensor by name."""
        return self._handle.get_tensor(key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.__exit__(*error)


def write(
    tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors as a safetensors file, atomically; equal contents give equal bytes.

    Args:
        tensors: Tensors by published name.
        path: The file; an existing one is replaced once the new one is complete.
        metadata: Strings for the header.

    Raises:
        WeightsError: A tensor is on the meta device, or the file cannot be written.
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
        # Loaders of other libraries read the framework from the header.
        save_file(ready, part, metadata={"format": "pt", **(metadata or {})})
        _sort_metadata(part)
        part.chmod(mode)
        part.replace(target)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink()
        raise WeightsError(
            f"{target} cannot be written: {error}.", hint="Pass a path in an existing folder."
        ) from error


def _sort_metadata(path: Path) -> None:
    """Sorts the metadata in the header, which safetensors writes in a random order."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= length:  # the same characters, though escapes may be shorter
            file.seek(8)
            file.write(text.ljust(length))
