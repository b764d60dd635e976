"""StyleAligned keeps the contract of adapters, and refuses batches of one picture."""

import tomllib
from collections.abc import Callable
from importlib.resources import files

import pytest
import torch
from refiners_stylealigned.adapter import StyleAligned
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Condition, Context, Edit, Layer, Passthrough, Seat
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.testing import LAWS, AdapterCase, tiny_model

PROMPTS = ["a red circle", "two cats", "a star"]
PICTURE = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(4))
WITH_PICTURE = ("restores_the_model", "is_absent_when_left_out", "is_freed_by_counting")
"""The laws that a picture may affect: how values come into the tree, and leave no trace."""


def make() -> StyleAligned:
    return StyleAligned(name="style-aligned", share=1.1, shift=0.5)


def targets() -> list[tuple[str, str]]:
    manifest = tomllib.loads((files("refiners_stylealigned") / "adapter.toml").read_text())
    (variant,) = manifest["adapter"]["style-aligned"]["variant"]
    return [(target["slot"], target["stage"]) for target in variant["targets"]]


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_contract(law: Callable[[AdapterCase], None]):
    law(AdapterCase(make, targets=targets()))


@pytest.mark.parametrize("law", [law for law in LAWS if law.__name__ in WITH_PICTURE])
def test_it_keeps_the_contract_with_a_picture(law: Callable[[AdapterCase], None]):
    law(AdapterCase(make, condition=PICTURE, targets=targets()))


def latents(model: LatentDiffusion, prompt: object = PROMPTS, **options: object) -> Tensor:
    defaults = {"steps": 3, "guidance": 3.0, "seed": 7, "output": "latents", "progress": False}
    return model.generate(prompt, **defaults | options)


def test_the_first_picture_is_bit_for_bit_what_it_is_without_the_adapter():
    model = tiny_model()
    plain = latents(model)
    for strength in (0.4, 1.0, 1.7):
        adapter = make().inject(model)
        shared = latents(model, conditions={adapter: Condition(scale=strength)})
        adapter.eject()
        assert torch.equal(shared[0], plain[0])
        assert all(not torch.allclose(shared[i], plain[i], rtol=1e-2) for i in (1, 2))


@pytest.mark.parametrize("options", [{}, {"guidance": 1.0}, {"prompt": ["a cat", "b"], "count": 2}])
def test_sequential_branches_make_the_same_pictures(options: dict[str, object]):
    model = tiny_model()
    make().inject(model)
    alone = latents(model, **options, sequential=True)
    assert torch.allclose(alone, latents(model, **options), atol=1e-5)


class AddBranch(Layer):
    """Adds a guidance branch before all others; its result is unused."""

    def run(self, context: Context, *inputs: object) -> None:
        context["branches"] = ("more", *context["branches"])


class OneMore(Adapter):
    """Adds a guidance branch with another condition."""

    takes_condition = True

    def edits(self, model: LatentDiffusion) -> tuple[Edit, ...]:
        return model.slot("denoise.branches").before("more", lambda _: Passthrough(AddBranch()))

    def encode(self, value: Tensor, request: object) -> dict[str, dict[str, Tensor]]:
        return {self.context_key("x"): {"cond": value}}


def test_a_branch_of_another_adapter_changes_nothing():
    model = tiny_model()
    make().inject(model)
    expected = latents(model)
    other = OneMore().inject(model)
    beside = latents(model, conditions={other: torch.zeros(1, 1)})
    assert torch.allclose(beside, expected, atol=1e-5)


class Masked(Adapter):
    """Adds a mask to every self-attention, or none."""

    def __init__(self, mask: Tensor | None, key: str) -> None:
        super().__init__(key=key)
        self.mask = mask

    def edits(self, model: LatentDiffusion) -> tuple[Edit, ...]:
        def masked(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(AddMask(self.mask), inner)

        return model.slot("unet.self_attention.attend").wrap(masked, stage="inputs")


class AddMask(Layer):
    def __init__(self, mask: Tensor | None) -> None:
        super().__init__()
        self.mask = mask

    def run(self, context: Context, *inputs: Tensor) -> tuple[Tensor, ...]:
        tokens = inputs[1].shape[1]
        return inputs if self.mask is None else (*inputs, self.mask.expand(-1, -1, tokens))


@pytest.mark.parametrize(
    "mask", [torch.zeros(1, 1, 1), torch.zeros(6, 1, 1), torch.ones(6, 1, 1, dtype=torch.bool)]
)
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_mask_of_an_outer_adapter_is_kept(mask: Tensor, shift: float):
    model = tiny_model()
    StyleAligned(key="style", shift=shift).inject(model)
    expected = latents(model)
    Masked(mask, "z-outside").inject(model)
    assert torch.allclose(latents(model), expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"prompt": "a cat"}, {"prompt": ["a cat"], "guidance": 1.0}])
def test_a_batch_of_one_is_refused_before_any_network_runs(options: dict[str, object]):
    model = tiny_model()
    adapter = make().inject(model)
    model.text_encoder.register_forward_pre_hook(lambda *_: pytest.fail("a network runs"))
    with pytest.raises(ConditionError, match="but this generation makes only one"):
        latents(model, **options)
    with pytest.raises(ConditionError, match="it takes no mask"):
        latents(model, conditions={adapter: Condition(mask=torch.ones(1, 1, 32, 32))})


def test_a_skipped_adapter_accepts_a_batch_of_one():
    model = tiny_model()
    alone = latents(model, "a cat")
    adapter = make().inject(model)
    for condition in (None, Condition(scale=0.0)):
        assert torch.equal(latents(model, "a cat", conditions={adapter: condition}), alone)


@pytest.mark.parametrize("options", [{}, {"sampler": "heun"}, {"sampler": "euler-ancestral"}])
@pytest.mark.parametrize("is_sequential", [False, True])
def test_the_first_picture_becomes_the_given_one(options: dict[str, object], is_sequential: bool):
    model = tiny_model()
    adapter = make().inject(model)
    shared = latents(model, **options)
    given = latents(model, **options, sequential=is_sequential, conditions={adapter: PICTURE})
    with torch.no_grad():
        assert torch.equal(given[:1], model.encode(PICTURE[None]))
    assert all(not torch.allclose(given[i], shared[i], atol=1e-2) for i in (1, 2))


def test_the_first_picture_is_free_outside_the_span():
    model = tiny_model()
    adapter = make().inject(model)
    options = {"callback": lambda step, latents: firsts.append(latents[0].clone())}
    firsts: list[Tensor] = []
    latents(model, conditions={adapter: Condition(PICTURE, end=0.4)}, **options)
    path = model.invert(PICTURE, PROMPTS[0], steps=3, guidance=2.0, conditions={adapter: None},
                        progress=False)  # fmt: skip
    assert torch.equal(firsts[0], path[1])
    assert not torch.allclose(firsts[1], path[2], atol=1e-3)


def test_the_inversion_has_its_guidance():
    model = tiny_model()
    made: list[Tensor] = []
    for guidance in (1.0, 2.0):
        with StyleAligned(inversion_guidance=guidance).on(model) as adapter:
            made.append(latents(model, conditions={adapter: PICTURE}))
    assert torch.equal(made[0][0], made[1][0])
    assert not torch.allclose(made[0][1], made[1][1], atol=1e-3)


def test_a_condition_without_a_picture_shares_the_first():
    model = tiny_model()
    adapter = make().inject(model)
    assert torch.equal(latents(model, conditions={adapter: Condition()}), latents(model))


@pytest.mark.parametrize("option", ["share", "shift", "inversion_guidance"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), True])
def test_options_must_be_finite_numbers(option: str, value: object):
    with pytest.raises(AdapterError, match=f"{option} is a (finite )?number"):
        StyleAligned(**{option: value})
