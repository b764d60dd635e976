"""The printed tree, and the note that locates an error in it."""

import inspect
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from refiners_core.tree.layer import Layer


class Mark(NamedTuple):
    """The origin of a layer: the key of the adapter that made it (None for the base), and the
    overlay of the nearest edited chain."""

    key: str | None = None
    worn: Any = None


def show(tree: nn.Module, depth: int | None = None) -> str:
    """Returns the tree as text, exactly as it runs.

    Equal neighbours share one line with a count, and only constructor arguments that differ from
    their defaults are shown. Layers of an adapter begin at a line that ends with `<- key`; base
    layers inside them begin at a line that ends with `<- base`.

    Args:
        tree: The tree or part of one.
        depth: The number of levels to show below the root; all by default.
    """
    return "\n".join([_title(tree), *_branches(tree, "", Mark(), depth, frozenset())])


def _branches(
    layer: nn.Module, indent: str, mark: Mark, depth: int | None, above: frozenset[int]
) -> Iterator[str]:
    children = _children(layer, mark)
    if depth is not None and depth <= 0 and children:
        yield f"{indent}└── ... {len(children)} layers"
        return
    if id(layer) in above:
        yield f"{indent}└── ... itself"
        return
    below = None if depth is None else depth - 1
    blocks: list[tuple[list[str], list[str]]] = []  # names, lines without their name
    for name, child, child_mark in children:
        is_turn = child_mark.key != mark.key  # layers below have the same origin
        note = f"  <- {child_mark.key or 'base'}" if is_turn else ""
        body = [_title(child) + note, *_branches(child, "", child_mark, below, above | {id(layer)})]
        if blocks and blocks[-1][1] == body:
            blocks[-1][0].append(name)
        else:
            blocks.append(([name], body))
    for i, (names, body) in enumerate(blocks):
        head, rest = ("└── ", "    ") if i == len(blocks) - 1 else ("├── ", "│   ")
        label = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]} (x{len(names)})"
        yield f"{indent}{head}{label}: {body[0]}"
        for line in body[1:]:
            yield f"{indent}{rest}{line}"


def _children(layer: nn.Module, mark: Mark) -> list[tuple[str, nn.Module, Mark]]:
    worn = layer.__dict__.get("_worn") or mark.worn
    base = {id(child) for child in worn.bare.values()} if worn else set[int]()
    marked: list[tuple[str, nn.Module, Mark]] = []
    for name, child in layer._modules.items():
        if child is None:  # torch's containers may have empty places
            continue
        if id(child) in base:
            marked.append((name, child, Mark()))
        elif worn and (key := worn.maker(child)):
            marked.append((name, child, Mark(key, worn)))
        else:
            marked.append((name, child, mark))
    return marked


def _title(layer: nn.Module) -> str:
    kind = type(layer).__name__
    facts = layer.extra_repr() if isinstance(layer, Layer) else ", ".join(_facts(layer))
    return f"{kind}({facts})" if facts else kind


def _facts(layer: nn.Module) -> Iterator[str]:
    if "extra_repr" in type(layer).__dict__ and not type(layer).__module__.startswith("torch.nn."):
        yield from filter(None, [layer.extra_repr()])
        return
    for parameter in inspect.signature(type(layer).__init__).parameters.values():
        if parameter.name in ("self", "device", "dtype", "inplace") or not hasattr(
            layer, parameter.name
        ):
            continue
        value = getattr(layer, parameter.name)
        if isinstance(parameter.default, bool):
            value = value is not None if isinstance(value, Tensor | None) else value
        if isinstance(value, tuple) and len(set(value)) == 1:
            value = value[0]
        if isinstance(value, Tensor | nn.Module) or _is_same(value, parameter.default):
            continue
        is_required = parameter.default is inspect.Parameter.empty
        yield f"{value}" if is_required else f"{parameter.name}={value}"


def _is_same(value: object, default: object) -> bool:
    """Whether a value equals its default; a value without a single truth value does not."""
    try:
        return bool(value == default)
    except Exception:
        return False


def add_place(error: BaseException, root: nn.Module) -> None:
    """Adds a note to an exception: the place in the tree where it arose, and the inputs there.

    The place is read from the traceback, so successful calls pay nothing. An exception that passes
    through several trees carries one note: that of the outermost tree that contains the place, with
    a line for each further tree around it.
    """
    try:
        # The first frame belongs to `forward`: its locals hold the exception, and reading them
        # would tie the two into a cycle that keeps the tree alive.
        steps, inputs = _steps(error.__traceback__ and error.__traceback__.tb_next, root)
        layer = steps[-1][1] if steps else root
        notes = getattr(error, "__notes__", [])
        previous = error.__dict__.get("_refiners_place")
        if previous is None or previous[0] not in notes:
            notes, previous = [*notes, ""], ("", id(layer))
        note = _place(root, steps, layer, inputs)
        if previous[1] != id(layer):
            note = f"{previous[0]}\nCalled in {type(root).__name__}, at {_path(steps)}"
        error.__notes__ = [note if other == previous[0] else other for other in notes]
        error.__dict__["_refiners_place"] = (note, previous[1])
    except Exception as failure:  # a note must never hide the error it is about
        error.add_note(f"(the place in the tree could not be determined: {type(failure).__name__})")


Steps = list[tuple[str, nn.Module]]


def _path(steps: Steps) -> str:
    return ".".join(name for name, _ in steps) or "the root"


def _place(root: nn.Module, steps: Steps, layer: nn.Module, inputs: tuple[Any, ...]) -> str:
    lines = [f"In {type(root).__name__}, at {_path(steps)}:"]
    lines += [f"{'  ' * i}{name}: {_title(child)}" for i, (name, child) in enumerate(steps, 1)]
    lines[-1] += "  <- here"
    lines.append(f"{type(layer).__name__} got {', '.join(map(summary, inputs)) or 'no inputs'}")
    return "\n".join(lines)


def _steps(traceback: TracebackType | None, root: nn.Module) -> tuple[Steps, tuple[Any, ...]]:
    steps: Steps = []
    layer: nn.Module = root
    inputs: tuple[Any, ...] = ()
    while traceback is not None:
        values: Mapping[str, Any] = traceback.tb_frame.f_locals
        for candidate in (values.get("self"), values.get("child")):
            if isinstance(candidate, nn.Module) and (name := _name_of(layer, candidate)):
                steps.append((name, candidate))
                layer = candidate
        if values.get("child") is layer or values.get("self") is layer:
            inputs = values.get("inputs", inputs)
        traceback = traceback.tb_next
    return steps, inputs


def _name_of(parent: nn.Module, layer: nn.Module) -> str:
    """Returns the name of a child; several, joined by `or`, if it sits in several places."""
    return " or ".join([name for name, child in parent._modules.items() if child is layer])


def summary(value: object) -> str:
    """Returns one line about a value: the shape, dtype, device and range of a tensor; the type of
    any other value."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    text = f"Tensor{list(value.shape)} {str(value.dtype).removeprefix('torch.')} {value.device}"
    if value.device.type == "meta" or value.numel() == 0 or not value.is_floating_point():
        return text
    try:
        value = value.detach()
        finite = torch.isfinite(value)
        if not bool(finite.all()):
            return f"{text}, {int((~finite).sum())} of {value.numel()} not finite"
        return f"{text}, {float(value.min()):.3g} to {float(value.max()):.3g}"
    except Exception:  # a full device, or a tensor without values
        return text
