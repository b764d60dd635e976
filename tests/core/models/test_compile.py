"""`model.compile()`: every kind of block is compiled once, whatever is worn and in what order."""

import copy
import gc
import itertools
import pickle
import weakref

import pytest
import torch
from torch import nn

from refiners_core import Adapter, Chain, Lambda, Model, Sum, select
from refiners_core.errors import ModelError
from refiners_core.layers.residual_block import ResidualBlock
from refiners_core.layers.transformer import TransformerBlock
from refiners_core.surgery.block_compiler import compile_blocks
from refiners_core.tree.show import show


class Counted:
    """A backend that counts the graphs it is given."""

    def __init__(self):
        torch.compiler.reset()
        self.graphs = 0

    def __call__(self, graph, _):
        self.graphs += 1
        return graph


class Scaled(Adapter):
    """Adds a branch with weights, and a fact of its own, to each cross-attention."""

    def __init__(self, factor, key=""):
        super().__init__(key=key)
        self.factor = factor

    def edits(self, model):
        def beside(inner, seat):
            width = seat.layer.in_features
            added = self.layer(seat, lambda: Chain(nn.Linear(width, width), Times(self.factor)))
            return Sum(inner, added)

        return model.slot("unet.cross_attention").wrap(
            lambda inner, seat: Sum(inner, Lambda(nothing))
        ) + select(model.unet).of(nn.Linear).within(TransformerBlock).where(is_square).wrap(beside)


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def nothing(x):
    return x * 0


def is_square(seat):
    return seat.layer.in_features == seat.layer.out_features


@pytest.fixture
def call(model):
    """Runs the UNet of the tiny model."""
    model.eval().requires_grad_(False)
    torch.manual_seed(1)
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 8)

    @torch.no_grad()
    def run():
        return model.unet(latents, context={"timestep": torch.tensor(7), "text": text})

    return run


def kinds_of(model):
    """The blocks of the UNet as they are printed, each once."""
    blocks = select(model.unet).of(ResidualBlock, TransformerBlock)
    return {show(seat.layer) for seat in blocks}


def test_blocks_that_are_printed_alike_are_compiled_once(model, call):
    counted, eager = Counted(), call()
    model.compile(backend=counted)
    assert counted.graphs == 0
    assert call().equal(eager)
    assert counted.graphs == len(kinds_of(model)) < len(select(model.unet).of(ResidualBlock)) + 2
    assert call().equal(eager)
    assert counted.graphs == len(kinds_of(model))


@pytest.mark.parametrize("count", [4, pytest.param(12, marks=pytest.mark.slow)])
def test_a_set_of_adapters_is_compiled_once(count, model, call):
    adapters = [Scaled(factor, key=f"scaled-{factor}") for factor in (2, 3, 4, 5)]
    sets = [chosen for n in range(4) for chosen in itertools.combinations(adapters, n)][:count]
    counted, expected = Counted(), []
    for chosen in sets:
        for adapter in chosen:
            adapter.inject(model)
        expected.append(call())
        model.eject_all()
    model.compile(backend=counted)
    graphs = []
    for turn in range(2):
        for chosen, eager in zip(sets, expected, strict=True):
            for adapter in chosen[:: 1 - 2 * turn]:  # the second time in the other order
                adapter.inject(model)
            assert call().equal(eager)
            graphs.append(counted.graphs)
            model.eject_all()
    assert len(sets) == count
    assert sorted(set(graphs)) == graphs[:count]
    assert graphs[count:] == [graphs[count - 1]] * count


@pytest.mark.slow
def test_any_number_of_sizes_is_compiled_twice_at_most(model):
    model.eval().requires_grad_(False)
    counted = Counted()
    model.compile(backend=counted)
    arguments = {"seed": 1, "steps": 1, "output": "latents", "progress": False}
    graphs = []
    for side in range(16, 16 + 10 * 8, 8):
        model.generate("a", size=side, **arguments)
        graphs.append(counted.graphs)
    assert graphs[0] < graphs[1]
    assert graphs[3:] == [graphs[3]] * 7


def test_a_hot_swap_compiles_nothing(model, call):
    chosen, other = Scaled(2, key="one"), Scaled(2, key="other")
    other.inject(model)
    expected = call()
    other.eject()
    counted = Counted()
    model.compile(backend=counted)
    chosen.inject(model)
    assert not call().equal(expected)
    graphs = counted.graphs
    chosen.hotswap(other)
    assert call().equal(expected)
    assert counted.graphs == graphs


def test_compiled_blocks_of_every_component_generate(model):
    arguments = {"seed": 1, "steps": 2, "output": "tensor", "progress": False}
    counted, eager = Counted(), model.eval().generate("a", **arguments)
    model.compile(backend=counted)
    assert model.generate("a", **arguments).equal(eager)
    graphs, decoder = counted.graphs, model.autoencoder["decoder"]
    called = (model.text_encoder, model.unet, decoder)
    blocks = [seat.layer for part in called for seat in select(part).of(*model.repeated)]
    # Blocks of a decoder may be printed alike and see pictures of several sizes.
    assert len({show(block) for block in blocks}) <= graphs < len(blocks)
    assert all(block._compiled_call_impl.epoch >= 0 for block in blocks)
    assert model.generate("a", **arguments).equal(eager)
    assert counted.graphs == graphs


def test_hooks_that_are_set_before_are_called(model, call):
    block = select(model.unet).of(TransformerBlock)[0].layer
    block.register_forward_hook(lambda layer, inputs, output: output + 1)
    eager = call()
    model.compile(backend=Counted())
    assert call().equal(eager)


@pytest.mark.parametrize("path", ["", "inner.leaf"])
@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_on_one_of_several_blocks_that_are_printed_alike_are_called(path, hook):
    class Block(Chain):
        pass

    tree = Chain(*(Block(inner=Chain(leaf=nn.Linear(4, 4)), last=nn.SiLU()) for _ in range(3)))
    tree.requires_grad_(False)
    hooked = tree[1].layer(path) if path else tree[1]
    getattr(hooked, hook)(lambda layer, inputs, *_: inputs[0] + 1)
    x = torch.randn(2, 4)
    eager, counted = tree(x), Counted()
    compile_blocks(tree, [Block], {"backend": counted, "fullgraph": True})
    assert tree(x).equal(eager)
    assert counted.graphs == 2


def test_calls_of_one_row_do_not_count_against_the_limit_of_those_of_several():
    class Block(Chain):
        pass

    tree, counted = Chain(Block(nn.Linear(2, 2))), Counted()
    compile_blocks(tree, [Block], {"backend": counted, "fullgraph": True, "dynamic": False})
    sizes = [(rows, tokens) for rows in (1, 3) for tokens in range(2, 7)]
    for rows, tokens in sizes:
        tree(torch.ones(rows, tokens, 2))
    assert counted.graphs == len(sizes) == 10, "more than torch's limit of eight"


def test_a_copy_is_not_compiled(model, call):
    eager = call()
    model.compile(backend=Counted())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not any("_compiled_call_impl" in layer.__dict__ for layer in twin.modules())
    assert call().equal(eager)


def test_a_compiled_model_that_nobody_holds_is_freed(build_tiny):
    model = build_tiny()
    model.compile(backend=Counted())
    gc.collect()
    gc.disable()
    try:
        watched = [weakref.ref(layer) for layer in model.modules()]
        del model
        assert not [ref() for ref in watched if ref() is not None]
    finally:
        gc.enable()


def test_compiling_a_family_without_repeated_blocks_is_refused():
    with pytest.raises(ModelError, match=r"Model does not define which .* `repeated`"):
        Model(base="none", facts={}, slots={}, part=Chain()).compile()


@pytest.mark.slow
def test_blocks_are_compiled_to_machine_code(model, call):
    torch.compiler.reset()
    model.compile()
    adapter = Scaled(2)
    for worn in (False, True):
        if worn:
            adapter.inject(model)
        compiled = call()
        for layer in model.modules():
            layer.__dict__.pop("_compiled_call_impl", None)
        torch.testing.assert_close(compiled, call(), rtol=1e-4, atol=1e-5)
        model.compile()
