"""Opens a published pickle of tensors, once, and writes it anew as safetensors."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.weights.tensor_file import write

_FLOOR: Final = (2, 10)
"""The first torch whose `weights_only` is not known to be bypassed."""


class PickleError(WeightsError):
    """A pickle is not opened, or holds something else than tensors."""

    code = "pickle"
    exit_code = 4


def rewrite_pickle(source: str | Path, target: str | Path) -> None:
    """Reads the tensors of a pickle with `weights_only` and writes them as safetensors.

    Nested dictionaries become dotted names, `{"ip_adapter": {"1.to_k_ip.weight": ...}}` for
    instance `ip_adapter.1.to_k_ip.weight`; plain values beside the tensors go into the header.

    Args:
        source: The pickle, whose hash the caller has verified.
        target: Where the safetensors file goes.

    Raises:
        PickleError: torch is older than 2.10, or the pickle holds something else than tensors.
        WeightsError: The target cannot be written.
    """
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _FLOOR:
        raise PickleError(
            f"torch {torch.__version__} does not open pickles safely.",
            hint="Run pip install -U 'torch>=2.10'.",
        )
    try:
        content: Any = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the bytes make it stumble over
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise PickleError(
            f"{source} holds something else than tensors, so it was not opened: {said}",
            hint="Look for the file in safetensors, or ask its publisher for one.",
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


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[Any, Any]", value).items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
