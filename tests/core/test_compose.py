"""Compositions: adapters that read one another, the same, or rows of their own."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Condition,
    Multiply,
    Residual,
    Sum,
    When,
    compose,
    select,
)
from refiners_core.errors import AdapterError, PlanError
from refiners_core.testing import tiny_language_model, tiny_model

X = torch.linspace(-1, 1, 6).view(2, 3)


class Behind(Adapter):
    """Adds a network to the output of every linear layer, as far as the scale goes."""

    def edits(self, model: Any) -> Any:
        def behind(inner: nn.Module, seat: Any) -> nn.Module:
            network = self.layer(seat, lambda: Chain(nn.Linear(3, 3), nn.Tanh()))
            added = When(self.scale_key, network, Multiply(self.scale_key))
            return Chain(inner, Residual(added))

        return select(model).of(nn.Linear).wrap(behind, stage="output")


class Beside(Adapter):
    """Adds a linear layer beside every linear layer, as far as the scale goes."""

    def edits(self, model: Any) -> Any:
        def beside(inner: nn.Module, seat: Any) -> nn.Module:
            change = self.layer(seat, lambda: nn.Linear(3, 3))
            return Sum(inner, When(self.scale_key, change, Multiply(self.scale_key)))

        return select(model).of(nn.Linear).wrap(beside)


class Before(Adapter):
    """Adds a network to the input of every linear layer."""

    def edits(self, model: Any) -> Any:
        def before(inner: nn.Module, seat: Any) -> nn.Module:
            return Chain(Residual(self.layer(seat, lambda: nn.Linear(3, 3))), inner)

        return select(model).of(nn.Linear).wrap(before, stage="inputs")


@pytest.fixture
def tree() -> Chain:
    torch.manual_seed(0)
    return Chain(first=nn.Linear(3, 3))


def call(tree: Chain, *adapters: Adapter, scale: float = 1.0) -> Tensor:
    scales = {adapter.scale_key: torch.tensor(scale) for adapter in adapters}
    with torch.no_grad():
        return tree(X, context=scales)


def change(adapter: Adapter, y: Tensor) -> Tensor:
    """Returns what the network of an adapter makes of features."""
    (layer,) = adapter.own_layers.values()
    with torch.no_grad():
        return layer(y)


def pair(tree: Chain, first: type[Adapter] = Behind, second: type[Adapter] = Behind) -> Any:
    a, b = first(key="a"), second(key="b")
    for adapter in (a, b):
        adapter.inject(tree).eject()
    return a, b


def test_a_stack_acts_in_its_order_whatever_the_keys(tree: Chain):
    a, b = pair(tree)
    h = call(tree)
    for first, second in ((a, b), (b, a)):
        with compose.stack(first, second).on(tree):
            y = h + change(first, h)
            assert torch.equal(call(tree, a, b), y + change(second, y))
    assert torch.equal(call(tree), h)
    with a.on(tree), b.on(tree):
        in_order = call(tree, a, b)
    with compose.stack(a, b).on(tree):
        assert torch.equal(call(tree, a, b), in_order)


def test_an_average_reads_the_same_and_adds_shares(tree: Chain):
    a, b = pair(tree)
    h = call(tree)
    for members, weights in (((a, b), (1, 3)), ((b, a), (3, 1))):
        with compose.average(*members, weights=weights).on(tree):
            expected = h + 0.25 * change(a, h) + 0.75 * change(b, h)
            torch.testing.assert_close(call(tree, a, b), expected)
            assert torch.equal(call(tree), h)
            torch.testing.assert_close(call(tree, b), h + 0.75 * change(b, h))


def test_an_average_may_have_members_of_every_stage(tree: Chain):
    a, b = pair(tree, Beside, Before)
    (linear,) = tree
    h = call(tree)
    with compose.average(a, b).on(tree), torch.no_grad():
        inputs = (linear(X + change(b, X)) - h) / 2
        torch.testing.assert_close(call(tree, a), h + inputs + change(a, X) / 2)


def test_compositions_nest_once(tree: Chain):
    a, b = pair(tree)
    c = Behind(key="c")
    c.inject(tree).eject()
    h = call(tree)
    y = h + change(a, h)
    both = y + change(b, y)
    with compose.average(compose.stack(a, b), c).on(tree):
        expected = h + (both - h) / 2 + change(c, h) / 2
        torch.testing.assert_close(call(tree, a, b, c), expected)
    mean = h + change(a, h) / 2 + change(b, h) / 2
    with compose.stack(compose.average(a, b), c).on(tree):
        torch.testing.assert_close(call(tree, a, b, c), mean + change(c, mean))
    with pytest.raises(AdapterError, match="contains another"):
        compose.average(compose.stack(compose.average(a, b), c), Behind(key="d"))
    with pytest.raises(AdapterError, match="of its own kind"):
        compose.stack(compose.stack(a, b), c)


def test_members_that_are_ejected_alone_leave_the_others_and_forget_their_order(tree: Chain):
    a, b = pair(tree)
    h = call(tree)
    composition = compose.average(b, a).inject(tree)
    a.eject()
    torch.testing.assert_close(call(tree, b), h + change(b, h) / 2)
    assert composition.eject() is composition
    assert torch.equal(call(tree), h)
    with pytest.raises(AdapterError, match="none of b, a is worn"):
        composition.eject()
    with b.on(tree), a.on(tree):
        y = h + change(a, h)
        assert torch.equal(call(tree, a, b), y + change(b, y))


def test_a_failing_member_leaves_none_on(tree: Chain):
    class Failing(Behind):
        def edits(self, model: Any) -> Any:
            raise PlanError("no", hint="no")

    a, b = pair(tree)
    with pytest.raises(PlanError):
        compose.stack(b, a, Failing()).inject(tree)
    assert not a.is_worn
    assert not b.is_worn
    with a.on(tree), b.on(tree):
        y = call(tree) + change(a, call(tree))
        assert torch.equal(call(tree, a, b), y + change(b, y))


def test_copies_of_a_composed_model_are_bare(tree: Chain):
    a, b = pair(tree)
    h = call(tree)
    with compose.average(b, a).on(tree):
        twin = copy.deepcopy(tree)
        assert copy.deepcopy(b).lane is None
    assert torch.equal(call(twin), h)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda a: compose.stack(a), "two adapters or more; it got 1"),
        (lambda a: compose.average(), "two adapters or more; it got 0"),
        (lambda a: compose.stack(a, a), "the same adapter twice"),
        (lambda a: compose.stack(a, "b"), "takes adapters, not"),
        (lambda a: compose.average(a, Behind(), weights=[1]), r"weights = \[1\]"),
        (lambda a: compose.average(a, Behind(), weights=[1, -1]), "positive sum"),
        (lambda a: compose.average(a, Behind(), weights=[1, "1"]), "as many numbers"),
        (lambda a: compose.parallel("Once"), "parallel got no adapters"),
        (lambda a: compose.parallel(a, "Once"), "takes a prompt and worn adapters"),
    ],
)
def test_wrong_members_are_refused(make: Any, message: str):
    with pytest.raises(AdapterError, match=message) as error:
        make(Behind())
    assert error.value.hint


def test_worn_members_are_refused(tree: Chain):
    a, b = pair(tree)
    with a.on(tree), pytest.raises(AdapterError, match="a is worn already"):
        compose.stack(a, b).inject(tree)


def test_prompts_are_repeated_for_each_adapter():
    a, b = Behind(), Behind()
    prompts, conditions = compose.parallel(["x", "y"], a, None, b)
    assert prompts == ["x", "y"] * 3
    assert conditions[a].scale == [1, 1, 0, 0, 0, 0]
    assert conditions[b].scale == [0, 0, 0, 0, 1, 1]
    chat = [{"role": "user", "content": "Hi"}]
    assert compose.parallel(chat, a, b)[0] == [chat, chat]
    tokens = torch.tensor([1, 2])
    assert len(compose.parallel(tokens, a, b)[0]) == 2


class Warm(Adapter):
    """Adds to what every attention of an image model returns."""

    def edits(self, model: Any) -> Any:
        def added(inner: nn.Module, seat: Any) -> nn.Module:
            change = Chain(self.layer(seat, lambda: nn.Linear(8, 8)), Multiply(self.scale_key))
            return Chain(inner, Residual(When(self.scale_key, change)))

        return (
            model.slot("unet.linear")
            .where(lambda seat: seat.layer.out_features == 8)
            .wrap(added, stage="output")
        )


def test_image_models_are_composed_too():
    model = tiny_model()
    a, b = Warm(key="a"), Warm(key="b")

    def image(**options: Any) -> Tensor:
        return model.generate("a cat", seed=1, steps=1, output="latents", progress=False, **options)

    bare = image()
    with compose.stack(a, b).on(model):
        first = image()
    with compose.stack(b, a).on(model):
        assert not torch.equal(image(), first)
    with compose.average(a, b, weights=[1, 2]).on(model):
        assert not torch.equal(image(), first)
        assert torch.equal(image(conditions={a: Condition(scale=0), b: Condition(scale=0)}), bare)
    assert torch.equal(image(), bare)


class Later(Adapter):
    """Adds to what every block of a language model returns."""

    def edits(self, model: Any) -> Any:
        def added(inner: nn.Module, seat: Any) -> nn.Module:
            change = Chain(self.layer(seat, lambda: nn.Linear(16, 16)), Multiply(self.scale_key))
            return Chain(inner, Residual(When(self.scale_key, change)))

        return model.slot("decoder.attention.output").wrap(added, stage="output")


def test_rows_of_an_average_have_scales_of_their_own_and_blocks_compile():
    model = tiny_language_model(ends=())
    a, b = Later(key="a"), Later(key="b")
    options: dict[str, Any] = {"max_new_tokens": 3, "output": "scores"}
    bare = model.generate("Once", **options)
    with compose.average(a, b).on(model):
        scales = {a: Condition(scale=[1.0, 0.0]), b: Condition(scale=[0.5, 0.0])}
        mixed = model.generate(["Once", "Once"], conditions=scales, **options)
        alone = model.generate("Once", conditions={b: Condition(scale=0.5)}, **options)
        assert torch.equal(mixed[1].log_probabilities, bare.log_probabilities)
        torch.testing.assert_close(mixed[0].log_probabilities, alone.log_probabilities)
        ids, context = torch.tensor([[1, 2, 3]]), {a.scale_key: torch.tensor(1.0)}
        with torch.no_grad():
            plain = model.decoder(ids, context=context)
            model.compile(backend="eager")
            assert torch.equal(model.decoder(ids, context=context), plain)
