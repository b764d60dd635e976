"""Faults of other libraries at surgery, each observed by running them; we avoid them."""

import copy
import itertools
import threading
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Context,
    Multiply,
    Passthrough,
    Residual,
    Scope,
    SetContext,
    Sum,
    UseContext,
    When,
    select,
)
from refiners_core.errors import AdapterError, PlanError, TreeError

from ..trees import attributes, bare_state, bits, outcome, thawed, worn_state


class Attention(Chain):
    pass


class Skip(Chain):
    pass


def model() -> Chain:
    """A UNet in its smallest form: attentions, a skip connection and a middle."""
    torch.manual_seed(0)
    return Chain(
        side=nn.Identity(),
        down=Chain(*[Residual(Attention(nn.Linear(4, 4), nn.SiLU())) for _ in range(8)]),
        middle=Chain(Residual(Attention(nn.Linear(4, 4))), nn.LayerNorm(4)),
        skip=Skip(nn.Identity(), nn.Identity()),
    )


class Lora(Adapter):
    def edits(self, model: Chain):
        return select(model).of(nn.Linear).wrap(self.beside, name="lora")

    def beside(self, inner: nn.Module, seat: Any) -> nn.Module:
        return Sum(inner, self.layer(seat, lambda: nn.Linear(4, 4)))


class ImagePrompt(Adapter):
    def edits(self, model: Chain):
        def beside(inner: nn.Module, seat: Any) -> nn.Module:
            layer = self.layer(seat, lambda: nn.Linear(4, 4))
            read = Chain(UseContext(self.context_key("tokens")), layer, Multiply(self.scale_key))
            return Sum(inner, When(self.context_key("tokens"), read))

        return select(model).of(Attention).wrap(beside, name="image")


class Control(Adapter):
    """A side network of the same classes as the base, which runs first and writes its output."""

    def build(self, model: Chain, source: Any) -> None:
        self.network = model.down.copy()  # new chains around the weights of the base
        for path, _ in list(self.network.walk(nn.Linear)):
            block = self.network.layer(path.rpartition(".")[0], Chain)
            block.replace(path.rpartition(".")[2], nn.Linear(4, 4))

    def edits(self, model: Chain):
        key = self.context_key("record")
        run = Passthrough(Scope(self.network), SetContext(key))
        return select(model).named("side").wrap(lambda inner, seat: Chain(inner, run)) + select(
            model
        ).named("middle").wrap(lambda inner, seat: Sum(inner, UseContext(key)), stage="output")


class Free(Adapter):
    """Changes the value of a skip connection before the layers of the base."""

    def edits(self, model: Chain):
        return select(model).of(nn.Identity).within(Skip).before("free", lambda seat: nn.Tanh())


class Gates(Adapter):
    def edits(self, model: Chain):
        place = select(model).of(nn.LayerNorm)
        return place.replace(lambda seat: self.layer(seat, lambda: nn.RMSNorm(4)))


FAMILIES = (Lora, ImagePrompt, Control, Free, Gates)


def names(tree: Chain) -> list[str]:
    return [path for path, _ in tree.walk()]


# --- 1 and 2 ---------------------------------------------------------------------------------


def test_inject_two_eject_two_inject_two_again():
    tree, a, b = model(), Lora(key="a"), Lora(key="b")
    bare = bare_state(tree)
    a.inject(tree)
    b.inject(tree)
    both = outcome(tree)
    a.eject()
    b.eject()
    assert bare_state(tree) == bare
    a.inject(tree)
    b.inject(tree)
    assert outcome(tree) == both


def test_inject_two_eject_the_first_inject_it_again():
    tree, a, b = model(), Lora(key="a"), Lora(key="b")
    a.inject(tree)
    b.inject(tree)
    both, shown = outcome(tree), repr(tree)
    a.eject()
    a.inject(tree)
    assert (outcome(tree), repr(tree)) == (both, shown)


# --- 3 ---------------------------------------------------------------------------------------


def test_a_second_inject_and_a_second_eject_change_nothing():
    tree, adapter, other = model(), Lora(), Lora()
    adapter.inject(tree)
    state = worn_state(tree)
    with pytest.raises(AdapterError):
        adapter.inject(tree)
    with pytest.raises(AdapterError):
        other.eject()
    assert worn_state(tree) == state


# --- 4 ---------------------------------------------------------------------------------------


def test_an_inject_that_fails_at_the_eighth_attention_patches_none():
    class Half(Lora):
        made = itertools.count(1)

        def beside(self, inner: nn.Module, seat: Any) -> nn.Module:
            if next(self.made) == 8:
                raise RuntimeError("half-way")
            return super().beside(inner, seat)

    tree, adapter = model(), Half()
    bare = bare_state(tree)
    with pytest.raises(RuntimeError, match="half-way"):
        adapter.inject(tree)
    assert bare_state(tree) == bare
    adapter.inject(tree).eject()
    assert bare_state(tree) == bare


# --- 5 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pair", list(itertools.permutations(FAMILIES, 2)), ids=lambda p: "-".join(k.__name__ for k in p)
)
@pytest.mark.parametrize("first_out", [0, 1])
def test_every_ordered_pair_restores_whichever_is_ejected_first(pair, first_out):
    tree = model()
    bare = bare_state(tree)
    adapters = [kind().inject(tree) for kind in pair]
    adapters.pop(first_out).eject()
    assert outcome(tree) != bare["outcome"] or isinstance(adapters[0], ImagePrompt)
    adapters.pop().eject()
    assert bare_state(tree) == bare


# --- 6 ---------------------------------------------------------------------------------------


def test_an_eject_puts_back_the_same_layers_with_their_hooks_and_other_patches():
    tree, free, lora = model(), Free(), Lora()
    seen: list[int] = []
    tree.skip[0].register_forward_hook(lambda *_: seen.append(1))
    layers = list(tree.modules())
    lora.inject(tree)
    patched = outcome(tree)
    free.inject(tree)
    free.eject()
    assert outcome(tree) == patched
    lora.eject()
    assert list(tree.modules()) == layers
    assert seen


# --- 7 ---------------------------------------------------------------------------------------


def test_no_adapter_patches_layers_of_another():
    tree, alone = model(), {}
    for kind in FAMILIES:
        adapter = kind().inject(tree)
        alone[kind] = [seat.path for edit in adapter.edits(tree) for seat in edit.seats]
        adapter.eject()
    worn = [kind().inject(tree) for kind in FAMILIES]
    for adapter in worn:
        assert [seat.path for edit in adapter.edits(tree) for seat in edit.seats] == alone[
            type(adapter)
        ]
    assert len(select(tree).of(nn.Linear)) == 9
    assert len(select(tree).of(Attention)) == 9


# --- 8 ---------------------------------------------------------------------------------------


def test_two_image_prompts_at_once_have_separate_values():
    tree = model()
    a, b = ImagePrompt(name="image").inject(tree), ImagePrompt(name="image").inject(tree)
    x, values = torch.ones(2, 4), {}

    def run(*active: Adapter) -> Any:
        given = {adapter.context_key("tokens"): values[adapter] for adapter in active}
        given |= {adapter.scale_key: torch.tensor(1.0) for adapter in active}
        return bits(tree(x, context=given))

    values = {a: torch.randn(2, 4), b: torch.randn(2, 4)}
    nothing, only_a, only_b, both = run(), run(a), run(b), run(a, b)
    assert len({nothing, only_a, only_b, both}) == 4
    b.eject()
    assert run(a) == only_a
    a.eject()
    assert run() == nothing


# --- 10 --------------------------------------------------------------------------------------


def test_contexts_of_a_failed_call_of_an_ejected_adapter_and_of_a_parent_leave_no_trace():
    tree, adapter = model(), ImagePrompt(key="image")
    adapter.inject(tree)
    tokens = torch.randn(2, 4)
    kept = weakref.ref(tokens)
    state = [attributes(layer) for layer in tree.modules()]
    with pytest.raises(RuntimeError):
        tree(torch.ones(2, 5), context={"image.tokens": tokens, "image.scale": 1.0})
    tree(torch.ones(2, 4), context={"image.tokens": tokens, "image.scale": 1.0})
    assert [attributes(layer) for layer in tree.modules()] == state
    del tokens
    assert kept() is None
    adapter.eject()

    nested = Chain(SetContext("a"), Chain(SetContext("b"), UseContext("a")), UseContext("b"))
    context = Context({"a": None})  # None in a parent is not a value to fall back on
    assert nested(3, context=context) == 3
    assert context["a"] == 3


def test_four_threads_on_one_model_get_their_own_results():
    tree = model()
    ImagePrompt(key="image").inject(tree)
    inputs = [torch.randn(2, 4) for _ in range(4)]

    def run(i: int) -> Any:
        given = {"image.tokens": inputs[i], "image.scale": torch.tensor(0.5)}
        return bits(tree(inputs[i], context=given))

    expected, wrong = [run(i) for i in range(4)], []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(25) if run(i) != expected[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- 11 --------------------------------------------------------------------------------------


def test_out_of_memory_stays_out_of_memory_and_is_annotated_once():
    class Full(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    tree = Chain(a=Chain(b=Chain(c=Chain(full=Full()))))
    with pytest.raises(torch.OutOfMemoryError) as caught:
        tree(torch.empty(2, device="meta"))
    (note,) = caught.value.__notes__
    assert note.count("<- here") == 1
    assert "Tensor[2] float32 meta" in note


# --- 12 --------------------------------------------------------------------------------------


def test_an_edit_does_not_rename_neighbours():
    tree = model()
    keys = list(tree.state_dict())
    Gates().inject(tree)
    assert set(keys) - set(tree.state_dict()) == {
        "middle.LayerNorm_1.weight",
        "middle.LayerNorm_1.bias",
    }
    chain = Chain(nn.Linear(1, 1), nn.Linear(1, 1), nn.SiLU())
    chain.pop(0)
    assert names(chain) == ["Linear_1", "SiLU_2"]


def test_a_class_named_like_a_layer_hides_no_layer():
    class Linear_1(nn.Linear):
        pass

    chain = Chain(nn.Linear(1, 1), nn.Linear(1, 1), Linear_1(1, 1))
    assert len(chain) == len(chain.layers(nn.Linear)) == 3
    with pytest.raises(TreeError):
        Chain(nn.Linear(1, 1), Linear_0=nn.Linear(1, 1))


# --- 13 --------------------------------------------------------------------------------------


def test_a_worn_model_is_pickled_and_its_parts_are_copied_alone():
    tree = model()
    bare = outcome(tree)
    Lora().inject(tree)
    assert outcome(thawed(tree)) == bare
    part = copy.deepcopy(tree.middle)
    assert len(list(part.modules())) == len(list(model().middle.modules()))


def test_a_dropped_model_is_freed_without_the_collector():
    tree, adapters = model(), [kind() for kind in FAMILIES]
    for adapter in adapters:
        adapter.inject(tree)
    watched = weakref.ref(tree)
    del tree
    assert watched() is None
    assert not any(adapter.is_worn for adapter in adapters)


# --- 14 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_parameters_of_an_adapter_are_its_own(kind):
    tree = model()
    base = {id(parameter) for parameter in tree.parameters()}
    adapter = kind().inject(tree)
    assert base.isdisjoint(id(parameter) for parameter in adapter.parameters())


# --- 15 --------------------------------------------------------------------------------------


def test_a_tree_with_a_context_compiles_to_one_graph():
    tree = model()
    ImagePrompt(key="image").inject(tree)
    given = {"image.tokens": torch.ones(2, 4), "image.scale": torch.tensor(0.5)}
    compiled = torch.compile(tree, fullgraph=True, backend="eager")
    x = torch.ones(2, 4)
    assert bits(compiled(x, context=given)) == bits(tree(x, context=given))


# --- 16 --------------------------------------------------------------------------------------


def test_a_tree_on_the_meta_device_costs_nothing_and_wears_adapters():
    with torch.device("meta"):
        tree = Chain(*[nn.Linear(4096, 4096) for _ in range(64)])
    adapter = Lora().inject(tree)
    assert {weight.device.type for weight in adapter.parameters()} == {"meta"}


def test_two_adapters_that_replace_one_layer_are_refused():
    tree = model()
    Gates(key="a").inject(tree)
    with pytest.raises(PlanError, match=r"a and b both replace 'middle.LayerNorm_1'"):
        Gates(key="b").inject(tree)
