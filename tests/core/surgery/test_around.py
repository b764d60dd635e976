"""The stage `around` holds everything that runs at a seat."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Condition,
    Context,
    Edit,
    Lambda,
    Multiply,
    Seat,
    When,
    select,
)
from refiners_core.errors import PlanError
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.testing import tiny_model


class Skip(Chain):
    """Returns its input in place of running its child, if the context has a flag."""

    inner: nn.Module

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        return inputs[0] if context.get("skip") else self.call(self.inner, context, *inputs)


class Skipping(Adapter):
    def edits(self, model: Chain) -> Iterable[Edit]:
        doubles = select(model).named("twice")
        return doubles.wrap(lambda inner, seat: Skip(inner=inner), stage="around")


class Adding(Adapter):
    """Adds numbers before, in, around and after a layer."""

    def edits(self, model: Chain) -> Iterable[Edit]:
        doubles = select(model).named("twice")
        return (
            *doubles.before("before", lambda seat: Lambda(one_more)),
            *doubles.wrap(lambda inner, seat: Chain(inner, Lambda(one_more)), stage="output"),
            *doubles.after("after", lambda seat: Lambda(one_more)),
        )


def one_more(x: Tensor) -> Tensor:
    return x + 1


def doubled(x: Tensor) -> Tensor:
    return 2 * x


def tree() -> Chain:
    return Chain(begin=nn.Identity(), twice=Lambda(doubled), end=nn.Identity())


def results(chain: Chain) -> tuple[float, float]:
    x = torch.tensor(3.0)
    return chain(x).item(), chain(x, context={"skip": True}).item()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_it_includes_the_layers_before_and_after_whatever_the_keys(order: tuple[int, int]):
    chain = tree()
    adapters = [Skipping(key="a"), Adding(key="z")]
    for index in order:
        adapters[index].inject(chain)
    assert results(chain) == ((3 + 1) * 2 + 1 + 1, 3)
    adapters[1].eject()
    assert results(chain) == (6, 3)
    adapters[0].eject()
    assert results(chain) == (6, 6)
    assert list(chain) == [chain.begin, chain.twice, chain.end]


def test_the_printed_tree_shows_what_is_inside():
    chain = tree()
    Skipping(key="skip").inject(chain)
    Adding(key="add").inject(chain)
    printed = repr(chain)
    assert printed.index("twice+around@skip") < printed.index("twice+before@add")
    assert "twice+after@add" in printed


def test_two_of_them_are_ordered_by_key():
    chain = tree()
    Skipping(key="b").inject(chain)
    Skipping(key="a").inject(chain)
    assert [name for name, _ in chain.children_by_name()][1] == "twice+around@b"


class Repeated(Adapter):
    def edits(self, model: Chain) -> Iterable[Edit]:
        doubles = select(model).named("twice")
        return (
            *doubles.before("same", lambda seat: nn.Identity()),
            *doubles.before("same", lambda seat: nn.Identity()),
        )


def test_layers_inside_have_different_names():
    chain = tree()
    Skipping(key="skip").inject(chain)
    with pytest.raises(PlanError, match="two edits would name a layer of Chain 'twice\\+same@t'"):
        Repeated(key="t").inject(chain)


class Swelling(Adapter):
    """Multiplies what the middle of a UNet returns, with all that runs there, by its scale."""

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        def swollen(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(inner, When(self.scale_key, Multiply(self.scale_key)))

        return model.slot("unet.mid").wrap(swollen, stage="around")


class Beside(Adapter):
    """Adds a number before and after the middle of a UNet."""

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        middle = model.slot("unet.mid")
        return (
            *middle.before("before", lambda seat: Lambda(one_more)),
            *middle.after("after", lambda seat: Lambda(one_more)),
        )


def test_where_its_scale_is_0_all_that_runs_there_still_runs():
    model = tiny_model()
    options: dict[str, Any] = {"seed": [1, 2], "count": 2, "steps": 1, "progress": False}
    options |= {"output": "latents"}
    Beside(key="beside").inject(model)
    bare = model.generate("a cat", **options)
    swelling = Swelling(key="a").inject(model)
    by_picture = {swelling: Condition(scale={"unet.mid": [0.0, 3.0]})}
    mixed = model.generate("a cat", conditions=by_picture, **options)
    whole = model.generate("a cat", conditions={swelling: Condition(scale=3.0)}, **options)
    torch.testing.assert_close(mixed[0], bare[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mixed[1], whole[1], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(whole, bare, atol=1e-4)
