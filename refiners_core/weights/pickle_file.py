"""Converts a published pickle of tensors to safetensors."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, cast

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from refiners_core.errors import WeightsError
from refiners_core.weights.tensor_file import write

_FLOOR: Final = (2, 10)
"""The first version of torch without known ways around `weights_only`."""

_CALLED: Final = re.compile(r"\bGLOBAL ([A-Za-z_][\w.]*)")
"""The part of an error of torch that names the function a pickle wanted to call."""
_TRAINERS: Final = ("pytorch_lightning.", "lightning.")
"""The packages whose objects early checkpoints contain beside their tensors."""
_DICTIONARY: Final = "torch.nn.modules.container.ParameterDict"
"""The module in which early textual inversions keep their tensors."""


class PickleError(WeightsError):
    """A pickle was not opened, or contains something other than tensors."""

    code = "pickle"
    exit_code = 4


def rewrite_pickle(source: str | Path, target: str | Path, *, sha256: str) -> None:
    """Reads the tensors of a pickle with `weights_only` and writes them as safetensors.

    Nested dictionaries become dotted names: `{"ip_adapter": {"1.to_k_ip.weight": ...}}` becomes
    `ip_adapter.1.to_k_ip.weight`. Plain values beside the tensors go into the header. Only the
    `state_dict` of a training checkpoint is kept.

    Args:
        source: The pickle.
        target: The path of the new safetensors file.
        sha256: The hash of the pickle as its publisher states it, 64 hexadecimal digits; never
            computed from the file at hand.

    Raises:
        PickleError: torch is older than 2.10, the hash differs, or the pickle contains something
            other than tensors.
        WeightsError: The target cannot be written.
    """
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _FLOOR:
        raise PickleError(
            f"torch {torch.__version__} does not open pickles safely.",
            hint="Run pip install -U 'torch>=2.10'.",
        )
    try:
        with Path(source).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != sha256.lower():
                raise PickleError(
                    f"{source} has the sha256 {digest}, not {sha256}, so it was not opened.",
                    hint="Download it again from the page that publishes that hash.",
                )
            content = _content(file, source)
    except OSError as error:
        raise PickleError(
            f"{source} cannot be read: {error.strerror or error}.", hint="Pass the path of a file."
        ) from error
    leaves = dict(_leaves(content))
    # clones, since safetensors refuses views of one storage
    tensors = {name: leaf.clone() for name, leaf in leaves.items() if isinstance(leaf, Tensor)}
    if not tensors:
        raise PickleError(
            f"{source} contains no tensors.", hint="Ask its publisher for another file."
        )
    plain = {
        name: json.dumps(leaf)
        for name, leaf in leaves.items()
        if isinstance(leaf, str | int | float | bool)
    }
    write(tensors, target, plain)


def _content(file: IO[bytes], source: str | Path) -> Any:
    """Returns the content of a pickle, read with `weights_only`.

    Raises:
        PickleError: The pickle contains something other than tensors and plain values.
    """
    try:
        file.seek(0)
        with safe_globals(_stand_ins(file)):
            content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises all kinds of errors
        raise PickleError(
            f"{source} contains something other than tensors, so it was not opened: "
            f"{_reason(error)}.",
            hint="Look for the file as safetensors, or ask its publisher for one.",
        ) from error
    whole = cast("Mapping[Any, Any]", content) if isinstance(content, Mapping) else {}
    weights = whole.get("state_dict")
    return weights if isinstance(weights, Mapping) else content


def _reason(error: Exception) -> str:
    """Returns why a pickle was refused, without the advice of torch on how to open it anyway."""
    text = str(error)
    if name := _CALLED.search(text):
        return f"it would call {name[1]}"
    sentence = "" if "weights_only" in text else text.partition(". ")[0].partition("\n")[0]
    printable = "".join(letter if letter.isprintable() else "?" for letter in sentence.strip())
    return f"{type(error).__name__}: {printable.rstrip('.')}" if printable else type(error).__name__


def _stand_ins(file: IO[bytes]) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Returns empty classes in place of the classes of objects around the tensors, of which no code
    runs."""
    if not torch.serialization._is_zipfile(file):  # pyright: ignore  (the old format names no classes)
        return []
    names = get_unsafe_globals_in_checkpoint(file)  # pyright: ignore  (typed for paths alone)
    file.seek(0)
    return [
        (type(name.rpartition(".")[2], (), {}), name)
        for name in names
        if name.startswith((*_TRAINERS, _DICTIONARY))
    ]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if type(value).__name__ == _DICTIONARY.rpartition(".")[2]:
        value = vars(value).get("_parameters")
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[Any, Any]", value).items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
