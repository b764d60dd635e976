"""Values that adapters keep from the first step of a generation to its last."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from refiners_core import (
    Adapter,
    Chain,
    Condition,
    Lambda,
    Layer,
    Multiply,
    Passthrough,
    Recall,
    Remember,
    Residual,
    Reuse,
    Sum,
    When,
    select,
)
from refiners_core.layers.transformer import TransformerBlock
from refiners_core.models.samplers import LCM
from refiners_core.surgery.block_compiler import compile_blocks


def halved(x):
    return x / 2


class Trail(Adapter):
    """Adds half of what the middle of the UNet returned at the step before."""

    def edits(self, model):
        key = self.context_key("last")

        def trailing(inner, seat):
            trail = When(self.scale_key, Recall(key, Lambda(halved), Multiply(self.scale_key)))
            return Chain(inner, Residual(trail), Remember(key))

        return model.slot("unet.mid.output").wrap(trailing, stage="output")


class Evens(Layer):
    """Sets a flag at every second step."""

    def __init__(self, key):
        super().__init__()
        self.key = key

    def run(self, context, *inputs):
        context[self.key] = context["step"] % 2 == 1


class Attentive(Adapter):
    """Attends to the text at every second step, everywhere or at the first place."""

    def __init__(self, of_first=False):
        super().__init__()
        self.of_first = of_first

    def edits(self, model):
        on, seats = self.context_key("on"), model.slot("unet.cross_attention")
        seats = seats.first() if self.of_first else seats
        keys = {seat.path: self.context_key(f"{i}") for i, seat in enumerate(seats)}
        return (
            *model.slot("denoise.branches").before("on", lambda seat: Passthrough(Evens(on))),
            *seats.wrap(lambda inner, seat: Reuse(keys[seat.path], inner, on=on), stage="output"),
        )


def run(model, **arguments):
    defaults = {"steps": 4, "seed": 7, "output": "latents", "progress": False}
    return model.generate("a red circle", **defaults | arguments)


def changes(model, **arguments):
    """The latents of a generation in which two adapters remember, one branch at a time or not."""
    return [run(model, **arguments, sequential=is_apart) for is_apart in (False, True)]


PICTURE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
HALF = torch.cat([torch.zeros(1, 1, 32, 16), torch.ones(1, 1, 32, 16)], dim=3)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"count": 2, "guidance": 1.0},
        {"image": PICTURE, "strength": 0.6},
        {"image": PICTURE, "mask": HALF},
        {"offload": "cpu"},
    ],
    ids=str,
)
def test_branches_together_and_apart_give_the_same(model, arguments):
    bare = run(model, **arguments)
    with Trail().on(model), Attentive().on(model):
        together, apart = changes(model, **arguments)
        again = run(model, **arguments)
    assert not torch.allclose(together, bare, atol=1e-4)
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-4)
    assert again.equal(together)
    assert run(model, **arguments).equal(bare)


def test_a_stochastic_sampler_remembers_too(model):
    with Trail().on(model):
        together, apart = changes(model, sampler=LCM(model.sampler.schedule))
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-4)


class Watched(Layer):
    """Remembers a tensor at each step, and records whether there was one and which step it is."""

    def __init__(self):
        super().__init__()
        self.refs, self.seen = [], []

    def run(self, context, *inputs):
        names = ("step", "steps", "is_first_step", "is_last_step")
        self.seen.append((context.memory.get("watch.x") is not None, *map(context.get, names)))
        tensor = torch.zeros(1)
        self.refs.append(weakref.ref(tensor))
        context.memory["watch.x"] = tensor
        return inputs[0]


class Watch(Adapter):
    def edits(self, model):
        self.layer_of_mine = Watched()
        return model.slot("denoise.step").before("watch", lambda seat: self.layer_of_mine)


def test_steps_are_counted_and_nothing_outlives_the_generation(model):
    watch = Watch(key="watch").inject(model)
    for image, steps in ((None, 3), (PICTURE, 2)):
        run(model, steps=3, image=image, **{"strength": 0.67} if steps == 2 else {})
        layer = watch.layer_of_mine
        assert layer.seen == [(i > 0, i, steps, i == 0, i == steps - 1) for i in range(steps)]
        assert not any(ref() for ref in layer.refs)
        layer.seen.clear()


class Phases(Adapter):
    """Records the phase of each step."""

    def edits(self, model):
        self.seen = []

        def record(inner, seat):
            return Chain(Passthrough(RecordPhase(self.seen)), inner)

        return model.slot("denoise.branches").wrap(record, stage="inputs")


class RecordPhase(Layer):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def run(self, context, *inputs):
        self.seen.append(context["phase"])


def test_a_phase_ends_where_an_adapter_begins_ends_or_changes_its_scale(model):
    phases, trail = Phases(key="phases").inject(model), Trail(key="trail").inject(model)
    run(model)
    assert phases.seen == [0, 0, 0, 0]
    for condition, expected in (
        (Condition(start=0.25, end=0.75), [0, 1, 1, 2]),
        (Condition(scale=lambda progress: 1.0 if progress < 0.5 else 0.5), [0, 0, 1, 1]),
        (Condition(scale={"unet.mid": [(0.0, 1.0), (0.5, 1.0), (0.5, 0.5)]}), [0, 0, 1, 1]),
        (Condition(scale=0.0), [0, 0, 0, 0]),
    ):
        phases.seen.clear()
        run(model, conditions={trail: condition})
        assert phases.seen == expected
    phases.seen.clear()
    run(model, steps=3, sampler="heun", conditions={trail: Condition(start=0.3)})
    assert phases.seen == [0, 0, 1, 1, 1]


def test_memory_is_gone_after_an_early_end_and_after_an_error(model):
    layer = Watch(key="watch").inject(model).layer_of_mine
    run(model, callback=lambda step, latents: step < 1)
    assert len(layer.seen) == 2

    def fail(step, latents):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(model, callback=fail)
    gc.collect()
    assert not any(ref() for ref in layer.refs)
    layer.seen.clear()
    run(model)
    assert [had for had, *_ in layer.seen] == [False, True, True, True]


def test_threads_that_run_one_model_do_not_share_memory(model):
    with Trail().on(model), ThreadPoolExecutor(4) as pool:
        expected = [run(model, seed=seed) for seed in range(4)]
        results = list(pool.map(lambda seed: run(model, seed=seed), [*range(4)] * 2))
    assert all(a.equal(b) for a, b in zip(results, expected * 2, strict=True))


def test_generations_between_which_adapters_and_dtypes_change(model):
    trail, attentive = Trail(), Attentive()
    trail.inject(model)
    alone = run(model)
    attentive.inject(model)
    both = run(model)
    trail.eject()
    assert not run(model).equal(both)
    trail.inject(model)
    assert run(model).equal(both)
    attentive.eject()
    assert run(model).equal(alone)
    assert run(model.double()).dtype == torch.float64
    assert run(model.float()).equal(alone)


def test_an_adapter_that_is_left_out_remembers_nothing_for_itself(model):
    bare, trail = run(model), Trail()
    with trail.on(model):
        assert run(model, conditions={trail: None}).equal(bare)
        late = run(model, conditions={trail: Condition(start=0.5)})
        assert not late.equal(bare)
        assert not late.equal(run(model))


class Ahead(Adapter):
    """Adds half of what the network gets to what its first layer gets."""

    def edits(self, model):
        key = self.context_key("input")
        added = When(self.scale_key, Recall(key, Lambda(halved)))
        return (
            *model.slot("denoise.predict").before("keep", lambda seat: Remember(key)),
            *model.slot("unet.input").wrap(lambda inner, seat: Chain(inner, Residual(added))),
        )


def test_a_pass_sees_what_was_remembered_earlier_in_its_step(model):
    bare = run(model)
    with Ahead().on(model):
        together, apart = changes(model)
        first = [run(model, steps=1, sequential=is_apart) for is_apart in (False, True)]
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(*first, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together, bare, atol=1e-4)


class Twice(Adapter):
    """Runs the network a second time at each step, on other latents, and ignores the result."""

    def edits(self, model):
        class Again(Chain):
            def run(self, context, *inputs):
                first = super().run(context, *inputs)
                super().run(context, -inputs[0])
                return first

        return model.slot("denoise.predict").wrap(lambda inner, seat: Again(inner))


@pytest.mark.parametrize("sequential", [False, True])
def test_a_second_pass_in_the_same_step_does_not_mix_its_values(model, sequential):
    with Trail().on(model):
        expected = run(model, sequential=sequential)
        with Twice().on(model):
            assert run(model, sequential=sequential).equal(expected)


class Counted:
    """A backend that counts the graphs it is given."""

    def __init__(self):
        torch.compiler.reset()
        self.graphs = 0

    def __call__(self, graph, _):
        self.graphs += 1
        return graph


@pytest.fixture
def counted(model):
    """Compiles the first transformer block and counts its graphs."""
    counted, level = Counted(), model.layer("unet.down.0", Chain)
    compile_blocks(level, [TransformerBlock], {"backend": counted, "fullgraph": True})
    return counted


@pytest.mark.parametrize("sequential", [False, True])
def test_a_block_is_one_graph_for_each_value_of_a_flag(model, counted, sequential):
    graphs = []
    with Attentive(of_first=True).on(model):
        for steps in (1, 5, 7):
            run(model, steps=steps, sequential=sequential)
            graphs.append(counted.graphs)
    assert graphs == [1, 2, 2]  # one that runs, one that reuses


class InBlock(Adapter):
    """Adds half of what the attention of a block returned at the step before."""

    def edits(self, model):
        key = self.context_key("last")

        def trailing(inner, seat):
            return Sum(Recall(key, Lambda(halved)), Chain(inner, Remember(key)))

        return model.slot("unet.cross_attention").first().wrap(trailing, stage="output")


def test_a_value_that_is_absent_at_the_first_step_costs_one_graph(model, counted):
    with InBlock().on(model):
        graphs = []
        for steps in (1, 2, 5):
            run(model, steps=steps)
            graphs.append(counted.graphs)
        compiled = run(model)
    assert graphs == [1, 2, 2]
    del select(model.unet).of(TransformerBlock)[0].layer._compiled_call_impl
    with InBlock().on(model):
        torch.testing.assert_close(run(model), compiled, rtol=1e-4, atol=1e-4)
