"""The hot swap of weights between two adapters of one class."""

import reprlib
from collections.abc import Sequence, Set
from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from refiners_core.errors import AdapterError

Tensors = dict[str, Tensor | None]
_ABSENT: Final = object()
_STATE: Final = nn.Module().__dict__.keys() | {"_tree_index"}
"""The attributes of every module and the cache of a chain, which are not settings of a layer."""
_PLAIN: Final = (int, float, bool, str, type(None))


class Difference(NamedTuple):
    """A difference that keeps two adapters from swapping weights."""

    path: str
    ours: str
    theirs: str


def hotswap(
    ours: nn.Module, theirs: nn.Module, names: tuple[str, str], outside: Sequence[str] = ()
) -> None:
    """Swaps all parameters and buffers of two trees of layers; the layers stay in place.

    Args:
        ours: One tree.
        theirs: The other tree.
        names: The names of the trees for errors.
        outside: The names of children that are swapped as they are, whatever their shapes.

    Raises:
        AdapterError: The trees are the same object, or differ in class, in layers, in which layers
            are shared between places, in a setting of a layer, or in the shape, dtype or device of
            a tensor; nothing was changed.
    """
    pairs: list[tuple[Tensors, Tensors]] = []
    difference = (
        Difference("", type(ours).__name__, "itself" if ours is theirs else type(theirs).__name__)
        if ours is theirs or type(ours) is not type(theirs)
        else _unlike(_without(ours, outside), _without(theirs, outside), pairs, names, {})
    )
    # A layer in two places is listed twice, but swaps its weights once.
    unique = {(id(a), id(b)): (a, b) for a, b in pairs}
    sharing = [len({side[i] for side in unique}) for i in (0, 1)]
    if difference is None and sharing != [len(unique)] * 2:
        difference = Difference("", *(f"{count} layers with weights" for count in sharing))
    if difference is not None:
        path, a, b = difference
        raise AdapterError(
            f"{names[0]} and {names[1]} cannot swap weights: at {path or 'the top'}, the one "
            f"has {a}, the other {b}.",
            hint="Eject the one and inject the other.",
        )
    for a, b in unique.values():
        for name in a:
            a[name], b[name] = b[name], a[name]
    layers, others = ours._modules, theirs._modules
    for name in outside:
        if name in layers and name in others:
            layers[name], others[name] = others[name], layers[name]


def _without(tree: nn.Module, outside: Sequence[str]) -> dict[str, Any]:
    """Returns the state of a tree without some of its children."""
    layers = {name: layer for name, layer in tree._modules.items() if name not in outside}
    return tree.__dict__ | {"_modules": layers}


def _unlike(
    ours: dict[str, Any],
    theirs: dict[str, Any],
    pairs: list[tuple[Tensors, Tensors]],
    keys: tuple[str, str],
    forms: dict[tuple[str, ...], Set[str]],
) -> Difference | None:
    for kind in ("_parameters", "_buffers"):
        mine, other_tensors = ours[kind], theirs[kind]
        if mine or other_tensors:
            pairs.append((mine, other_tensors))
            if (difference := _unlike_tensors(mine, other_tensors)) is not None:
                return difference
    layers, others = ours["_modules"], theirs["_modules"]
    if not layers and not others:
        return None
    if layers.keys() != others.keys():
        return Difference("", _listed(layers), _listed(others))
    for name, layer in layers.items():
        a, b = layer.__dict__, others[name].__dict__
        if type(layer) is not type(others[name]):
            return Difference(name, type(layer).__name__, type(others[name]).__name__)
        # A swap takes as long as this comparison, so modules of one form share its preparation.
        form = tuple(a)
        facts = forms.get(form)
        if tuple(b) != form:
            facts = (a.keys() | b.keys()) - _STATE
        elif facts is None:
            facts = forms[form] = a.keys() - _STATE
        for fact in facts:
            value, other = a.get(fact, _ABSENT), b.get(fact, _ABSENT)
            if value is other or (type(value) in _PLAIN and value == other):
                continue
            if fact not in a or fact not in b or not _is_same(value, other, keys):
                return Difference(
                    name,
                    *(_named(layer, fact, state.get(fact, "nothing")) for state in (a, b)),
                )
        difference = _unlike(a, b, pairs, keys, forms)
        if difference is not None:
            below = f"{name}.{difference.path}" if difference.path else name
            return difference._replace(path=below)
    return None


def _is_same(ours: Any, theirs: Any, keys: tuple[str, str]) -> bool:
    """Whether a setting is the same in both, up to the keys of the adapters in names of context
    values; settings that cannot be compared are not."""
    try:
        if isinstance(ours, str) and isinstance(theirs, str):
            return ours == theirs or _of_key(ours, keys[0]) == _of_key(theirs, keys[1]) != ""
        if type(ours) is type(theirs) and isinstance(ours, list | tuple):
            return len(ours) == len(theirs) and all(
                _is_same(a, b, keys) for a, b in zip(ours, theirs, strict=True)
            )
        if isinstance(ours, dict) and isinstance(theirs, dict):
            return _is_same([*ours.items()], [*theirs.items()], keys)
        return bool(ours.equal(theirs) if isinstance(ours, Tensor) else ours == theirs)
    except Exception:
        return False


def _of_key(name: str, key: str) -> str:
    """Returns the name of a context value without the key of its adapter; empty for any other
    name."""
    return name.removeprefix(f"{key}.") if name.startswith(f"{key}.") else ""


def _named(layer: nn.Module, fact: str, value: Any) -> str:
    """Returns a setting of a layer on one short line."""
    return f"{type(layer).__name__} with {fact} = {' '.join(reprlib.repr(value).split())}"


def _unlike_tensors(ours: Tensors, theirs: Tensors) -> Difference | None:
    if ours.keys() != theirs.keys():
        return Difference("", _listed(ours), _listed(theirs))
    for name, a in ours.items():
        b = theirs[name]
        if a is b:
            continue
        if a is None or b is None:
            is_like = a is b
        else:
            is_like = a.dtype is b.dtype and a.shape == b.shape and a.device == b.device
        if not is_like:
            return Difference(name, _described(a), _described(b))
    return None


def _listed(named: dict[str, Any]) -> str:
    return ", ".join(list(named)[:4]) + (", ..." if len(named) > 4 else "") or "nothing"


def _described(tensor: Tensor | None) -> str:
    if tensor is None:
        return "none"
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"
