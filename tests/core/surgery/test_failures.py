"""Law 3: an inject or eject that fails anywhere changes nothing."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import nn

from refiners_core import Adapter, Chain, Residual, Sum, hookspecs, select
from refiners_core.errors import AdapterError, PlanError, RefinersError
from refiners_core.surgery import plan

from ..trees import (
    RandomAdapter,
    adapter_specs,
    bare_state,
    build_tree,
    outcome,
    tree_specs,
    worn_state,
)

FEW = settings(max_examples=max(60, settings.default.max_examples // 4))
STEPS = (
    "weights",
    "build",
    "edits",
    "callback",
    "nothing made",
    "swap",
    "before hook",
    "after hook",
)


class Boom(BaseException):
    """A failure that is not an `Exception`, like a keyboard interrupt."""


class Fragile(RandomAdapter):
    """An adapter that fails at a chosen step, after a number of calls."""

    fails_at = ""
    after = 0

    def arm(self, step: str, after: int) -> None:
        happens_often = step in ("callback", "swap")
        self.fails_at, self.after = step, after if happens_often else 0

    def count_down(self, step: str) -> None:
        if self.fails_at == step:
            self.after -= 1
            if self.after < 0:
                raise Boom(step)

    def build(self, model: Chain, source: Any) -> None:
        self.side_network = nn.Linear(4, 4)
        self.fact = "of this model"
        self.count_down("build")

    def edits(self, model: Chain):
        edits = super().edits(model)
        self.count_down("edits")
        return edits

    def layer_of(self, i: int, seat: Any) -> nn.Module:
        layer = super().layer_of(i, seat)
        self.count_down("callback")
        if self.fails_at == "nothing made":
            return None  # pyright: ignore
        return layer


def fragile(specs: Any, step: str, after: int) -> Fragile:
    def choose(model: Chain) -> Any:
        adapter.count_down("weights")
        return None

    adapter = Fragile(specs, key="fragile", weights=choose)
    adapter.arm(step, after)
    return adapter


class failing_swaps:
    """Lets a number of swaps through and fails at the next, once: between two of one operation."""

    def __init__(self, adapter: Fragile) -> None:
        self.adapter = adapter

    def __enter__(self) -> None:
        self.wear = plan._wear

        def wear(*args: Any) -> None:
            try:
                self.adapter.count_down("swap")
            except Boom:
                self.adapter.fails_at = ""  # the rollback must not fail as well
                args[0].__dict__["_modules"] = args[2]  # half of a swap is done
                raise
            self.wear(*args)

        plan._wear = wear

    def __exit__(self, *_: Any) -> None:
        plan._wear = self.wear


class FailingHooks:
    def __init__(self, adapter: Fragile) -> None:
        self.adapter = adapter

    @hookspecs.hookimpl
    def before_inject(self, event: Any) -> None:
        self.adapter.count_down("before hook")

    @hookspecs.hookimpl
    def after_inject(self, event: Any) -> None:
        self.adapter.count_down("after hook")

    before_eject = hookspecs.hookimpl(lambda self, event: self.before_inject(event))
    after_eject = hookspecs.hookimpl(lambda self, event: self.after_inject(event))


def adapter_state(adapter: Adapter) -> Any:
    return (
        sorted(adapter.__dict__),
        list(adapter.modules()),
        list(adapter.parameters()),
        adapter.is_worn,
        adapter._bound_to,
    )


def attempt(do: Callable[[], object], adapter: Fragile) -> bool:
    """Returns whether an operation failed as planned, with every failure in place."""
    plugin = FailingHooks(adapter)
    hookspecs.manager().register(plugin)
    try:
        with failing_swaps(adapter):
            do()
    except Boom:
        event("failed")
        return True
    except RefinersError as error:
        event("failed")
        return adapter.fails_at == "nothing made" and "NoneType" in str(error)
    finally:
        hookspecs.manager().unregister(plugin)
    return False


@pytest.mark.parametrize("step", STEPS)
@FEW
@given(tree_specs(), adapter_specs(), adapter_specs(("wrap", "before")), st.integers(0, 3))
def test_an_inject_that_fails_changes_nothing_and_can_be_tried_again(
    step, tree_spec, specs, other_specs, after
):
    tree, twin = build_tree(tree_spec), build_tree(tree_spec)
    for wearer in (tree, twin):
        RandomAdapter(other_specs, key="other").inject(wearer)
    try:
        fragile(specs, "", 0).inject(twin)
    except PlanError:
        return
    adapter = fragile(specs, step, after)
    state, adapter_before, did = worn_state(tree), adapter_state(adapter), outcome(tree)
    if not attempt(lambda: adapter.inject(tree), adapter):
        return
    assert worn_state(tree) == state
    assert adapter_state(adapter) == adapter_before
    assert outcome(tree) == did
    adapter.fails_at = ""
    adapter.inject(tree)
    assert outcome(tree) == outcome(twin)


@pytest.mark.parametrize("step", ["callback", "swap", "before hook", "after hook"])
@FEW
@given(tree_specs(), adapter_specs(), adapter_specs(("wrap", "before")), st.integers(0, 2))
def test_an_eject_that_fails_changes_nothing_and_can_be_tried_again(
    step, tree_spec, specs, other_specs, after
):
    tree = build_tree(tree_spec)
    bare = bare_state(tree)
    other = RandomAdapter(other_specs, key="other").inject(tree)
    adapter = fragile(specs, "", 0)
    try:
        adapter.inject(tree)
    except PlanError:
        return
    adapter.arm(step, after)
    state, did = worn_state(tree), outcome(tree)
    leaving = (
        other if step == "callback" else adapter
    )  # the adapter that stays makes its layers again
    if not attempt(leaving.eject, adapter):
        return
    assert worn_state(tree) == state
    assert outcome(tree) == did
    assert adapter.is_worn
    assert other.is_worn
    adapter.fails_at = ""
    leaving.eject()
    (adapter if leaving is other else other).eject()
    assert bare_state(tree) == bare


class ByShape(Adapter):
    """An adapter whose layers have the width of the seat, and which fails on demand."""

    is_failing = True

    def edits(self, model: Chain):
        def make(inner: nn.Module, seat: Any) -> nn.Module:
            width = seat.layer.in_features
            layer = self.layer(seat, lambda: nn.Linear(width, width))
            if self.is_failing:
                raise ValueError("too late")
            return Sum(inner, layer)

        return select(model).of(nn.Linear).wrap(make)


def test_layers_of_a_failed_inject_are_not_reused_on_a_model_of_another_shape():
    adapter = ByShape()
    with pytest.raises(ValueError, match="too late"):
        adapter.inject(Chain(nn.Linear(4, 4)))
    adapter.is_failing = False
    wide = Chain(nn.Linear(8, 8))
    adapter.inject(wide)
    assert wide(torch.zeros(1, 8)).shape == (1, 8)


def test_the_return_value_of_edits_is_checked():
    class Forgetful(Adapter):
        make_edits: Any = None

        def edits(self, model: Chain) -> Any:
            return self.make_edits(model)

    tree = Chain(nn.Linear(4, 4))
    for make_edits, word in (
        (lambda model: None, "NoneType"),
        (lambda model: select(model), "Seat"),
        (lambda model: [select(model).remove()], "tuple"),
    ):
        adapter = Forgetful()
        adapter.make_edits = make_edits
        with pytest.raises(PlanError, match=f"returned a {word}, not edits"):
            adapter.inject(tree)
    adapter = Forgetful()
    adapter.make_edits = lambda model: ()
    with pytest.raises(PlanError, match="found nothing to edit"):
        adapter.inject(tree)


def test_an_adapter_without_edits_is_refused():
    with pytest.raises(AdapterError, match="does not define edits"):
        Adapter().inject(Chain(nn.Linear(4, 4)))


def test_an_inject_from_inside_a_callback_is_refused_not_lost():
    class Nested(Adapter):
        def edits(self, model: Chain):
            def make(inner: nn.Module, seat: Any) -> nn.Module:
                if not self.inner.is_worn:
                    self.inner.inject(model)
                return Residual(inner)

            return select(model).of(nn.Linear).wrap(make)

    tree, outer = Chain(nn.Linear(4, 4)), Nested(key="outer")
    object.__setattr__(outer, "inner", RandomAdapter([], key="inner"))
    outer.inner.edits = lambda model: select(model).after("more", lambda seat: nn.SiLU())
    with pytest.raises(PlanError, match="while an edit of it was being planned"):
        outer.inject(tree)
    assert [name for name, _ in tree.children_by_name()] == ["Linear_0", "Linear_0+more@inner"]


@pytest.mark.parametrize("error", ["ValueError", "SystemExit", "GeneratorExit", "BaseException"])
def test_hooks_load_whatever_other_packages_raise(tmp_path, monkeypatch, error):
    class Finder:
        @staticmethod
        def find_distributions(context):
            raise RuntimeError("broken on purpose")

        @staticmethod
        def find_spec(name, *more):
            return None

    texts = {"a": "[console_scripts]\nfoo\n", "b": f"[{hookspecs.GROUP}]\nbad = bad_{error}\n"}
    for name, text in texts.items():
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(text)
    (tmp_path / f"bad_{error}.py").write_text(f"raise {error}('odd')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.meta_path", [Finder, *sys.meta_path])
    (broken,) = [hooks for hooks in hookspecs.load_installed() if hooks.name == "bad"]
    assert (broken.dist, str(broken.error)) == ("b", "odd")
