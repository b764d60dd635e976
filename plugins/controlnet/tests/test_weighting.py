"""Weights of outputs, guess mode, pooling and channel order."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from refiners_controlnet.adapter import ControlNet

from refiners_core import Source
from refiners_core.errors import AdapterError
from refiners_core.models.control import ConditionEncoder, guess_weights
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.testing import tiny_model, tiny_sdxl

PICTURE = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
COUNT = 5  # four skips and the middle of the tiny model


def make(model: LatentDiffusion, **options: Any) -> ControlNet:
    adapter = ControlNet(channels=(4, 8, 8), **options).inject(model)
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.copy_(torch.randn(weight.shape, generator=noise) * 0.2)
    return adapter


def latents(model: LatentDiffusion, conditions: Mapping[Any, Any], **options: Any) -> torch.Tensor:
    arguments = {"steps": 2, "seed": 3, "guidance": 3.0, "output": "latents", "progress": False}
    return model.generate("a cat", conditions=conditions, **(arguments | options))


def test_the_formulas_of_guess_mode():
    original, diffusers = (guess_weights(name, 13) for name in ("original", "diffusers"))
    assert original == tuple(0.825 ** (12 - i) for i in range(13))
    assert torch.allclose(torch.tensor(diffusers), torch.logspace(-1, 0, 13), rtol=1e-6)
    assert (original[0], diffusers[0]) == (pytest.approx(0.0994, abs=1e-4), 0.1)
    assert len(guess_weights("original", 10)) == 10


@pytest.mark.parametrize("sequential", [False, True])
def test_guess_mode_is_its_weights_on_the_branch_of_the_prompt(sequential: bool):
    model = tiny_model()
    adapter = make(model, guess="original")
    guessed = latents(model, {adapter: PICTURE}, sequential=sequential)
    adapter.guess, adapter.cond_only, adapter.layers = None, True, guess_weights("original", COUNT)
    assert torch.equal(guessed, latents(model, {adapter: PICTURE}, sequential=sequential))
    adapter.cond_only = False
    assert not torch.equal(guessed, latents(model, {adapter: PICTURE}, sequential=sequential))


def test_branches_at_once_and_one_by_one_agree():
    model = tiny_sdxl()
    adapter = make(model, guess="diffusers")
    together = latents(model, {adapter: PICTURE}, count=2)
    apart = latents(model, {adapter: PICTURE}, count=2, sequential=True)
    assert torch.allclose(together, apart, atol=1e-4)
    assert (together - latents(model, {adapter: None}, count=2)).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("options", [{"cond_only": True}, {"guess": "original"}, {"pooled": True}])
def test_the_other_branch_is_as_without_the_adapter(options: dict[str, Any]):
    model = tiny_model()
    x, text = torch.randn(4, 4, 8, 8), torch.randn(4, 5, 8)
    timestep = torch.tensor(7)
    bare = model.unet(x, context={"timestep": timestep, "text": text})
    adapter = make(model, **options)
    encoded = adapter.encode(PICTURE, request_of(model))
    context: dict[str, Any] = {
        "branches": ("uncond", "cond"),
        "timestep": timestep,
        adapter.scale_key: torch.tensor(1.0),
        "conditions": {"text": {"uncond": text[:2], "cond": text[2:]}, **encoded},
        "text": text,
    }
    context |= {key: value["cond"].expand(4, -1, -1, -1) for key, value in encoded.items()}
    worn = model.unet(x, context=context)
    assert torch.equal(worn[:2], bare[:2])
    assert (worn[2:] - bare[2:]).abs().max() > 1e-3


def test_an_output_of_weight_zero_is_not_computed():
    model = tiny_model()
    bare = latents(model, {})
    adapter = make(model, layers=[0.0] * COUNT)
    assert torch.equal(latents(model, {adapter: PICTURE}), bare)
    adapter.layers = [1.0] * COUNT
    full = latents(model, {adapter: PICTURE})
    adapter.layers = torch.ones(COUNT)
    assert torch.equal(latents(model, {adapter: PICTURE}), full)
    adapter.layers = None
    assert torch.equal(latents(model, {adapter: PICTURE}), full)
    convolution = adapter.parts.network.outputs.skip_1.zero_conv
    calls: list[int] = []
    handle = convolution.register_forward_hook(lambda *_: calls.append(1))
    adapter.layers = [1.0, 0.0, 1.0, 1.0, 1.0]
    assert not torch.equal(latents(model, {adapter: PICTURE}), full)
    handle.remove()
    assert calls == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [1.0] * 3}, "has 3 weights; this model takes 5: 4 for the skips"),
        ({"layers": [1.0] * 4 + [float("nan")]}, "contains nan, which is not a finite number"),
        ({"layers": "strong"}, "is a list of weights, not 'strong'"),
        ({"guess": "diffusers", "layers": [1.0] * COUNT}, "which both weight the outputs"),
    ],
)
def test_contradictory_options_are_refused(change: dict[str, Any], message: str):
    model = tiny_model()
    adapter = make(model)
    for name, value in change.items():
        setattr(adapter, name, value)
    with pytest.raises(AdapterError, match=message):
        latents(model, {adapter: PICTURE})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guess": "strong"}, "formulas of guess mode are original and diffusers"),
        ({"channel_order": "grb"}, "networks read rgb or bgr"),
    ],
)
def test_unknown_options_are_refused_at_once(options: dict[str, Any], message: str):
    with pytest.raises(AdapterError, match=message):
        ControlNet(**options)


def test_pooling_is_of_one_network_and_adds_up_with_others():
    model = tiny_model()
    pooled, plain = make(model, pooled=True, key="a"), make(model, key="b")
    both = latents(model, {pooled: PICTURE, plain: 1 - PICTURE})
    assert latents(model, {pooled: None, plain: PICTURE}).std() > 0
    model.eject_all()
    plain.inject(model), pooled.inject(model)
    assert torch.equal(both, latents(model, {pooled: PICTURE, plain: 1 - PICTURE}))
    sizes = [
        [tuple(output.shape[2:]) for output in outputs_of(adapter, model)]
        for adapter in (pooled, plain)
    ]
    assert set(sizes[0]) == {(1, 1)}
    assert (1, 1) not in sizes[1]


def test_pooling_and_channel_order_come_from_the_settings_of_a_variant(tmp_path):
    make(tiny_model(), key="saved").save(tmp_path / "control.safetensors")
    settings = {"pooled": True, "channel-order": "bgr"}
    source = Source({"weights": tmp_path / "control.safetensors"}, settings)
    model = tiny_model()
    adapter = ControlNet(weights=lambda _: source).inject(model)
    assert (adapter.is_pooled, adapter.channel_order) == (True, "bgr")
    given = ControlNet(weights=lambda _: source, pooled=False, channel_order="rgb").inject(model)
    assert (given.is_pooled, given.channel_order) == (False, "rgb")


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_the_encoder_reads_the_channel_order_of_the_training(order: str):
    model = tiny_model()
    adapter, seen = make(model, channel_order=order), list[torch.Tensor]()
    adapter.parts.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    red = torch.zeros(3, 32, 32)
    red[0] = 1
    adapter.encode(red, request_of(model))
    assert seen[0][0, "rgb".index("r") if order == "rgb" else 2].min() == 1
    assert seen[0][0, 1].max() == 0


def test_the_encoder_of_pictures_runs_once_per_generation():
    model = tiny_model()
    adapter = make(model)
    encoder, calls = adapter.parts.layer("encoder", ConditionEncoder), list[int]()
    encoder.register_forward_hook(lambda *_: calls.append(1))
    latents(model, {adapter: PICTURE}, steps=4, count=2)
    assert calls == [1]


def outputs_of(adapter: ControlNet, model: LatentDiffusion) -> Sequence[torch.Tensor]:
    context = {
        "timestep": torch.tensor(7),
        "text": torch.ones(1, 5, 8),
        adapter.features_key: torch.ones(1, 8, 8, 8),
        adapter.scale_key: torch.tensor(1.0),
    }
    return adapter.parts.network(torch.ones(1, 4, 8, 8), context=context)


def request_of(model: LatentDiffusion) -> Any:
    from refiners_core.models.diffusion import GenerationRequest

    return GenerationRequest(
        model=model, count=2, branches=("uncond", "cond"), height=32, width=32, latent_height=8,
        latent_width=8, dtype=torch.float32, device=torch.device("cpu"),
    )  # fmt: skip
