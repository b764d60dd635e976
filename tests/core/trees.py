"""Random trees, random adapters, and what is compared of them.

A tree or an adapter is drawn as a small value that prints itself in a failing example, and built
from that value, the same each time.
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
    """Draws a root and its children: names of leaves, and tuples of a chain's name and children."""
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
    """Builds a tree in which every layer keeps the width; `again` seats an earlier layer once more,
    so leaves and chains come to sit in two places."""
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
class Said:
    """One edit of a random adapter: what becomes of the seat that `seat` counts to."""

    kind: str
    seat: int
    stage: str = "branch"


def adapter_specs(
    kinds: tuple[str, ...] = ("wrap", "wrap", "before", "after", "replace", "remove"),
):
    said = st.builds(
        Said,
        st.sampled_from(kinds),
        st.integers(0, 40),
        st.sampled_from(("inputs", "branch", "output")),
    )
    return st.lists(said, min_size=1, max_size=5)


class Shift(nn.Module):
    """Changes whatever floating-point tensors pass, so that it fits any place."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, *inputs: Any) -> Any:
        moved = tuple(x * (1 + self.by) + self.by if torch.is_tensor(x) else x for x in inputs)
        return moved[0] if len(moved) == 1 else moved


class Wild(Adapter):
    """Says the edits that it was given, and remembers which seats its callbacks were handed."""

    def __init__(self, said: Iterable[Said], key: str = "", **options: Any) -> None:
        super().__init__(key=key, **options)
        self.said = tuple(said)
        self.seen: list[str] = []

    def edits(self, model: Chain) -> tuple[Edit, ...]:
        seats = select(model).seats
        self.seen.clear()
        edits: tuple[Edit, ...] = ()
        for i, said in enumerate(self.said):
            at = Selection(model, (seats[said.seat % len(seats)],), "one seat")
            match said.kind:
                case "wrap":
                    edits += at.wrap(self.wrapped(i, said), stage=said.stage, name=f"w{i}")
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
        return lambda seat: self.own(i, seat)

    def wrapped(self, i: int, said: Said):
        def make(inner: nn.Module, seat: Seat) -> nn.Module:
            own = self.own(i, seat)
            match said.stage:
                case "inputs":
                    return Chain(own, inner)
                case "output":
                    return Chain(inner, own)
                case _:
                    return Residual(inner, own)

        return make

    def own(self, i: int, seat: Seat) -> nn.Module:
        self.seen.append(seat.path)
        layers = self.layer(seat, nn.ModuleDict)
        if str(i) not in layers:
            layers[str(i)] = Shift(0.125 * (i + 1) + 0.01 * len(self.key))
        return layers[str(i)]


# --- what is compared ------------------------------------------------------------------------


def outcome(tree: nn.Module) -> Any:
    """What a tree makes of a fixed input, bit for bit; or the error that it raises, which is as
    much a part of what it does."""
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
    """The tree's own chains, whatever it wears, each once."""
    found = {id(tree): tree}
    for seat in select(tree):
        if isinstance(seat.layer, Chain):
            found.setdefault(id(seat.layer), seat.layer)
    return list(found.values())


def worn_state(tree: Chain) -> Any:
    """Everything that surgery may touch, as identities: equal means that nothing was touched."""
    return [
        (id(chain), id(chain.__dict__.get("_worn")), id(chain._modules), items(chain._modules))
        for chain in chains(tree)
    ]


def items(mapping: Any) -> tuple[tuple[str, int], ...]:
    return tuple((name, id(layer)) for name, layer in mapping.items())


def attributes(layer: nn.Module) -> list[str]:
    """What a layer has, but for what every layer gets as soon as it is asked for it."""
    return sorted({*layer.__dict__} - {"_tree_index"})


def bare_state(tree: Chain) -> Any:
    """Everything that a bare tree is, down to the bits of its weights and the objects in it."""
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
