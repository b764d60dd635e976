"""Reads the graph of nodes with which ComfyUI describes a picture.

The graph maps ids to nodes: `{"3": {"class_type": "KSampler", "inputs": {"seed": 1, "positive":
["6", 0], ...}}}`. An input is a value, or a link to another node. Nodes are told apart by their
inputs, since other packages of nodes have other classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final, cast

import msgspec

from refiners.recipe.form import AdapterRecord, ArgumentRecord, ModelRecord, Recipe

PROGRAM: Final = "comfyui"
_SEEDS: Final = ("seed", "noise_seed")
_SAMPLING: Final = (*_SEEDS, "steps", "cfg", "sampler_name", "scheduler", "denoise")
_MOST: Final = 10_000
"""The most nodes of a graph that are read."""

Node = Mapping[str, Any]
Graph = Mapping[str, Node]


def from_graph(text: str) -> Recipe:
    """Returns the recipe in a graph.

    Raises:
        ValueError: The text is not a graph, or an input has an impossible value.
    """
    graph = _graph(text)
    sampler = max(graph, key=lambda id: _rank(graph, id), default=None)
    if sampler is None or not _rank(graph, sampler)[0]:
        raise ValueError("no node of the graph samples")
    values = {name: _value(graph, sampler, name) for name in _SAMPLING}
    for name in _SAMPLING:  # a custom sampler has its settings in nodes of their own
        if values[name] is None:
            others = (_value(graph, id, name) for id in graph)
            values[name] = next((value for value in others if value is not None), None)
    arguments = {
        "prompt": _text(graph, sampler, "positive"),
        "negative_prompt": _text(graph, sampler, "negative"),
        "seed": next((values[name] for name in _SEEDS if values[name] is not None), None),
        "steps": values["steps"],
        "guidance": values["cfg"],
        "sampler": " ".join(
            str(values[name]) for name in ("sampler_name", "scheduler") if values[name]
        ),
        "size": _size(graph, sampler),
        "strength": values["denoise"] if values["denoise"] not in (None, 1) else None,
    }
    given = {name: value for name, value in arguments.items() if value not in (None, "")}
    return Recipe(
        written_by=PROGRAM,
        model=_model(graph, sampler),
        adapters=tuple(_adapters(graph, sampler)),
        arguments=msgspec.convert(given, ArgumentRecord),
    )


def _graph(text: str) -> Graph:
    content: Any = json.loads(text, parse_constant=lambda word: None)
    if not isinstance(content, dict) or len(cast("dict[str, Any]", content)) > _MOST:
        raise ValueError("it is not a graph of nodes")
    nodes = cast("dict[str, Any]", content)
    return {
        id: cast("Node", node)
        for id, node in nodes.items()
        if isinstance(node, dict) and isinstance(cast("Node", node).get("inputs"), dict)
    }


def _rank(graph: Graph, id: str) -> tuple[int, int, int]:
    """Returns the rank of a node as the first sampler: one from pure noise, with most settings."""
    inputs = graph[id]["inputs"]
    count = sum(name in inputs for name in _SAMPLING)
    is_sampler = "positive" in inputs or "guider" in inputs or "latent_image" in inputs
    is_first = inputs.get("denoise", 1) == 1
    return (count + 1 if is_sampler else 0, int(is_first), -list(graph).index(id))


def _value(graph: Graph, id: str, name: str, depth: int = 0) -> Any:
    """Returns an input, or the value of the node that it links to; None without either."""
    value = graph[id]["inputs"].get(name)
    if (linked := _linked(graph, value)) is None or depth > 8:
        return value if isinstance(value, int | float | str) else None
    names = (name, "value", *(name for name in graph[linked]["inputs"] if name in _SEEDS))
    values = (_value(graph, linked, other, depth + 1) for other in names)
    return next((item for item in values if item is not None), None)


def _linked(graph: Graph, value: Any) -> str | None:
    """Returns the id of the node that a value links to; None if it is not a link."""
    if not isinstance(value, list) or len(cast("list[Any]", value)) != 2:
        return None
    id = str(cast("list[Any]", value)[0])
    return id if id in graph else None


def _upstream(graph: Graph, id: str, *names: str) -> Iterator[str]:
    """Yields the nodes that lead to some inputs of a node, nearest first, each once."""
    inputs = graph[id]["inputs"]
    frontier = [node for name in names if (node := _linked(graph, inputs.get(name))) is not None]
    seen: dict[str, None] = {}
    while frontier:
        node = frontier.pop(0)
        if node in seen:
            continue
        seen[node] = None
        yield node
        links = (_linked(graph, value) for value in graph[node]["inputs"].values())
        frontier += [link for link in links if link is not None]


def _text(graph: Graph, sampler: str, name: str) -> str:
    for id in _upstream(graph, sampler, name, "guider"):
        for key in ("text", "text_g", "string", "prompt"):
            if isinstance(text := _value(graph, id, key), str):
                return text
    return ""


def _size(graph: Graph, sampler: str) -> list[int] | None:
    for id in _upstream(graph, sampler, "latent_image"):
        sides = [_value(graph, id, side) for side in ("width", "height")]
        if all(isinstance(side, int) for side in sides):
            return sides
    return None


def _model(graph: Graph, sampler: str) -> ModelRecord:
    for id in _upstream(graph, sampler, "model", "guider"):
        for key in ("ckpt_name", "unet_name"):
            if isinstance(name := _value(graph, id, key), str):
                return ModelRecord(id=f"file:{_base_name(name)}")
    return ModelRecord()


def _adapters(graph: Graph, sampler: str) -> Iterator[AdapterRecord]:
    """Yields the files that loaders on the way to the sampler put on the model."""
    for id in _upstream(graph, sampler, "model", "guider"):
        for key in [key for key in graph[id]["inputs"] if key.endswith("_name")]:
            name, scale = _value(graph, id, key), _value(graph, id, "strength_model")
            if isinstance(name, str) and isinstance(scale, int | float):
                file = _base_name(name)
                kind = key.removesuffix("_name")
                key = PurePosixPath(file).stem
                yield AdapterRecord(key=key, name=kind, file=file, scale=float(scale))


def _base_name(path: str) -> str:
    return PureWindowsPath(path).name
