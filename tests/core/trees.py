"""Random trees, random adapters, and their comparison.

A tree or an adapter is drawn as a small value, which a failing example prints, and is built from
that value, the same each time.
"""

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Concatenate,
    Distribute,
    Edit,
    Identity,
    Lambda,
    Parallel,
    Passthrough,
    Residual,
    Scope,
    Seat,
    Selection,
    SetContext,
    Sum,
    UseContext,
    select,
)

WIDTH = 4
LEAVES = ("linear", "silu", "norm", "identity", "write", "read", "noise")
CHAINS = ("chain", "residual", "sum", "through", "scope", "parallel", "concatenate")


def picture() -> Tensor:
    return torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(11))


# --- trees -----------------------------------------------------------------------------------


def tree_specs() -> st.SearchStrategy[Any]:
    """Draws the children of a root: names of leaves, and tuples of the name of a chain and its
    children."""
    leaf = st.sampled_from(LEAVES) | st.tuples(st.just("again"), st.integers(0, 5))
    part = st.recursive(
        leaf,
        lambda below: st.tuples(st.sampled_from(CHAINS), st.lists(below, min_size=1, max_size=3)),
        max_leaves=9,
    )
    return st.lists(part, min_size=1, max_size=4)


def add(a: Tensor, b: Tensor) -> Tensor:
    return a + b


def build_tree(spec: Iterable[Any]) -> Chain:
    """Builds a tree in which every layer keeps the width; `again` repeats an earlier layer, so that
    leaves and chains sit in two places."""
    torch.manual_seed(5)
    earlier: list[nn.Module] = []

    def build(part: Any) -> nn.Module:
        if part[0] == "again":
            return earlier[part[1] % len(earlier)] if earlier else Identity()
        layer = build_leaf(part) if isinstance(part, str) else build_chain(*part)
        earlier.append(layer)
        return layer

    def build_leaf(kind: str) -> nn.Module:
        match kind:
            case "linear":
                return nn.Linear(WIDTH, WIDTH)
            case "silu":
                return nn.SiLU()
            case "norm":
                return nn.BatchNorm1d(WIDTH, track_running_stats=True).eval()
            case "write":
                return SetContext("note")
            case "read":
                return UseContext("note")
            case "noise":
                return nn.Dropout(0.5).eval()
            case _:
                return Identity()

    def build_chain(kind: str, parts: list[Any]) -> nn.Module:
        layers = [build(part) for part in parts]
        match kind:
            case "residual":
                return Residual(*layers)
            case "sum":
                return Sum(*layers)
            case "through":
                return Passthrough(*layers)
            case "scope":
                return Scope(*layers, rebind={"note": "given"})
            case "parallel":
                both = Parallel(layers[0], Identity())
                return Chain(both, Distribute(Chain(*layers), Identity()), Lambda(add))
            case "concatenate":
                return Chain(
                    Concatenate(layers[0], Identity()), nn.Linear(2 * WIDTH, WIDTH), *layers[1:]
                )
            case _:
                return Chain(*layers)

    tree = Chain(*[build(part) for part in spec])
    earlier.clear()  # `build` refers to itself, a cycle that would keep them alive
    return tree


# --- adapters --------------------------------------------------------------------------------


@dataclass(frozen=True)
class EditSpec:
    """One edit of a random adapter, of the seat with the index `seat` modulo their number."""

    kind: str
    seat: int
    stage: str = "branch"


def adapter_specs(
    kinds: tuple[str, ...] = ("wrap", "wrap", "before", "after", "replace", "remove"),
):
    spec = st.builds(
        EditSpec,
        st.sampled_from(kinds),
        st.integers(0, 40),
        st.sampled_from(("inputs", "branch", "output", "around")),
    )
    return st.lists(spec, min_size=1, max_size=5)


class Shift(nn.Module):
    """Changes any floating-point tensors, so that it fits any place."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, *inputs: Any) -> Any:
        moved = tuple(x * (1 + self.by) + self.by if torch.is_tensor(x) else x for x in inputs)
        return moved[0] if len(moved) == 1 else moved


class RandomAdapter(Adapter):
    """An adapter with given edits, which records the seats passed to its callbacks."""

    def __init__(self, specs: Iterable[EditSpec], key: str = "", **options: Any) -> None:
        super().__init__(key=key, **options)
        self.specs = tuple(specs)
        self.seen: list[str] = []

    def edits(self, model: Chain) -> tuple[Edit, ...]:
        seats = select(model).seats
        self.seen.clear()
        edits: tuple[Edit, ...] = ()
        for i, spec in enumerate(self.specs):
            at = Selection(model, (seats[spec.seat % len(seats)],), "one seat")
            match spec.kind:
                case "wrap":
                    edits += at.wrap(self.wrapped(i, spec), stage=spec.stage, name=f"w{i}")
                case "before":
                    edits += at.before(f"b{i}", self.made(i))
                case "after":
                    edits += at.after(f"a{i}", self.made(i))
                case "replace":
                    edits += at.replace(self.made(i), name=f"r{i}")
                case _:
                    edits += at.remove()
        return edits

    def made(self, i: int):
        return lambda seat: self.layer_of(i, seat)

    def wrapped(self, i: int, spec: EditSpec):
        def make(inner: nn.Module, seat: Seat) -> nn.Module:
            layer = self.layer_of(i, seat)
            match spec.stage:
                case "inputs":
                    return Chain(layer, inner)
                case "output":
                    return Chain(inner, layer)
                case _:
                    return Residual(inner, layer)

        return make

    def layer_of(self, i: int, seat: Seat) -> nn.Module:
        self.seen.append(seat.path)
        layers = self.layer(seat, nn.ModuleDict)
        if str(i) not in layers:
            layers[str(i)] = Shift(0.125 * (i + 1) + 0.01 * len(self.key))
        return layers[str(i)]


# --- comparison ------------------------------------------------------------------------------


def outcome(tree: nn.Module) -> Any:
    """Returns the output of a tree for a fixed input, bit for bit, or the name of its error, which
    is as much a part of its behaviour."""
    context = {"note": picture() * 3, "given": picture() * 5}
    try:
        value = tree(picture(), context=context)
    except Exception as error:
        return type(error).__name__
    return bits(value)


def bits(value: Any) -> Any:
    if torch.is_tensor(value):
        return (str(value.dtype), tuple(value.shape), value.detach().contiguous().numpy().tobytes())
    return tuple(map(bits, value)) if isinstance(value, tuple) else value


def chains(tree: Chain) -> list[Chain]:
    """Returns the base chains of a tree, whatever it wears, each once."""
    by_id = {id(tree): tree}
    for seat in select(tree):
        if isinstance(seat.layer, Chain):
            by_id.setdefault(id(seat.layer), seat.layer)
    return list(by_id.values())


def worn_state(tree: Chain) -> Any:
    """Returns the identities of everything that surgery may change; equal means unchanged."""
    return [
        (id(chain), id(chain.__dict__.get("_worn")), id(chain._modules), items(chain._modules))
        for chain in chains(tree)
    ]


def items(mapping: Any) -> tuple[tuple[str, int], ...]:
    return tuple((name, id(layer)) for name, layer in mapping.items())


def attributes(layer: nn.Module) -> list[str]:
    """Returns the attributes of a layer, without the cache of its index."""
    return sorted({*layer.__dict__} - {"_tree_index"})


def bare_state(tree: Chain) -> Any:
    """Returns the whole state of a bare tree, down to the bits of its weights and the identities of
    its objects."""
    every = list(dict.fromkeys([tree, *tree.modules()]))
    return {
        "mappings": [
            (id(chain), id(chain._modules), items(chain._modules)) for chain in chains(tree)
        ],
        "paths": [(seat.path, id(seat.layer), id(seat.chain)) for seat in select(tree)],
        "attributes": [(id(layer), attributes(layer)) for layer in every],
        "hooks": [
            (id(layer), tuple(layer._forward_hooks), tuple(layer._forward_pre_hooks))
            for layer in every
        ],
        "modes": [layer.training for layer in every],
        "keys": list(tree.state_dict()),
        "weights": [
            (name, id(weight), weight.requires_grad, bits(weight))
            for name, weight in [*tree.named_parameters(), *tree.named_buffers()]
        ],
        "outcome": outcome(tree),
    }


def is_bare(tree: Chain) -> bool:
    return all("_worn" not in chain.__dict__ for chain in chains(tree))


def thawed(tree: nn.Module) -> Any:
    return pickle.loads(pickle.dumps(tree))
