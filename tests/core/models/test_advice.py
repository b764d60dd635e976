"""A generation follows the advice of adapters that are only right with it."""

import warnings

import pytest
import torch
from torch import nn

from refiners_core import Adapter, Advice, Condition, Multiply, Source, Sum, When
from refiners_core.errors import AdapterError, GenerationError, Notice
from refiners_core.models.samplers import LCM, named_sampler
from refiners_core.testing import tiny_model

FOUR = {"sampler": "lcm", "steps": 4, "guidance": 1.0}


class FewSteps(Adapter):
    """A change of every linear layer, as a distilled LoRA makes it."""

    def edits(self, model):
        def changed(inner, seat):
            size = seat.layer.in_features, seat.layer.out_features
            change = self.layer(seat, lambda: seeded(nn.Linear(*size)))
            return Sum(inner, When(self.scale_key, change, Multiply(self.scale_key)))

        return model.slot("unet.linear").first().wrap(changed, name="few-steps")


def seeded(layer):
    generator = torch.Generator().manual_seed(3)
    for weight in layer.parameters():
        nn.init.normal_(weight, std=0.2, generator=generator)
    return layer


@pytest.fixture(scope="module")
def bare():
    return tiny_model()


@pytest.fixture
def model(bare):
    yield bare
    bare.eject_all()


def worn(model, advice, key="few"):
    adapter = FewSteps(key=key)
    adapter.advice = advice
    return adapter.inject(model)


def run(model, **arguments):
    return model.generate("a", seed=7, size=16, output="latents", progress=False, **arguments)


def quietly(model, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        return run(model, **arguments)


def test_required_advice_is_followed_bit_for_bit(model):
    adapter = worn(model, Advice(**FOUR, is_required=True))
    followed = quietly(model)
    adapter.advice = Advice()
    assert followed.equal(quietly(model, **FOUR))
    assert not followed.equal(quietly(model, steps=4))


def test_other_advice_only_informs(model):
    adapter = worn(model, Advice(**FOUR, trigger_words=("ink",), strength=(0.5, 0.8, 1.2)))
    advised = run(model, steps=2)
    adapter.advice = Advice()
    assert advised.equal(run(model, steps=2))


@pytest.mark.parametrize(
    ("given", "note"),
    [
        ({"sampler": "ddim"}, "few is only right with sampler='lcm'; this generation has"),
        ({"steps": 2, "guidance": 3.0}, "steps=4 and guidance=1.0; this generation has steps=2"),
    ],
)
def test_an_explicit_argument_wins_and_a_notice_tells(model, given, note):
    adapter = worn(model, Advice(**FOUR, is_required=True))
    with pytest.warns(Notice, match=note) as caught:
        explicit = run(model, **given)
    assert [warning.filename for warning in caught] == [__file__]
    adapter.advice = Advice()
    assert explicit.equal(run(model, **{**FOUR, **given}))


def test_the_advised_values_may_be_passed(model):
    worn(model, Advice(**FOUR, is_required=True))
    assert quietly(model, sampler=LCM(model.sampler.schedule), steps=4).equal(quietly(model))


def test_adapters_that_disagree_name_what_to_pass(model):
    worn(model, Advice(**FOUR, is_required=True), "a")
    worn(model, Advice(sampler="tcd", guidance=1, is_required=True), "b")
    message = r"a needs sampler='lcm' and b needs sampler='tcd'\. Pass one, such as sampler='lcm'"
    with pytest.raises(GenerationError, match=message):
        run(model)
    with pytest.warns(Notice, match="b is only right with sampler='tcd'"):
        run(model, sampler="lcm")


VERY = (900, 600, 200)


def test_required_timesteps_are_followed_bit_for_bit(model):
    adapter = worn(model, Advice(timesteps=VERY, guidance=0, is_required=True))
    followed = quietly(model)
    assert followed.equal(quietly(model, steps=3))  # as many as advised
    assert followed.equal(quietly(model, timesteps=torch.tensor(VERY)))
    adapter.advice = Advice()
    assert followed.equal(quietly(model, timesteps=[*VERY], guidance=0))
    assert not followed.equal(quietly(model, steps=3, guidance=0))


@pytest.mark.parametrize(
    ("given", "note"),
    [
        ({"steps": 2}, r"steps=3; this generation has timesteps=None and steps=2"),
        (
            {"timesteps": [900, 300]},
            r"200\) and steps=3; this generation has",
        ),
        ({"timesteps": [900, 500, 200]}, r"timesteps=\(900, 600, 200\); this generation has"),
        ({"sigmas": [14, 2, 1, 0]}, "this generation has timesteps=None"),
    ],
)
def test_the_path_of_the_caller_wins(model, given, note):
    adapter = worn(model, Advice(timesteps=VERY, is_required=True))
    with pytest.warns(Notice, match=note):
        explicit = run(model, **given)
    adapter.advice = Advice()
    assert explicit.equal(run(model, **given))


def test_timesteps_and_as_many_steps_agree(model):
    worn(model, Advice(timesteps=VERY, is_required=True), "a")
    worn(model, Advice(steps=3, sampler="lcm", is_required=True), "b")
    assert quietly(model).equal(quietly(model, timesteps=VERY, sampler="LCM"))


@pytest.mark.parametrize(
    "left_out", [None, Condition(scale=0), Condition(scale={"unet.linear": [0.0]})], ids=str
)
def test_an_adapter_that_is_left_out_advises_nothing(model, left_out):
    without = run(model, steps=2)
    adapter = worn(model, Advice(**FOUR, is_required=True))
    assert quietly(model, steps=2, conditions={adapter: left_out}).equal(without)


def test_the_first_inject_takes_the_advice_of_the_source_unless_the_caller_set_one(model):
    advice = Advice(steps=4)
    source = Source({}, advice=advice)
    assert FewSteps(weights=lambda tree: source).inject(model).eject().advice is advice
    chosen = FewSteps(weights=lambda tree: source)
    chosen.advice = Advice(steps=5)
    assert chosen.inject(model).advice.steps == 5


def test_a_hot_swap_swaps_advice_and_origin(model):
    a, b = worn(model, Advice(steps=4), "a").eject(), worn(model, Advice(steps=5), "b").eject()
    a.origin = str
    a.hotswap(b)
    assert (a.advice.steps, b.advice.steps) == (5, 4)
    assert (a.origin, b.origin) == (None, str)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sampler": "lmc"},
        {"steps": 0},
        {"steps": True},
        {"steps": "4"},
        {"guidance": -1},
        {"guidance": float("nan")},
        {"clip_skip": 0},
        {"size": (64, 64, 64)},
        {"size": 0},
        {"timesteps": (1.0, 2.0)},
        {"timesteps": ()},
        {"timesteps": (9, -1)},
        {"timesteps": (9, 1), "steps": 3},
        {"strength": (1, 0.5, 2)},
        {"strength": 0.5},
        {"trigger_words": "ink"},
        {"is_required": True, "size": 64},
    ],
    ids=str,
)
def test_wrong_advice_is_refused(wrong):
    with pytest.raises(AdapterError, match=f"the advice ({'|'.join(wrong)})="):
        Advice(**wrong)


def test_a_misspelt_sampler_is_corrected():
    with pytest.raises(AdapterError, match=r"did you mean 'euler'\? Try Advice"):
        Advice(sampler="eulre")


def test_a_name_may_have_a_spacing_or_be_that_of_another_program(model):
    trailing = Advice(sampler="euler-trailing", steps=2, is_required=True)
    worn(model, trailing, "a")
    worn(model, Advice(sampler="Euler Simple", is_required=True), "b")
    followed = quietly(model)
    assert followed.equal(quietly(model, sampler="euler-trailing", steps=2))
    sampler = named_sampler("euler-trailing", model.scheduler)
    assert followed.equal(quietly(model, sampler=sampler, steps=2))
    for other in ("euler", "euler-karras", named_sampler("euler-karras", model.scheduler)):
        with pytest.warns(Notice, match="a is only right with sampler='euler-trailing'"):
            run(model, sampler=other)
