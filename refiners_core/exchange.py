"""Weights that change places between two adapters of one make."""

from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from refiners_core.errors import AdapterError

Tensors = dict[str, Tensor | None]
_STATE: Final = nn.Module().__dict__.keys() | {"_survey"}
"""What every module has, and what a chain remembers: no facts of a layer."""


class Difference(NamedTuple):
    """What keeps two adapters from exchanging weights."""

    path: str
    ours: str
    theirs: str


def exchange(ours: nn.Module, theirs: nn.Module, names: tuple[str, str]) -> None:
    """Lets two trees of layers change all parameters and buffers; the layers stay where they are.

    Args:
        ours: The one.
        theirs: The other.
        names: What errors call them.

    Raises:
        AdapterError: They are one, or differ in kind, in layers, in which of these sit in several
            places, in facts of a layer, or in a tensor's shape, dtype or device; nothing was
            changed.
    """
    pairs: list[tuple[Tensors, Tensors]] = []
    difference = (
        Difference("", type(ours).__name__, "itself" if ours is theirs else type(theirs).__name__)
        if ours is theirs or type(ours) is not type(theirs)
        else _unlike(ours.__dict__, theirs.__dict__, pairs)
    )
    # A layer that sits in two places is found twice, but gives its weights once.
    once = {(id(a), id(b)): (a, b) for a, b in pairs}
    sharing = [len({side[i] for side in once}) for i in (0, 1)]
    if difference is None and sharing != [len(once)] * 2:
        difference = Difference("", *(f"{count} layers with weights" for count in sharing))
    if difference is not None:
        path, a, b = difference
        raise AdapterError(
            f"{names[0]} and {names[1]} cannot exchange weights: at {path or 'the top'}, the one "
            f"has {a}, the other {b}.",
            hint="Eject the one and inject the other.",
        )
    for a, b in once.values():
        for name in a:
            a[name], b[name] = b[name], a[name]


def _unlike(
    ours: dict[str, Any], theirs: dict[str, Any], pairs: list[tuple[Tensors, Tensors]]
) -> Difference | None:
    for kind in ("_parameters", "_buffers"):
        own, other = ours.get(kind), theirs.get(kind)
        if own or other:
            pairs.append((own or {}, other or {}))
            if (difference := _unlike_tensors(*pairs[-1])) is not None:
                return difference
    layers, others = ours["_modules"], theirs["_modules"]
    if layers.keys() != others.keys():
        return Difference("", _listed(layers), _listed(others))
    for name, layer in layers.items():
        a, b = layer.__dict__, others[name].__dict__
        is_like = type(layer) is type(others[name])
        for fact, said in a.items():
            if fact not in _STATE:
                is_like = is_like and fact in b and (said is b[fact] or _is_same(said, b[fact]))
        if not is_like:
            return Difference(name, repr(layer), repr(others[name]))
        difference = _unlike(a, b, pairs)
        if difference is not None:
            below = f"{name}.{difference.path}" if difference.path else name
            return difference._replace(path=below)
    return None


def _is_same(ours: Any, theirs: Any) -> bool:
    """Whether a fact is the same in both; what cannot be compared is not."""
    try:
        return bool(ours.equal(theirs) if isinstance(ours, Tensor) else ours == theirs)
    except Exception:
        return False


def _unlike_tensors(ours: Tensors, theirs: Tensors) -> Difference | None:
    if ours.keys() != theirs.keys():
        return Difference("", _listed(ours), _listed(theirs))
    for name, a in ours.items():
        b = theirs[name]
        if a is None or b is None:
            is_like = a is b
        else:
            is_like = a.dtype is b.dtype and a.shape == b.shape and a.device == b.device
        if not is_like:
            return Difference(name, _told(a), _told(b))
    return None


def _listed(named: dict[str, Any]) -> str:
    return ", ".join(list(named)[:4]) + (", ..." if len(named) > 4 else "") or "nothing"


def _told(tensor: Tensor | None) -> str:
    if tensor is None:
        return "none"
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"
