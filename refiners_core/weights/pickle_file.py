"""Opens a published pickle of tensors, once, and writes it anew as safetensors."""

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
"""The first torch whose `weights_only` is not known to be bypassed."""


PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth")
"""How the names of published pickles end."""
_CALLED: Final = re.compile(r"\bGLOBAL ([A-Za-z_][\w.]*)")
"""How torch names what a pickle would have called."""
_TRAINERS: Final = ("pytorch_lightning.", "lightning.")
"""Whose objects early checkpoints hold beside their tensors."""


class PickleError(WeightsError):
    """A pickle is not opened, or holds something else than tensors."""

    code = "pickle"
    exit_code = 4


def rewriting_hint(source: str | Path, target: str | Path) -> str:
    """Returns what somebody can type who has no other file than a pickle."""
    return (
        "Take the .safetensors file that is published beside it. If there is none, and you know "
        "its sha256 from its publisher, write it anew, once: "
        f"refiners_core.weights.rewrite_pickle({str(source)!r}, {str(target)!r}, sha256=...)."
    )


def rewrite_pickle(source: str | Path, target: str | Path, *, sha256: str) -> None:
    """Reads the tensors of a pickle with `weights_only` and writes them as safetensors.

    Nested dictionaries become dotted names, `{"ip_adapter": {"1.to_k_ip.weight": ...}}` for
    instance `ip_adapter.1.to_k_ip.weight`; plain values beside the tensors go into the header. Of a
    whole training state only the `state_dict` is kept.

    Args:
        source: The pickle.
        target: Where the safetensors file goes.
        sha256: What its publisher says that its bytes are, 64 hexadecimal digits; never taken from
            the file itself.

    Raises:
        PickleError: torch is older than 2.10, the bytes are others, or the pickle holds something
            else than tensors.
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
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sha256.lower():
                raise PickleError(
                    f"{source} has the sha256 {found}, not {sha256}, so it was not opened.",
                    hint="Fetch it again from where that hash is published.",
                )
            content = _content(file, source)
    except OSError as error:
        raise PickleError(
            f"{source} cannot be read: {error.strerror or error}.", hint="Give the path of a file."
        ) from error
    leaves = dict(_leaves(content))
    # clones, for safetensors refuses views of one storage
    tensors = {name: leaf.clone() for name, leaf in leaves.items() if isinstance(leaf, Tensor)}
    if not tensors:
        raise PickleError(f"{source} holds no tensors.", hint="Ask its publisher for another file.")
    plain = {
        name: json.dumps(leaf)
        for name, leaf in leaves.items()
        if isinstance(leaf, str | int | float | bool)
    }
    write(tensors, target, plain)


def _content(file: IO[bytes], source: str | Path) -> Any:
    """Returns what a pickle holds that has been looked at by nothing but its hash."""
    try:
        file.seek(0)
        with safe_globals(_stand_ins(file)):
            content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the bytes make it stumble over
        raise PickleError(
            f"{source} holds something else than tensors, so it was not opened: {_reason(error)}.",
            hint="Look for the file in safetensors, or ask its publisher for one.",
        ) from error
    whole = cast("Mapping[Any, Any]", content) if isinstance(content, Mapping) else {}
    weights = whole.get("state_dict")
    return weights if isinstance(weights, Mapping) else content


def _reason(error: Exception) -> str:
    """Returns why a pickle was refused; torch's own words tell how to open it all the same."""
    text = str(error)
    if name := _CALLED.search(text):
        return f"it would call {name[1]}"
    sentence = "" if "weights_only" in text else text.partition(". ")[0].partition("\n")[0]
    printable = "".join(letter if letter.isprintable() else "?" for letter in sentence.strip())
    return f"{type(error).__name__}: {printable.rstrip('.')}" if printable else type(error).__name__


def _stand_ins(file: IO[bytes]) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Returns empty classes that stand for those of trainers, which are never imported."""
    if not torch.serialization._is_zipfile(file):  # pyright: ignore  (older ones name no classes)
        return []
    names = get_unsafe_globals_in_checkpoint(file)  # pyright: ignore  (typed for paths alone)
    file.seek(0)
    return [
        (type(name.rpartition(".")[2], (), {}), name)
        for name in names
        if name.startswith(_TRAINERS)
    ]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[Any, Any]", value).items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
