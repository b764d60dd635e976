"""Loading a tree from published tensors, and saving it as such."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from refiners_core.errors import WeightsError
from refiners_core.tree.bare_tree import bare_children, first_weight
from refiners_core.weights.key_map import AS_IS, Course, KeyMap, Transform
from refiners_core.weights.sharded import read
from refiners_core.weights.tensor_file import write
from refiners_core.weights.weightless import is_weightless

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
    """One tensor of a tree, and where it is published."""

    layer: nn.Module
    name: str
    value: Tensor
    key: str
    how: Transform


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
    was built on the meta device takes its tensors as they are. What is cast, or goes to another
    device, does so tensor by tensor, and what it replaces is freed at once.

    Args:
        tree: A chain or any other module.
        source: A safetensors file, or the index of several; or tensors by their published keys,
            which are not copied.
        layout: How it is published.
        dtype: What floating-point tensors are cast to. By default the tree's own, and the file's
            for a tree on the meta device.
        device: Where the tensors go. By default where the tree is, and to the CPU from the meta
            device.

    Raises:
        MisfitError: Keys or shapes are not those of the tree: all of them are named.
        WeightsError: The file is missing, truncated or of another format, or has weights that
            nothing can be computed with: quantised ones, or float8 that is not widened by `dtype`.
    """
    first = first_weight(tree)
    is_meta = first is None or first.is_meta
    where = torch.device(device or ("cpu" if first is None or first.is_meta else first.device))
    tensors = source if isinstance(source, Mapping) else read(source)
    name = f"{len(source)} tensors" if isinstance(source, Mapping) else str(source)
    found = {layout.current(key): key for key in tensors}
    slots = _slots(tree, layout)
    what = f"{name} for {type(tree).__name__}"
    _check(what, tensors, found, slots, layout)
    _check_kinds(what, tensors, found, slots, dtype)
    for slot in slots:
        value = slot.how.read(_share(tensors[found[slot.key]], slot.how)).detach()
        wanted = slot.value.dtype if dtype is None and not is_meta else dtype
        _assign(slot, value.to(where, wanted if value.is_floating_point() else None))
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
    for slot in _slots(tree, layout):
        value = slot.how.write(slot.value.detach())
        value = value.to(dtype if value.is_floating_point() else None)
        shares.setdefault(slot.key, {})[slot.how.share] = value
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


def _slots(tree: nn.Module, layout: KeyMap) -> list[_Slot]:
    found: list[_Slot] = []
    _collect(tree, "", layout, layout.course, found)
    return found


def _collect(
    layer: nn.Module, path: str, layout: KeyMap, course: Course, found: list[_Slot]
) -> None:
    for tensors in (layer._parameters, layer._buffers):
        for name, value in tensors.items():
            if value is not None and name not in layer._non_persistent_buffers_set:
                place = course.on(name).place() or layout.place(f"{path}{name}")
                found.append(_Slot(layer, name, value, *place))
    for name, child in bare_children(layer).items():
        if child is not None:  # pyright: ignore[reportUnnecessaryComparison]  torch leaves places open
            _collect(child, f"{path}{name}.", layout, course.on(name), found)


def _check(
    what: str,
    tensors: Mapping[str, Tensor],
    found: Mapping[str, str],
    slots: list[_Slot],
    layout: KeyMap,
) -> None:
    wanted = {slot.key for slot in slots}
    misshapen: dict[str, tuple[Shape, Shape]] = {}
    for slot in slots:
        if slot.key in found:
            shape = tensors[found[slot.key]].shape
            if shape != (ours := _grown(slot.value.shape, slot.how)):
                ours = _grown(slot.how.write(slot.value.detach()).shape, slot.how)
            if shape != ours:
                misshapen[found[slot.key]] = (tuple(shape), tuple(ours))
    missing = tuple(dict.fromkeys(slot.key for slot in slots if slot.key not in found))
    unexpected = tuple(
        [
            key
            for current, key in found.items()
            if current not in wanted and not (layout.is_ignored(key) or is_weightless(key))
        ]
    )
    if missing or unexpected or misshapen:
        raise MisfitError(what, missing, unexpected, misshapen)


def _check_kinds(
    what: str,
    tensors: Mapping[str, Tensor],
    found: Mapping[str, str],
    slots: list[_Slot],
    dtype: torch.dtype | None,
) -> None:
    """Refuses weights that nothing could be computed with.

    Raises:
        WeightsError: Some are whole numbers, or stay floating-point numbers of less than two bytes.
    """
    for slot in slots:
        tensor, ours = tensors[found[slot.key]], slot.value
        if not ours.is_floating_point():
            continue
        if not tensor.is_floating_point():
            raise WeightsError(
                f"{what}: {found[slot.key]} is {tensor.dtype}, which is quantised in a way that is "
                "not known here.",
                hint="Give the file with floating-point weights that it was made from.",
            )
        wanted = dtype or (tensor.dtype if ours.is_meta else ours.dtype)
        if wanted.itemsize < 2:
            raise WeightsError(
                f"{what}: {found[slot.key]} would be {wanted}, for which torch has no arithmetic.",
                hint="Widen the weights while they are loaded: dtype=torch.bfloat16.",
            )


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
