"""Loading a tree from published tensors, and saving it as such."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from refiners_core.bare import bare_walk, first_weight
from refiners_core.errors import WeightsError
from refiners_core.weights.key_map import AS_IS, KeyMap, Place, Transform
from refiners_core.weights.tensor_file import TensorFile, write

M = TypeVar("M", bound=nn.Module)
Shape = tuple[int, ...]


class MisfitError(WeightsError):
    """Published tensors are not those of the tree; it is as it was.

    Args:
        what: What was to be loaded into what.
        missing: Published keys that the tree needs.
        unexpected: Published keys that it has no place for.
        misshapen: Keys whose shape is another: the one that is there, the one that is needed.
    """

    def __init__(
        self,
        what: str,
        missing: tuple[str, ...],
        unexpected: tuple[str, ...],
        misshapen: Mapping[str, tuple[Shape, Shape]],
    ) -> None:
        self.missing = missing
        self.unexpected = unexpected
        self.misshapen = dict(misshapen)
        near = {key: get_close_matches(key, missing, 1) for key in unexpected[:_SHOWN]}
        groups = {
            "missing": list(missing),
            "not expected": [
                f"{key} (near {near[key][0]})" if near.get(key) else key for key in unexpected
            ],
            "of another shape": [
                f"{key} is {list(found)}, wanted {list(wanted)}"
                for key, (found, wanted) in misshapen.items()
            ],
        }
        groups = {name: lines for name, lines in groups.items() if lines}
        counts = ", ".join(f"{len(lines)} {name}" for name, lines in groups.items())
        super().__init__(
            "\n".join([f"{what}: {counts}.", *_listed(groups)]),
            hint="Nothing was loaded. Give the file, and the layout, of this very network.",
        )

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}"


class _Slot(NamedTuple):
    """One tensor of a tree."""

    layer: nn.Module
    name: str
    value: Tensor


_SHOWN = 8
"""How many keys of each kind a message shows."""


def load(
    tree: M,
    source: str | Path | Mapping[str, Tensor],
    layout: KeyMap = AS_IS,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> M:
    """Gives a tree published weights, as if it wore no adapters, and returns it.

    All keys and shapes are checked before anything changes. A file is memory-mapped: a tree that
    was built on the meta device takes its tensors as they are, cast one by one if need be.

    Args:
        tree: A chain or any other module.
        source: A safetensors file, or tensors by their published keys, which are not copied.
        layout: How it is published.
        dtype: What floating-point tensors are cast to. By default the tree's own, and the file's
            for a tree on the meta device.
        device: Where the tensors go. By default where the tree is, and to the CPU from the meta
            device.

    Raises:
        MisfitError: Keys or shapes are not those of the tree: all of them are named.
        WeightsError: The file is missing, truncated or of another format.
    """
    first = first_weight(tree)
    is_meta = first is None or first.is_meta
    where = torch.device(device or ("cpu" if first is None or first.is_meta else first.device))
    with _opened(source, where) as file:
        slots = dict(_slots(tree))
        places = {path: layout.place(path) for path in slots}
        found = _found(file, layout)
        name = str(source) if isinstance(source, str | Path) else f"{len(source)} tensors"
        _check(f"{name} for {type(tree).__name__}", file, found, slots, places)
        values: list[Tensor] = []
        for path, slot in slots.items():
            key, how = places[path]
            value = how.read(_share(file.tensor(found[key]), how)).detach()
            wanted = slot.value.dtype if dtype is None and not is_meta else dtype
            values.append(value.to(where, wanted if value.is_floating_point() else None))
    for slot, value in zip(slots.values(), values, strict=True):
        _assign(slot, value)
    return tree


def published(
    tree: nn.Module, layout: KeyMap = AS_IS, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Returns a tree's tensors under their published names, as if it wore no adapters.

    Args:
        tree: A chain or any other module.
        layout: How it is published.
        dtype: What floating-point tensors are cast to; by default they are kept.
    """
    shares: dict[str, dict[int, Tensor]] = {}
    for path, slot in _slots(tree):
        key, how = layout.place(path)
        value = how.write(slot.value.detach())
        value = value.to(dtype if value.is_floating_point() else None)
        shares.setdefault(key, {})[how.share] = value
    return {key: _stacked(tensors) for key, tensors in shares.items()}


def save(
    tree: nn.Module,
    path: str | Path,
    layout: KeyMap = AS_IS,
    *,
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a tree's weights as they are published, as if it wore no adapters.

    Args:
        tree: A chain or any other module.
        path: The safetensors file.
        layout: How it is published.
        dtype: What floating-point tensors are cast to; by default they are kept.
        metadata: Texts to keep in the header of the file.

    Raises:
        WeightsError: The tree has no values yet, or the file cannot be written.
    """
    write(published(tree, layout, dtype), path, metadata)


class _Tensors:
    """Tensors in memory, asked like a file."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def names(self) -> list[str]:
        return list(self.tensors)

    def shape(self, key: str) -> Shape:
        return tuple(self.tensors[key].shape)

    def tensor(self, key: str) -> Tensor:
        return self.tensors[key]


def _opened(
    source: str | Path | Mapping[str, Tensor], device: torch.device
) -> AbstractContextManager[TensorFile | _Tensors]:
    if isinstance(source, str | Path):
        return TensorFile(source, device)
    return nullcontext(_Tensors(source))


def _slots(tree: nn.Module) -> Iterator[tuple[str, _Slot]]:
    for path, layer in (("", tree), *bare_walk(tree)):
        own = layer.__dict__
        transient = own["_non_persistent_buffers_set"]
        for name, value in (*own["_parameters"].items(), *own["_buffers"].items()):
            if value is not None and name not in transient:
                yield f"{path}.{name}" if path else name, _Slot(layer, name, value)


def _found(file: TensorFile | _Tensors, layout: KeyMap) -> dict[str, str]:
    """Keys of the file by the current published keys; those without weights left out."""
    keys = [key for key in file.names() if not layout.is_ignored(key)]
    return {layout.current(key): key for key in keys}


def _check(
    what: str,
    file: TensorFile | _Tensors,
    found: Mapping[str, str],
    slots: Mapping[str, _Slot],
    places: Mapping[str, Place],
) -> None:
    wanted = {place.key for place in places.values()}
    misshapen: dict[str, tuple[Shape, Shape]] = {}
    for path, (key, how) in places.items():
        if key in found:
            shape = file.shape(found[key])
            if shape != (ours := _grown(tuple(slots[path].value.shape), how)):
                ours = _grown(tuple(how.write(slots[path].value.detach()).shape), how)
            if shape != ours:
                misshapen[found[key]] = (shape, ours)
    missing = tuple(dict.fromkeys(key for key, _ in places.values() if key not in found))
    unexpected = tuple([key for current, key in found.items() if current not in wanted])
    if missing or unexpected or misshapen:
        raise MisfitError(what, missing, unexpected, misshapen)


def _grown(shape: Shape, how: Transform) -> Shape:
    """Returns the shape of the published tensor that a tensor of this shape is a share of."""
    return shape if how.shares == 1 else (shape[0] * how.shares, *shape[1:])


def _share(tensor: Tensor, how: Transform) -> Tensor:
    return tensor if how.shares == 1 else tensor.chunk(how.shares)[how.share]


def _stacked(shares: Mapping[int, Tensor]) -> Tensor:
    if len(shares) == 1:
        return next(iter(shares.values()))
    return torch.cat([shares[i] for i in range(len(shares))])


def _assign(slot: _Slot, value: Tensor) -> None:
    if slot.name in slot.layer._buffers:
        slot.layer._buffers[slot.name] = value
    elif slot.value.is_meta:
        is_trained = slot.value.requires_grad and value.is_floating_point()
        slot.layer._parameters[slot.name] = nn.Parameter(value, requires_grad=is_trained)
    else:  # optimisers and tied layers know the parameter itself
        slot.value.data = value


def _listed(groups: Mapping[str, list[str]]) -> Iterator[str]:
    for name, lines in groups.items():
        yield f"  {name}:"
        yield from (f"    {line}" for line in lines[:_SHOWN])
        if len(lines) > _SHOWN:
            yield f"    ... and {len(lines) - _SHOWN} more"
