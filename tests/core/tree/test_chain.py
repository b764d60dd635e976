"""Chains: names, reading and manual edits."""

import pytest
import torch
from torch import nn

from refiners_core import (
    Chain,
    Identity,
    Lambda,
    Layer,
    Parallel,
    Residual,
    Sum,
    UseContext,
    select,
)
from refiners_core.errors import TreeError

from ..trees import EditSpec, RandomAdapter, add


def names(chain: Chain) -> list[str]:
    return [name for name, _ in chain.children_by_name()]


def small() -> Chain:
    return Chain(nn.Linear(2, 3), nn.SiLU(), out=nn.Linear(3, 2))


# --- names -----------------------------------------------------------------------------------


def test_children_are_named_by_class_and_position_or_by_the_caller():
    assert names(small()) == ["Linear_0", "SiLU_1", "out"]


def test_an_edit_never_renames_a_neighbour():
    chain = small()
    chain.insert(0, nn.SiLU())
    assert names(chain) == ["SiLU_0", "Linear_0", "SiLU_1", "out"]
    chain.insert(0, nn.SiLU())  # SiLU_0 and SiLU_1 are taken
    assert names(chain) == ["SiLU_2", "SiLU_0", "Linear_0", "SiLU_1", "out"]
    chain.pop("Linear_0")
    assert names(chain) == ["SiLU_2", "SiLU_0", "SiLU_1", "out"]


@pytest.mark.parametrize(
    "name",
    [
        *("to", "type", "copy", "layers", "find", "walk", "insert", "index", "dtype", "device"),
        *("run", "forward", "training", "_modules", "state_dict", "call"),
        *("a.b", "a+b", "a@b", "a/b", ""),
    ],
)
def test_a_name_that_is_an_attribute_or_looks_like_a_path_is_refused(name):
    with pytest.raises(TreeError, match="cannot name a layer of Chain"):
        Chain(**{name: Identity()})
    with pytest.raises(TreeError, match="cannot name a layer of Chain"):
        Chain().append(Identity(), name=name)


def test_an_attribute_of_a_subclass_is_refused_too():
    class Block(Chain):
        @property
        def width(self) -> int:
            return 4

    with pytest.raises(TreeError, match=r"'width' cannot name a layer of Block.*Try width_layer"):
        Block(width=Identity())


def test_a_name_is_unique_among_siblings():
    class Linear_1(nn.Module):
        pass

    with pytest.raises(TreeError, match="already has a layer named 'SiLU_0'"):
        Chain(nn.SiLU(), SiLU_0=nn.SiLU())
    assert names(Chain(nn.Linear(1, 1), nn.Linear(1, 1), Linear_1())) == [
        "Linear_0",
        "Linear_1",
        "Linear_1_2",
    ]


@pytest.mark.parametrize("child", [None, 3, torch.relu, "Linear", nn.Linear])
def test_a_child_that_is_not_a_module_is_refused(child):
    with pytest.raises(TreeError, match=r"not a module.*Lambda"):
        Chain(child)


def test_a_layer_that_defines_forward_is_refused_where_it_is_defined():
    with pytest.raises(TreeError, match=r"Wrong defines forward.*run\(self, context"):

        class Wrong(Layer):
            def forward(self, x):
                return x


def test_a_layer_without_run_names_the_missing_method():
    with pytest.raises(TypeError, match="Empty does not define run"):
        type("Empty", (Layer,), {})()(1)


# --- reading ---------------------------------------------------------------------------------


def test_children_are_read_by_attribute_position_and_name():
    chain = small()
    assert chain.out is chain[2] is chain[-1] is chain["out"] is list(chain)[2]
    assert len(chain) == 3
    assert chain[0] in chain
    assert nn.Linear(2, 3) not in chain


def test_a_missing_child_is_reported_with_those_that_exist():
    chain = Chain(down=small())
    with pytest.raises(TreeError, match=r"no layer named 'outt' in Chain.*Linear_0.*mean 'out'"):
        chain.layer("down.outt")
    with pytest.raises(TreeError, match=r"is a SiLU, not a Linear. Try select\(tree\).of\(Linear"):
        chain.layer("down.SiLU_1", nn.Linear)
    with pytest.raises(TreeError, match="has 1 layers, so no layer 3"):
        chain[3]
    with pytest.raises(AttributeError, match="no attribute 'up'"):
        _ = chain.up


def test_a_path_leads_through_containers_of_torch_too():
    linear = nn.Linear(2, 2)
    chain = Chain(block=nn.Sequential(linear, nn.ModuleList([nn.SiLU()])))
    assert chain.layer("block.0", nn.Linear) is linear
    assert isinstance(chain.layer("block.1.0"), nn.SiLU)


def test_a_layer_in_two_seats_has_two_paths():
    linear = nn.Linear(2, 2)
    chain = Chain(a=linear, b=Chain(linear, linear))
    assert [path for path, _ in chain.walk(nn.Linear)] == ["a", "b.Linear_0", "b.Linear_1"]
    assert chain.layer("b.Linear_1") is linear
    assert len(list(chain.parameters())) == 2


def test_a_chain_in_two_places_is_walked_once():
    inner = Chain(nn.Linear(2, 2))
    tree = Chain(a=inner, b=inner)
    assert [path for path, _ in tree.walk()] == ["a", "a.Linear_0", "b"]
    assert [seat.path for seat in select(tree)] == ["a", "a.Linear_0", "b"]
    assert torch.equal(tree(torch.ones(1, 2)), inner(inner(torch.ones(1, 2))))


def test_walk_find_and_layers_include_layers_of_adapters():
    tree = Chain(nn.Linear(4, 4), Residual(nn.SiLU(), nn.Linear(4, 4)))
    assert tree.find(nn.SiLU) is tree[1][0]
    assert tree.find(nn.Conv2d) is None
    assert len(tree.layers(nn.Linear)) == 2
    adapter = RandomAdapter([EditSpec("before", 0)]).inject(tree)
    assert tree.find(type(adapter.own_layers.Linear_0["0"])) is not None


def test_base_layers_keep_their_names_while_an_adapter_wraps_them():
    tree = Chain(down=Chain(conv=nn.Linear(4, 4)))
    conv = tree.down.conv
    adapter = RandomAdapter([EditSpec("wrap", 1)], key="lora").inject(tree)
    assert tree.down.conv is conv
    assert tree.layer("down.conv") is conv
    assert isinstance(tree.layer("down.conv+w0@lora"), Residual)
    adapter.eject()


def test_device_and_dtype_are_those_of_the_first_floating_point_weight():
    tree = Chain(nn.SiLU(), Chain(nn.Linear(2, 2)))
    assert (tree.dtype, tree.device.type) == (torch.float32, "cpu")
    tree.to(torch.bfloat16)
    assert tree.dtype == torch.bfloat16
    assert Chain().dtype == torch.get_default_dtype()


# --- building by hand ------------------------------------------------------------------------


def test_edit_methods_behave_as_those_of_lists():
    chain, relu = Chain(), nn.ReLU()
    assert chain.append(nn.SiLU()).append(relu, name="last") is chain
    assert chain.index(relu) == 1
    chain.insert(-1, Identity())
    assert names(chain) == ["SiLU_0", "Identity_1", "last"]
    chain.insert(99, Identity())
    chain.insert(-99, Identity(), name="first")
    assert names(chain) == ["first", "SiLU_0", "Identity_1", "last", "Identity_3"]
    old = chain.replace("last", nn.Tanh())
    assert old is relu
    assert isinstance(chain.last, nn.Tanh)
    assert isinstance(chain.pop(), nn.Identity)
    assert chain.pop("last") not in chain
    chain.remove(chain[1])
    assert names(chain) == ["first", "Identity_1"]


def test_edit_methods_report_missing_children():
    chain = small()
    for do in (
        lambda: chain.index(nn.SiLU()),
        lambda: chain.remove(nn.SiLU()),
        lambda: chain.pop("missing"),
        lambda: chain.pop(7),
        lambda: chain.replace("missing", Identity()),
        lambda: chain.replace(0, None),
        lambda: Chain(inner=chain).pop("inner.out"),
    ):
        with pytest.raises(TreeError):
            do()
    assert names(chain) == ["Linear_0", "SiLU_1", "out"]


def test_a_slice_is_a_plain_chain_of_the_same_layers():
    chain = Residual(nn.Linear(2, 2), nn.SiLU(), nn.Linear(2, 2)).eval()
    part = chain[1:]
    assert type(part) is Chain
    assert names(part) == ["SiLU_1", "Linear_2"]
    assert part[1] is chain[2]
    assert not part.training
    part.pop()
    assert len(chain) == 3


def test_a_copy_has_new_chains_around_the_same_weights():
    shared = Chain(nn.Linear(2, 2))
    tree = Chain(a=shared, b=Sum(shared, nn.SiLU()), plain=nn.Sequential(nn.Linear(2, 2))).eval()
    tree.a.register_forward_hook(lambda *_: None)
    tree.note = "an attribute"
    twin = tree.copy()
    assert type(twin.b) is Sum
    assert twin.a is twin.b[0]  # aliasing is kept
    assert twin.a is not tree.a
    assert [id(p) for p in twin.parameters()] == [id(p) for p in tree.parameters()]
    assert (twin.training, twin.note, len(twin.a._forward_hooks)) == (False, "an attribute", 1)
    twin.a.append(nn.SiLU())
    twin.b.register_forward_hook(lambda *_: None)
    assert len(tree.a) == 1
    assert not tree.b._forward_hooks


def test_a_copy_of_a_worn_tree_is_bare():
    tree = Chain(nn.Linear(4, 4))
    x = torch.randn(2, 4)
    before = tree(x)
    RandomAdapter([EditSpec("wrap", 0)]).inject(tree)
    assert torch.equal(tree.copy()(x), before)
    assert not torch.equal(tree(x), before)


# --- flow ------------------------------------------------------------------------------------


def test_a_tuple_becomes_the_inputs_of_the_next_layer():
    tree = Chain(Parallel(Identity(), nn.Flatten()), Lambda(add))
    assert torch.equal(tree(torch.ones(1, 2)), 2 * torch.ones(1, 2))
    assert torch.equal(Chain(Lambda(add))(torch.ones(1), torch.ones(1)), torch.full((1,), 2.0))


def test_an_empty_chain_passes_its_inputs_on():
    assert Chain()(3) == 3
    assert Chain()(3, 4) == (3, 4)
    assert Chain(UseContext("x"))(context={"x": 5}) == 5


def test_modes_reach_every_layer():
    tree = Chain(Residual(nn.Dropout(0.5)), nn.Dropout(0.5))
    x = torch.ones(64)
    assert not torch.equal(tree(x), x)
    tree.eval()
    assert torch.equal(tree(x), 2 * x)
    assert not any(layer.training for layer in tree.modules())


# --- selecting -------------------------------------------------------------------------------


def test_a_selection_sees_every_later_manual_edit():
    tree = Chain(a=Chain(nn.Linear(2, 2)), b=nn.Linear(2, 2))

    def linears() -> list[str]:
        return [seat.path for seat in select(tree).of(nn.Linear)]

    assert linears() == ["a.Linear_0", "b"]
    tree.a.append(nn.Linear(2, 2))
    assert linears() == ["a.Linear_0", "a.Linear_1", "b"]
    tree.b = nn.SiLU()
    assert linears() == ["a.Linear_0", "a.Linear_1"]
    tree.a._modules["Linear_0"] = nn.Tanh()
    assert linears() == ["a.Linear_1"]
    tree.a = Chain(c=nn.Linear(2, 2))
    assert linears() == ["a.c"]
    del tree.a
    assert linears() == []


def test_a_selection_sees_a_layer_that_changed_its_class_in_place():
    tree = Chain(nn.LazyLinear(2), Chain(nn.SiLU()))
    assert len(select(tree).of(nn.LazyLinear)) == 1
    tree(torch.zeros(1, 2))  # turns the LazyLinear into a Linear
    assert len(select(tree).of(nn.LazyLinear)) == 0
    assert type(select(tree)[0].layer) is nn.Linear
    torch.nn.utils.parametrizations.weight_norm(tree[0])
    assert len(select(tree).of(type(tree[0]))) == 1


def test_selections_are_narrowed_and_printed():
    tree = Chain(down=Residual(nn.Linear(2, 2), nn.SiLU()), up=Sum(nn.Linear(2, 2)))
    linears = select(tree).of(nn.Linear)
    assert [seat.path for seat in linears.within(Residual)] == ["down.Linear_0"]
    assert [seat.path for seat in linears.where(lambda seat: seat.chain is tree.up)] == [
        "up.Linear_0"
    ]
    assert [seat.path for seat in select(tree).named("up", "down")] == ["down", "up"]
    assert linears.first().expect(1)[0].layer is tree.down[0]
    assert repr(linears) == (
        "select(Chain).of(Linear): 2 seats\n  down.Linear_0: Linear\n  up.Linear_0: Linear"
    )
    assert repr(linears[0]) == "Seat(down.Linear_0: Linear)"
