"""Hot swap: two adapters of one class swap their weights without an edit of any tree."""

import pytest
import torch
from torch import nn

from refiners_core import Adapter, Chain, Multiply, Scope, Sum, UseContext, When, select
from refiners_core.errors import AdapterError, PlanError

from ..trees import bits, worn_state

x = torch.randn(2, 4, generator=torch.Generator().manual_seed(3))


class Beside(Adapter):
    """A small branch beside every linear layer, and a parameter outside the tree."""

    def __init__(self, rank: int = 2, act: nn.Module | None = None, key: str = "") -> None:
        super().__init__(key=key)
        self.rank, self.act = rank, act or nn.Identity()
        self.bias = nn.Parameter(torch.randn(1))

    def edits(self, model):
        def beside(inner, seat):
            return Sum(inner, self.layer(seat, self.branch))

        return select(model).of(nn.Linear).wrap(beside)

    def branch(self):
        return Chain(down=nn.Linear(4, self.rank), act=self.act, up=nn.Linear(self.rank, 4))


@pytest.fixture
def tree():
    torch.manual_seed(0)
    return Chain(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 4))


def with_layers(tree, adapter):
    return adapter.inject(tree).eject()


def test_a_worn_adapter_computes_with_the_weights_of_the_other(tree):
    a, b = with_layers(tree, Beside()), with_layers(tree, Beside())
    with b.on(tree):
        as_b = bits(tree(x))
    a.inject(tree)
    as_a, worn, bias = bits(tree(x)), worn_state(tree), b.bias
    assert a.hotswap(b) is a
    assert bits(tree(x)) == as_b != as_a
    assert worn_state(tree) == worn
    assert a.bias is bias
    a.hotswap(b)
    assert bits(tree(x)) == as_a


def test_a_hot_swap_compiles_no_new_graph(tree):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    a, b = with_layers(tree, Beside()), with_layers(tree, Beside())
    compiled = torch.compile(tree, backend=backend, fullgraph=True)
    a.inject(tree)
    compiled(x)
    a.hotswap(b)
    assert bits(compiled(x)) == bits(tree(x))
    assert len(graphs) == 1


@pytest.mark.parametrize(
    ("other", "where"),
    [
        (lambda: Beside(rank=3), r"own_layers\.Linear_0\.down"),
        (lambda: Beside(act=nn.ReLU()), r"Linear_0\.act, the one has Identity.*ReLU"),
        (lambda: Beside().double(), r"bias, the one has \[1\] float32 .* float64"),
    ],
)
def test_adapters_that_differ_are_refused_and_nothing_is_changed(tree, other, where):
    a, b = with_layers(tree, Beside(key="a")), other()
    if b.bias.dtype is torch.float32:
        with_layers(tree, b)
    before = [bits(weight) for adapter in (a, b) for weight in adapter.parameters()]
    with pytest.raises(AdapterError, match=where):
        a.hotswap(b)
    assert [bits(weight) for adapter in (a, b) for weight in adapter.parameters()] == before


def test_an_adapter_that_was_never_worn_is_refused(tree):
    with pytest.raises(AdapterError, match=r"own_layers, the one has Linear_0, .*, the other noth"):
        with_layers(tree, Beside()).hotswap(Beside())


def test_the_adapter_itself_and_one_of_another_class_are_refused(tree):
    a = with_layers(tree, Beside(key="a"))
    with pytest.raises(AdapterError, match="the one has Beside, the other itself"):
        a.hotswap(a)
    with pytest.raises(AdapterError, match="the one has Beside, the other Adapter"):
        a.hotswap(Adapter())


class Shared(Adapter):
    """The same layer beside every linear layer, or a separate one beside each."""

    def __init__(self, is_shared: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.build_branch = lambda: Chain(self.linear if is_shared else nn.Linear(4, 4))

    def edits(self, model):
        def beside(inner, seat):
            return Sum(inner, self.layer(seat, self.build_branch))

        return select(model).of(nn.Linear).wrap(beside)


def test_a_layer_in_several_places_swaps_its_weights_once(tree):
    a, b = with_layers(tree, Shared()), with_layers(tree, Shared())
    with b.on(tree):
        as_b = bits(tree(x))
    a.inject(tree)
    a.hotswap(b)
    assert bits(tree(x)) == as_b


def test_layers_that_only_one_adapter_shares_are_refused(tree):
    a, b = with_layers(tree, Shared()), with_layers(tree, Shared(is_shared=False))
    before = [bits(weight) for adapter in (a, b) for weight in adapter.parameters()]
    with pytest.raises(AdapterError, match="has 1 layers with weights, the other 3"):
        a.hotswap(b)
    assert [bits(weight) for adapter in (a, b) for weight in adapter.parameters()] == before


def test_a_cached_index_of_an_adapters_layers_is_not_a_difference(tree):
    a, b = with_layers(tree, Beside()), with_layers(tree, Beside())
    select(a.own_layers.Linear_0)
    assert a.hotswap(b) is a


@pytest.mark.parametrize(("settings", "is_same"), [((2, 2), True), ((2, 3), False)])
def test_tensors_that_are_not_weights_are_settings(tree, settings, is_same):
    a, b = with_layers(tree, Beside()), with_layers(tree, Beside())
    for adapter, value in zip((a, b), settings, strict=True):
        adapter.own_layers.Linear_0.down.setting = torch.full((3,), value)
    if is_same:
        assert a.hotswap(b) is a
    else:
        with pytest.raises(AdapterError, match=r"own_layers\.Linear_0\.down, the one"):
            a.hotswap(b)


def test_weights_stay_while_a_call_is_running(tree):
    a, b = with_layers(tree, Beside()), with_layers(tree, Beside())
    a.inject(tree)
    tree[1].register_forward_hook(lambda *_: a.hotswap(b))
    with pytest.raises(PlanError, match="Chain is running"):
        tree(x)


class Keyed(Adapter):
    """A branch whose layers read context values of the adapter."""

    def __init__(self, *, name: str = "scale", **options):
        super().__init__(**options)
        self.value = name

    def edits(self, model):
        def beside(inner, seat):
            return Sum(inner, self.layer(seat, self.branch))

        return select(model).of(nn.Linear).wrap(beside)

    def branch(self):
        key = self.context_key(self.value)
        return When(
            key,
            Scope(nn.Linear(4, 4), Multiply(key), rebind={"inside": key}),
            UseContext(key) if self.value == "other" else nn.Identity(),
        )


def test_two_loads_of_one_adapter_swap_whatever_their_keys_are(tree):
    a, b = (with_layers(tree, Keyed(key=key)) for key in ("a", "a-2"))
    with b.on(tree):
        as_b = bits(tree(x, context={"a-2.scale": 0.5}))
    a.inject(tree).hotswap(b)
    assert bits(tree(x, context={"a.scale": 0.5})) == as_b


def test_the_difference_is_reported_on_one_line(tree):
    a = with_layers(tree, Keyed(key="a"))
    b = with_layers(tree, Keyed(key="b", name="strength"))
    with pytest.raises(AdapterError, match=r"with on = 'a.scale', the other .*'b.strength'") as it:
        a.hotswap(b)
    assert "\n" not in str(it.value)
    assert len(str(it.value)) < 250
    with pytest.raises(AdapterError, match="cannot swap weights"):  # the key of another adapter
        a.hotswap(with_layers(tree, Keyed(key="a.x".replace(".", "-"), name="y")))
