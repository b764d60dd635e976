"""Refusals: each states the request, the state of the tree, and what to type."""

import threading

import pytest
import torch
from torch import nn

from refiners_core import Adapter, Chain, Lambda, Parallel, Residual, SetContext, Sum, select
from refiners_core.errors import AdapterError, PlanError, RefinersError, SelectionError
from refiners_core.surgery.plan import worn
from refiners_core.tree.layer import running

from ..trees import EditSpec, RandomAdapter, bare_state, outcome, worn_state


def tiny() -> Chain:
    return Chain(down=Chain(conv=nn.Linear(4, 4), act=nn.SiLU()), up=nn.Linear(4, 4))


def refused(error: type[RefinersError], match: str):
    return pytest.raises(error, match=match)


def test_a_second_inject_is_refused_before_anything_happens():
    tree, adapter = tiny(), RandomAdapter([EditSpec("wrap", 0)], key="lora")
    adapter.inject(tree)
    state = worn_state(tree)
    for target in (tree, tiny()):
        with refused(AdapterError, "lora is worn already. Call its eject"):
            adapter.inject(target)
    assert worn_state(tree) == state


def test_an_adapter_that_is_not_worn_cannot_be_ejected():
    tree, adapter = tiny(), RandomAdapter([EditSpec("wrap", 0)], key="lora")
    bare = bare_state(tree)
    with refused(AdapterError, "lora is not worn. Call its inject"):
        adapter.eject()
    adapter.inject(tree).eject()
    with refused(AdapterError, "lora is not worn"):
        adapter.eject()
    assert bare_state(tree) == bare


def test_two_adapters_of_one_key_are_refused():
    tree = tiny()
    RandomAdapter([EditSpec("wrap", 0)], key="lora").inject(tree)
    with refused(PlanError, "already wears an adapter with the key 'lora'.*another key"):
        RandomAdapter([EditSpec("wrap", 1)], key="lora").inject(tree)


def test_keys_are_numbered_and_sorted_by_number():
    adapters = [RandomAdapter([], name="numbered") for _ in range(11)]
    assert [a.key for a in adapters[:2]] == ["numbered", "numbered-2"]
    assert sorted(adapters, key=lambda a: a.order) == adapters


@pytest.mark.parametrize("key", ["a.b", "a@b", "a+b", "a/b"])
def test_a_key_with_a_separator_of_paths_is_refused(key):
    with refused(AdapterError, "cannot be the key of an adapter"):
        RandomAdapter([], key=key)


@pytest.mark.parametrize(
    "kinds", [("replace", "replace"), ("replace", "remove"), ("remove", "wrap")]
)
@pytest.mark.parametrize("is_turned", [False, True])
def test_conflicting_edits_of_one_seat_are_refused_in_either_order(kinds, is_turned):
    tree = tiny()
    first, second = (
        RandomAdapter([EditSpec(kind, 1)], key=key) for kind, key in zip(kinds, "ab", strict=True)
    )
    if is_turned:
        first, second = second, first
    first.inject(tree)
    state = worn_state(tree)
    with refused(PlanError, "'down.conv'") as caught:
        second.inject(tree)
    assert "Eject" in caught.value.hint
    assert worn_state(tree) == state


def test_a_seat_may_be_replaced_by_one_adapter_and_wrapped_by_another():
    tree = tiny()
    for kind, key in (("replace", "a"), ("wrap", "b")):
        RandomAdapter([EditSpec(kind, 1)], key=key).inject(tree)
    assert {adapter.key for adapter in worn(tree)} == {"a", "b"}


@pytest.mark.parametrize("kind", ["replace", "remove"])
@pytest.mark.parametrize("is_turned", [False, True])
def test_an_edit_inside_a_replaced_layer_is_refused_in_either_order(kind, is_turned):
    tree = tiny()
    outer, inner = (
        RandomAdapter([EditSpec(kind, 0)], key="outer"),
        RandomAdapter([EditSpec("wrap", 1)], key="inner"),
    )
    first, second = (inner, outer) if is_turned else (outer, inner)
    first.inject(tree)
    state = worn_state(tree)
    with refused(PlanError, f"inner edits 'down.conv', inside 'down', which outer {kind}s"):
        second.inject(tree)
    assert worn_state(tree) == state


def test_two_layers_of_one_name_are_refused():
    class Twice(Adapter):
        def edits(self, model: Chain):
            place = select(model).named("conv")
            return place.before("norm", lambda _: nn.SiLU()) + place.after(
                "norm", lambda _: nn.SiLU()
            )

    with refused(PlanError, "two edits would name a layer of Chain 'conv\\+norm@twice'"):
        Twice(key="twice").inject(tiny())


def test_a_seat_of_another_tree_is_refused():
    other = tiny()

    class Astray(Adapter):
        def edits(self, model: Chain):
            return select(other).named("conv").remove()

    with refused(PlanError, "'down.conv', which is not a place in Chain"):
        Astray().inject(tiny())


def test_a_seat_that_is_gone_is_refused():
    tree = tiny()
    old = select(tree).named("conv")
    tree.down.pop("conv")

    class Late(Adapter):
        def edits(self, model: Chain):
            return old.remove()

    with refused(PlanError, "'down.conv', which is not a place"):
        Late().inject(tree)
    with refused(SelectionError, "the tree no longer has a layer at 'down.conv'"):
        _ = old[0].layer


def test_a_module_that_is_not_a_chain_is_refused():
    with refused(AdapterError, "into a model or a Chain, not into Linear"):
        RandomAdapter([]).inject(nn.Linear(4, 4))  # pyright: ignore
    with refused(SelectionError, "takes a Chain, not a Linear"):
        select(nn.Linear(4, 4))  # pyright: ignore


def test_a_wrong_count_lists_the_selected_seats():
    with refused(SelectionError, r"of\(Linear\) should find 3 seats but finds 2: down.conv, up"):
        select(tiny()).of(nn.Linear).expect(3)
    with refused(SelectionError, "should find at least 1 seat but finds 0: nothing"):
        select(tiny()).of(nn.Conv2d).first()


def test_an_unknown_stage_and_an_impossible_name_are_refused():
    place = select(tiny()).named("conv")
    with refused(
        PlanError, "no stage named 'middle'; the stages are inputs, branch, output and around"
    ):
        place.wrap(lambda inner, seat: inner, stage="middle")  # pyright: ignore
    with refused(PlanError, "'a.b' cannot name an edit"):
        place.before("a.b", lambda seat: nn.SiLU())


class Meddler(nn.Module):
    """Runs a function in the middle of a call, and keeps its error."""

    def __init__(self) -> None:
        super().__init__()
        self.do = lambda: None
        self.error: Exception | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            self.do()
        except RefinersError as error:
            self.error = error
        return x


@pytest.mark.parametrize("where", ["the tree", "a part of it"])
def test_surgery_on_a_running_tree_or_a_part_of_it_is_refused(where):
    meddler = Meddler()
    tree = Chain(unet=Chain(Residual(nn.Linear(4, 4)), meddler), out=Parallel(Sum(nn.SiLU())))
    target = tree if where == "the tree" else tree.unet
    worn, other = (RandomAdapter([EditSpec("wrap", 0)], key=key) for key in ("worn", "other"))
    worn.inject(target)
    before = outcome(tree)
    state = worn_state(tree)
    for do, what in ((worn.eject, "eject worn"), (lambda: other.inject(target), "inject other")):
        meddler.do = do
        assert outcome(tree) == before
        assert isinstance(meddler.error, PlanError)
        assert f"cannot {what}: Chain is running" in str(meddler.error)
        assert worn_state(tree) == state
    other.inject(target)
    worn.eject()


def test_another_tree_can_be_operated_on_meanwhile():
    meddler, other, adapter = Meddler(), tiny(), RandomAdapter([EditSpec("wrap", 0)])
    meddler.do = lambda: adapter.inject(other)
    Chain(meddler)(torch.zeros(1, 4))
    assert meddler.error is None
    assert adapter.is_worn


def test_a_call_in_another_thread_is_a_running_call():
    entered, go_on = threading.Event(), threading.Event()
    meddler = Meddler()
    meddler.do = lambda: (entered.set(), go_on.wait(10))
    tree, adapter = Chain(nn.Linear(4, 4), meddler), RandomAdapter([EditSpec("wrap", 0)])
    thread = threading.Thread(target=lambda: tree(torch.zeros(1, 4)))
    thread.start()
    assert entered.wait(10)
    with refused(PlanError, "is running"):
        adapter.inject(tree)
    go_on.set()
    thread.join()
    adapter.inject(tree)


def test_several_calls_can_be_marked_as_one():
    tree, adapter = tiny(), RandomAdapter([EditSpec("wrap", 0)])
    with running(tree), refused(PlanError, "is running"):
        adapter.inject(tree.down)
    adapter.inject(tree.down)


def test_a_call_that_failed_is_no_longer_running():
    tree = Chain(Lambda(lambda x: x.no_such_thing))
    with pytest.raises(AttributeError):
        tree(torch.zeros(1))
    RandomAdapter([EditSpec("wrap", 0)]).inject(tree).eject()


def test_an_adapter_stays_with_its_first_family():
    class Family(Chain):
        base = "sd15"

    tree = Family(nn.Linear(4, 4))
    adapter = RandomAdapter([EditSpec("wrap", 0)], key="lora").inject(tree).eject()
    with refused(AdapterError, "lora was made for sd15; this model is Chain"):
        adapter.inject(tiny())


def test_an_adapter_that_takes_no_condition_refuses_one():
    with refused(RefinersError, "lora takes no condition"):
        RandomAdapter([], key="lora").encode("a picture", None)


def test_layers_that_an_adapter_stores_as_attributes_are_accepted():
    tree = Chain(keys=nn.Linear(4, 4), values=nn.Linear(4, 4), pop_=SetContext("x"))
    RandomAdapter([EditSpec("wrap", 0), EditSpec("wrap", 1)]).inject(tree).eject()


def test_one_adapter_finds_its_layers_however_it_selected_their_seats():
    class TwoRoots(Adapter):
        def edits(self, model: Chain):
            places = (select(model.unet), select(model.text))
            return sum((p.of(nn.Linear).wrap(self.beside) for p in places), ())

        def build(self, model: Chain, source: object) -> None:
            for seat in (*select(model.unet), *select(model.text)):
                self.layer(seat, lambda: nn.Linear(4, 4))

        def beside(self, inner: nn.Module, seat: object) -> nn.Module:
            return Sum(inner, self.layer(seat, lambda: 1 / 0))

    tree = Chain(unet=Chain(nn.Linear(4, 4)), text=Chain(nn.Linear(4, 4)))
    adapter = TwoRoots().inject(tree)
    assert list(adapter.own_layers._modules) == ["unet/Linear_0", "text/Linear_0"]
    unet, text = adapter.own_layers.values()
    assert unet is not text
