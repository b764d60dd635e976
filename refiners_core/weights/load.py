"""Loads published tensors into trees, and saves trees as such."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from refiners_core.errors import WeightsError
from refiners_core.tree.bare_tree import bare_children, first_weight
from refiners_core.weights.key_map import AS_IS, SAME, Course, KeyMap, Transform
from refiners_core.weights.sharded import read
from refiners_core.weights.tensor_file import write
from refiners_core.weights.weightless import is_weightless

M = TypeVar("M", bound=nn.Module)
Shape = tuple[int, ...]


class MisfitError(WeightsError):
    """Published tensors do not match the tree; the tree is unchanged.

    Args:
        title: The source and the tree, for the message.
        missing: Published keys that the tree needs and the source lacks.
        unexpected: Published keys that the tree does not have.
        misshapen: For each key with a wrong shape, the shape in the source and that of the tree.
        hint: The next thing to do.
    """

    def __init__(
        self,
        title: str,
        missing: tuple[str, ...],
        unexpected: tuple[str, ...],
        misshapen: Mapping[str, tuple[Shape, Shape]],
        hint: str = "Nothing was loaded. Pass the file and the layout of this network.",
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
                f"{key} is {list(actual)}, wanted {list(wanted)}"
                for key, (actual, wanted) in misshapen.items()
            ],
        }
        groups = {name: lines for name, lines in groups.items() if lines}
        counts = ", ".join(f"{len(lines)} {name}" for name, lines in groups.items())
        super().__init__(
            "\n".join([f"{title}: {counts}.", *_listed(groups)]),
            hint=hint,
        )

    def concerning(self, title: str, hint: str) -> "MisfitError":
        """Returns the same error in the words of somebody who gave a file to an adapter.

        Args:
            title: The file and what it does not fit.
            hint: The next thing to do.
        """
        return MisfitError(title, self.missing, self.unexpected, self.misshapen, hint)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}"


class _Slot(NamedTuple):
    """One tensor of a tree, with its published key and transform."""

    layer: nn.Module
    name: str
    value: Tensor
    key: str
    how: Transform


_SHOWN = 8
"""The maximum number of keys of each kind in a message."""


def load(
    tree: M,
    source: str | Path | Mapping[str, Tensor],
    layout: KeyMap = AS_IS,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> M:
    """Loads published weights into the base layers of a tree and returns the tree.

    All keys and shapes are checked before anything changes. A file is memory-mapped: a tree that
    was built on the meta device takes its tensors without a copy. Tensors are cast and moved one by
    one, and each old tensor is freed at once.

    Args:
        tree: A chain or any other module.
        source: A safetensors file, or the index of several; or tensors by published key, which
            are not copied.
        layout: The layout of the source.
        dtype: The dtype for floating-point tensors. By default that of the tree, or that of the
            file for a tree on the meta device.
        device: The device for the tensors. By default that of the tree, or the CPU for a tree on
            the meta device.

    Raises:
        MisfitError: Keys or shapes do not match the tree; all of them are listed.
        WeightsError: The file is missing, truncated or of another format, or has weights without
            arithmetic: quantised ones, or float8 that `dtype` does not widen.
    """
    first = first_weight(tree)
    is_meta = first is None or first.is_meta
    where = torch.device(device or ("cpu" if first is None or first.is_meta else first.device))
    tensors = source if isinstance(source, Mapping) else read(source)
    name = f"{len(source)} tensors" if isinstance(source, Mapping) else str(source)
    keys = {layout.current(key): key for key in tensors}
    slots = _slots(tree, layout)
    title = f"{name} for {type(tree).__name__}"
    _check(title, tensors, keys, slots, layout)
    _check_kinds(title, tensors, keys, slots, dtype)
    made: dict[int, nn.Parameter] = {}
    for slot in slots:
        share = slot.how.part(tensors[keys[slot.key]])
        assert share is not None, "checked with the shapes"
        value = slot.how.read(share).detach()
        wanted = slot.value.dtype if dtype is None and not is_meta else dtype
        _assign(slot, value.to(where, wanted if value.is_floating_point() else None), made)
    return tree


def published(
    tree: nn.Module, layout: KeyMap = AS_IS, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Returns the tensors of the base layers of a tree by published name.

    Args:
        tree: A chain or any other module.
        layout: The layout to publish in.
        dtype: The dtype for floating-point tensors; by default each keeps its own.

    Raises:
        WeightsError: The layout publishes two different tensors under one name.
    """
    shares: dict[str, dict[int, Tensor]] = {}
    dims: dict[str, int] = {}
    taken: dict[tuple[str, int], Tensor] = {}
    for slot in _slots(tree, layout):
        if taken.setdefault((slot.key, slot.how.share), slot.value) is not slot.value:
            raise WeightsError(
                f"the layout publishes several tensors of {type(tree).__name__} as {slot.key!r}.",
                hint="Make the KeyMap one to one: a published name for each of ours.",
            )
        value = slot.how.write(slot.value.detach())
        value = value.to(dtype if value.is_floating_point() else None)
        shares.setdefault(slot.key, {})[slot.how.share] = value
        dims[slot.key] = slot.how.dim
    return {key: _stacked(tensors, dims[key]) for key, tensors in shares.items()}


def save(
    tree: nn.Module,
    path: str | Path,
    layout: KeyMap = AS_IS,
    *,
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes the weights of the base layers of a tree as a published file.

    Args:
        tree: A chain or any other module.
        path: The safetensors file.
        layout: The layout to publish in.
        dtype: The dtype for floating-point tensors; by default each keeps its own.
        metadata: Strings for the header of the file.

    Raises:
        WeightsError: The tree is on the meta device, or the file cannot be written.
    """
    write(published(tree, layout, dtype), path, metadata)


def _slots(tree: nn.Module, layout: KeyMap) -> list[_Slot]:
    slots: list[_Slot] = []
    _collect(tree, "", layout, layout.course, slots)
    return slots


def _collect(
    layer: nn.Module, path: str, layout: KeyMap, course: Course, slots: list[_Slot]
) -> None:
    for tensors in (layer._parameters, layer._buffers):
        for name, value in tensors.items():
            if value is not None and name not in layer._non_persistent_buffers_set:
                place = course.on(name).place() or layout.place(f"{path}{name}")
                slots.append(_Slot(layer, name, value, *place))
    for name, child in bare_children(layer).items():
        if child is not None:  # pyright: ignore[reportUnnecessaryComparison]  torch has empty places
            _collect(child, f"{path}{name}.", layout, course.on(name), slots)


def _check(
    title: str,
    tensors: Mapping[str, Tensor],
    keys: Mapping[str, str],
    slots: list[_Slot],
    layout: KeyMap,
) -> None:
    wanted = {slot.key for slot in slots}
    misshapen: dict[str, tuple[Shape, Shape]] = {}
    for slot in slots:
        if slot.key in keys:
            tensor = tensors[keys[slot.key]]
            if not _is_fitting(tensor, slot):
                ours = slot.how.grown(slot.how.write(slot.value.detach()).shape)
                misshapen[keys[slot.key]] = (tuple(tensor.shape), ours)
    missing = tuple(dict.fromkeys(slot.key for slot in slots if slot.key not in keys))
    unexpected = tuple(
        [
            key
            for current, key in keys.items()
            if current not in wanted and not (layout.is_ignored(key) or is_weightless(key))
        ]
    )
    if missing or unexpected or misshapen:
        raise MisfitError(title, missing, unexpected, misshapen)


def _check_kinds(
    title: str,
    tensors: Mapping[str, Tensor],
    keys: Mapping[str, str],
    slots: list[_Slot],
    dtype: torch.dtype | None,
) -> None:
    """Raises for weights without arithmetic.

    Raises:
        WeightsError: Weights are integers, or stay floating-point numbers of less than two bytes.
    """
    for slot in slots:
        tensor, ours = tensors[keys[slot.key]], slot.value
        if not ours.is_floating_point():
            continue
        if not tensor.is_floating_point():
            raise WeightsError(
                f"{title}: {keys[slot.key]} is {tensor.dtype}, quantised in an unknown way.",
                hint="Pass the file with floating-point weights that it was made from.",
            )
        wanted = dtype or (tensor.dtype if ours.is_meta else ours.dtype)
        if wanted.itemsize < 2:
            raise WeightsError(
                f"{title}: {keys[slot.key]} would be {wanted}, for which torch has no arithmetic.",
                hint="Widen the weights while loading: dtype=torch.bfloat16.",
            )


def _is_fitting(tensor: Tensor, slot: _Slot) -> bool:
    """Whether the share of a published tensor, as it is read, has the shape of ours."""
    if slot.how is SAME:
        return tensor.shape == slot.value.shape
    share = slot.how.part(tensor.to("meta"))  # reads shapes alone
    try:
        return share is not None and slot.how.read(share).shape == slot.value.shape
    except (RuntimeError, IndexError):  # a tensor of another number of dimensions
        return False


def _stacked(shares: Mapping[int, Tensor], dim: int) -> Tensor:
    if len(shares) == 1:
        return next(iter(shares.values()))
    return torch.cat([shares[i] for i in range(len(shares))], dim)


def _assign(slot: _Slot, value: Tensor, made: dict[int, nn.Parameter]) -> None:
    """Puts a tensor into a tree.

    Args:
        slot: The place in the tree.
        value: The tensor.
        made: The parameters made so far, by the identity of those on the meta device: layers that
            share one share the new one as well.
    """
    if slot.name in slot.layer._buffers:
        slot.layer._buffers[slot.name] = value
    elif not slot.value.is_meta:  # optimisers and tied layers hold the parameter itself
        slot.value.data = value
    elif id(slot.value) in made:
        made[id(slot.value)].data = value
        slot.layer._parameters[slot.name] = made[id(slot.value)]
    else:
        is_trained = slot.value.requires_grad and value.is_floating_point()
        parameter = made[id(slot.value)] = nn.Parameter(value, requires_grad=is_trained)
        slot.layer._parameters[slot.name] = parameter


def _listed(groups: Mapping[str, list[str]]) -> Iterator[str]:
    for name, lines in groups.items():
        yield f"  {name}:"
        yield from (f"    {line}" for line in lines[:_SHOWN])
        if len(lines) > _SHOWN:
            yield f"    ... and {len(lines) - _SHOWN} more"
