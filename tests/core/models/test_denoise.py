import pytest
import torch
from torch import nn

from refiners_core import Adapter, Chain, Context, Layer, Sum
from refiners_core.errors import ContextError
from refiners_core.models.diffusion import COND, UNCOND, Denoise, Guidance
from refiners_core.models.samplers import DDIM, DPM2M, LCM


class ReadText(Layer):
    """A network that returns its latents plus `context["text"]`."""

    def run(self, context, *inputs):
        return inputs[0] + context["text"][:, :, None, None]


def step(denoise, latents, text, branches=(UNCOND, COND), **more):
    context = {
        "sampler": DDIM(),
        "step": 0,
        "branches": branches,
        "conditions": {"text": text},
        "guidance": torch.tensor(3.0),
        **more,
    }
    return denoise(latents, context=context)


def rows(*values):
    return torch.tensor(values)[:, None, None, None]


def test_guidance_extrapolates_beyond_the_prompt():
    seen = rows(1.0, 2.0, 5.0, 7.0)
    context = {"branches": (UNCOND, COND), "guidance": 3.0}
    assert Guidance()(seen, context=context).equal(rows(13.0, 17.0))


def test_guidance_without_an_uncond_branch_returns_cond():
    assert Guidance()(rows(1.0, 2.0), context={"branches": (COND,)}).equal(rows(1.0, 2.0))


def test_guidance_ignores_branches_of_adapters():
    context = {"branches": (UNCOND, COND, "perturbed"), "guidance": 3.0}
    assert Guidance()(rows(1.0, 5.0, 100.0), context=context).equal(rows(13.0))


def test_rescaled_guidance_has_the_contrast_of_the_prompt_alone():
    says = torch.randn(4, 4, 3, 3)
    context = {"branches": (UNCOND, COND), "guidance": 9.0}
    plain = Guidance()(says, context=context)
    context["guidance_rescale"] = 1.0
    rescaled = Guidance()(says, context=context)
    torch.testing.assert_close(rescaled.std((1, 2, 3)), says[2:].std((1, 2, 3)))
    context["guidance_rescale"] = 0.25
    half = Guidance()(says, context=context)
    torch.testing.assert_close(half, 0.25 * rescaled + 0.75 * plain)


def test_rows_lie_branch_by_branch():
    seen = []
    network = nn.Identity()
    network.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    latents = torch.randn(2, 4, 1, 1)
    step(Denoise(network), latents, {COND: torch.zeros(1, 4)})
    assert seen[0].equal(torch.cat([latents, latents]))


def test_one_row_of_a_condition_serves_all_latents():
    latents = torch.randn(2, 4, 1, 1)
    first, second = torch.randn(1, 4), torch.randn(1, 4)
    expected = step(
        Denoise(ReadText()), latents, {UNCOND: first.expand(2, 4), COND: second.expand(2, 4)}
    )
    assert step(Denoise(ReadText()), latents, {UNCOND: first, COND: second}).equal(expected)


def test_a_branch_without_a_tensor_takes_that_of_cond():
    latents, conditioning = torch.randn(2, 4, 1, 1), torch.randn(2, 4)
    guided = step(Denoise(ReadText()), latents, {COND: conditioning})
    torch.testing.assert_close(
        guided, step(Denoise(ReadText()), latents, {COND: conditioning}, (COND,))
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({UNCOND: torch.zeros(1, 4)}, "'text' has a tensor neither for the branch 'cond'"),
        ({COND: torch.zeros(3, 4)}, "'text' has 3 rows for the branch 'uncond', but there are 2"),
    ],
)
def test_conditions_that_do_not_fit_are_named(text, message):
    with pytest.raises(ContextError, match=message):
        step(Denoise(ReadText()), torch.zeros(2, 4, 1, 1), text)


def test_branches_one_by_one_give_the_same():
    latents = torch.randn(2, 4, 1, 1)
    text = {UNCOND: torch.randn(2, 4), COND: torch.randn(1, 4)}
    sizes = []
    network = ReadText()
    network.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    together = step(Denoise(network), latents, text)
    assert step(Denoise(network), latents, text, sequential=True).equal(together)
    assert sizes == [4, 2, 2]


def test_a_step_is_the_sampler_applied_to_the_prediction():
    latents, conditioning = torch.randn(1, 4, 1, 1), torch.randn(1, 4)
    made = step(Denoise(ReadText()), latents, {COND: conditioning}, (COND,))
    assert made.equal(DDIM().step(latents, latents + conditioning[:, :, None, None], 0).latents)


def test_a_multistep_sampler_reads_the_clean_latents_of_the_last_step():
    denoise, sampler = Denoise(ReadText()), DPM2M().with_steps(3)
    conditioning = {"text": {COND: torch.randn(1, 4)}}
    x = torch.randn(1, 4, 1, 1)
    context = Context(
        {"sampler": sampler, "step": 0, "branches": (COND,), "conditions": conditioning}
    )
    y = denoise(x, context=context)
    expected = sampler.step(x, x + conditioning["text"][COND][:, :, None, None], 0)
    assert y.equal(expected.latents)
    assert context["clean"].equal(expected.clean)
    assert [first.equal(expected.clean) for first in context["past"]] == [True]


def test_a_stochastic_sampler_needs_its_noise():
    with pytest.raises(ContextError, match="no value named 'noise'"):
        step(Denoise(ReadText()), torch.zeros(1, 4, 1, 1), {COND: torch.zeros(1, 4)}, sampler=LCM())


class ThirdBranch(Layer):
    """Asks for one more pass."""

    def run(self, context, *inputs):
        context["branches"] = (*context["branches"], "other")
        return inputs[0]


class AddsOther(Layer):
    """Adds what the third pass says."""

    def run(self, context, *inputs):
        return inputs[0].chunk(3)[2]


class ExtraPass(Adapter):
    """An adapter of the step itself: one more branch, and a use for it."""

    def edits(self, model):
        return (
            *model.slot("denoise.branches").before("ask", lambda seat: ThirdBranch()),
            *model.slot("denoise.guidance").wrap(
                lambda inner, seat: Sum(inner, AddsOther()), stage="output"
            ),
        )


def test_an_adapter_can_add_a_pass_to_the_step(model):
    plain = model.generate("a", seed=0, steps=2, output="latents", progress=False)
    with ExtraPass().on(model):
        more = model.generate("a", seed=0, steps=2, output="latents", progress=False)
        one_by_one = model.generate(
            "a", seed=0, steps=2, output="latents", progress=False, sequential=True
        )
    assert not more.equal(plain)
    # Guidance multiplies what rows differ by in another company, which depends on the machine.
    torch.testing.assert_close(one_by_one, more, rtol=1e-4, atol=1e-4)
    assert model.generate("a", seed=0, steps=2, output="latents", progress=False).equal(plain)


def test_the_step_is_printed_as_it_runs(model):
    names = [name for name, _ in model.denoise.children_by_name()]
    assert names == ["latents", "branches", "predict", "guidance", "step", "put_back"]
    assert model.denoise.predict.unet is model.unet
    assert isinstance(model.denoise, Chain)
