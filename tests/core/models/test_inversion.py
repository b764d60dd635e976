"""From a picture back to noise: the sampler that walks backwards, `invert`, adapters with it."""

import inspect
from itertools import pairwise

import pytest
import torch

from refiners_core import Adapter, Chain, Lambda
from refiners_core.errors import ConditionError, GenerationError, ModelError
from refiners_core.models.diffusion import GenerationRequest
from refiners_core.models.samplers import (
    DDIM,
    PLMS,
    EulerAncestral,
    Heun,
    Inverse,
    Restart,
    ScheduleConfig,
)
from refiners_core.models.sd15 import build

PICTURE = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(4))


def inverted(model, image=PICTURE, prompt="a cat", **options):
    return model.invert(image, prompt, **{"steps": 4, "progress": False} | options)


# --- the sampler ------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_step_adds_the_predicted_noise_to_the_predicted_image(prediction):
    back = Inverse.of(DDIM(ScheduleConfig(prediction=prediction)).with_steps(5))
    clean, noise = torch.randn(2, 1, 4, 8, 8)
    for step, (level, after) in enumerate(pairwise(back.path)):
        velocity = level.signal * noise - level.noise * clean
        predicted = noise if prediction == "eps" else velocity
        x = back.step(level.add_noise(clean, noise), predicted, step).latents
        assert torch.allclose(x, after.add_noise(clean, noise), atol=1e-5)


@pytest.mark.parametrize("forward", [DDIM(), Heun(), PLMS(), Restart(), EulerAncestral()])
def test_each_level_of_the_way_forward_is_visited_once_upwards(forward):
    forward = forward.with_steps(20)
    levels = Inverse.of(forward).levels
    assert {*levels} == {*forward.path}
    assert [level.noise for level in levels] == sorted({level.noise for level in forward.path})
    assert Inverse.of(forward).timesteps == tuple(level.timestep for level in levels[1:])


def test_the_number_of_steps_and_the_strength_are_those_of_the_way_forward():
    back = Inverse.of(DDIM().with_timesteps([900, 500, 100]))
    assert back.with_steps(3) is back
    assert back.with_steps(5) == Inverse.of(DDIM().with_steps(5))
    assert back.with_strength(0.4).timesteps == (100,)
    assert Inverse(steps=30).timesteps == Inverse.of(DDIM()).timesteps


def test_a_network_that_predicts_images_is_refused():
    schedule = ScheduleConfig(prediction="x0", is_final_clean=True)
    with pytest.raises(GenerationError, match="predicts images cannot be walked backwards"):
        Inverse.of(DDIM(schedule).with_steps(4))


# --- the model --------------------------------------------------------------------------------


def test_the_latents_lead_back_to_the_picture(model):
    with torch.no_grad():
        clean = model.encode(PICTURE[None])
    errors = []
    for steps in (10, 100):
        path = inverted(model, steps=steps)
        assert path.shape == (steps + 1, 4, 8, 8)
        assert torch.equal(path[-1:], clean)
        again = model.generate("a cat", latents=path[:1], steps=steps, guidance=1.0,
                               output="latents", progress=False)  # fmt: skip
        errors.append(float((again - clean).norm() / clean.norm()))
    assert errors[1] < errors[0] / 2 < 0.2


def test_a_picture_is_resized_and_its_size_is_the_default(model):
    wide = torch.rand(3, 32, 48)
    assert inverted(model, wide).shape == (5, 4, 8, 12)
    assert inverted(model, wide, size=32).shape == (5, 4, 8, 8)


class Doubling(Adapter):
    """Doubles the first features, and may invert a picture."""

    takes_condition = True

    def edits(self, model):
        double = Lambda(lambda x: 2 * x)
        return model.slot("unet.conv_in").wrap(lambda inner, seat: Chain(inner, double))

    def encode(self, value, request):
        if value == "request":
            self.path = request.invert(PICTURE, request.prompts["cond"][0])
        return {self.context_key("x"): {"cond": torch.zeros(1, 1)}}


def test_worn_adapters_act_as_in_a_generation(model):
    bare = inverted(model)
    adapter = Doubling(key="double").inject(model)
    with pytest.raises(ConditionError, match="double is worn but has no condition"):
        inverted(model)
    assert not torch.allclose(inverted(model, conditions={adapter: 1}), bare, atol=1e-3)
    assert torch.equal(inverted(model, conditions={adapter: 1}, offload="cpu"),
                       inverted(model, conditions={adapter: 1}))  # fmt: skip


@pytest.mark.parametrize("sampler", ["ddim", "heun", "restart"])
def test_a_request_inverts_along_the_path_of_its_generation(model, sampler):
    adapter = Doubling(key="double").inject(model)
    model.generate("a cat", conditions={adapter: "request"}, steps=21, sampler=sampler, seed=1,
                   output="latents", progress=False)  # fmt: skip
    path = model.invert(PICTURE, "a cat", steps=21, sampler=sampler, progress=False,
                        conditions={adapter: None})  # fmt: skip
    (first, *_), (*_, last) = adapter.path, adapter.path
    assert torch.equal(first, path[0])
    assert torch.equal(last, path[-1])
    assert {row.sum().item() for row in adapter.path} == {row.sum().item() for row in path}


def test_a_request_without_a_generation_has_no_path():
    request = GenerationRequest(
        **dict.fromkeys(inspect.signature(GenerationRequest).parameters, None)
    )
    with pytest.raises(ConditionError, match=r"only the request of a generation has a path"):
        request.invert(PICTURE, "a cat")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": None}, "invert needs an image, not None"),
        ({"image": [PICTURE, PICTURE]}, "there are 2 images for 1 pictures"),
        ({"image": "me.png"}, "image: a value of type str is not an image"),
        ({"prompt": ["a", "b"]}, "one image is inverted with one prompt"),
        ({"image": torch.rand(3, 33, 32)}, "the sides of a picture are multiples of"),
        ({"steps": 0}, "steps is a whole number"),
        ({"sampler": "fastest"}, "fastest"),
        ({"guidance": -1}, "guidance is a number"),
    ],
)
def test_a_wrong_argument_is_refused_before_any_network_runs(model, arguments, message):
    handles = [
        part.register_forward_pre_hook(lambda *_: pytest.fail("a network runs"))
        for part in (model.unet, model.text_encoder)
    ]
    with pytest.raises(GenerationError, match=message):
        inverted(model, **arguments)
    for handle in handles:
        handle.remove()


def test_a_model_without_weights_is_refused():
    with pytest.raises(ModelError, match="has no tokenizer"):
        inverted(build(device="meta"))
