"""Several pictures of one image prompt: joined, averaged, within masks, negative, one by one."""

from typing import Any

import pytest
import torch
from refiners_ipadapter.image_prompt import ImagePrompt

from refiners_core import Condition
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.testing import tiny_model

from .sizes import KINDS, bits

PICTURES = torch.rand(3, 3, 20, 24, generator=torch.Generator().manual_seed(5))
A, B, C = PICTURES
LEFT = torch.zeros(1, 1, 32, 32)
LEFT[..., :16] = 1


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tiny_model()


@pytest.fixture
def adapter(model: LatentDiffusion):
    adapter = KINDS["plus"](key="photo").inject(model)
    yield adapter
    adapter.eject()


def latents(adapter: ImagePrompt, model: LatentDiffusion, value: Any, **options: Any):
    arguments = {"prompt": "a cat", "steps": 2, "output": "latents", "progress": False} | options
    if "latents" not in options:
        arguments["seed"] = 1
    return model.generate(conditions={adapter: value}, **arguments)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5, rtol=0)


def test_pictures_are_joined_by_default_and_averaged_if_asked(adapter, model):
    joined = latents(adapter, model, [[A, B]])
    assert close(joined, latents(adapter, model, {"picture": [[B, A]]}))
    assert not close(joined, latents(adapter, model, A))
    assert close(latents(adapter, model, [[A, A]]), latents(adapter, model, A))
    adapter.blend = "average"
    averaged = latents(adapter, model, [[A, B]])
    assert not close(averaged, joined)
    features = adapter.features([A[None], B[None]], request_of(model))
    with torch.no_grad():
        expected = adapter.projected((features[0].mean(0, keepdim=True),))
        encoded = adapter.encode([[A, B]], request_of(model))[adapter.tokens_key]
    torch.testing.assert_close(encoded["cond"], expected)
    with pytest.raises(ConditionError, match="averages pictures, so that each cannot have a mask"):
        latents(adapter, model, {"picture": [[A, B]], "masks": [LEFT, 1 - LEFT]})
    adapter.blend = "mean"
    with pytest.raises(AdapterError, match="the blend of photo is join or average, not 'mean'"):
        latents(adapter, model, A)


def request_of(model: LatentDiffusion) -> Any:
    """Returns the request of a generation, as an adapter sees it."""
    seen: list[Any] = []
    watcher = KINDS["linear"](key="watcher").inject(model)
    watcher.check = lambda value, request: seen.append(request)
    others = dict.fromkeys(model.adapters)
    arguments = {"steps": 1, "output": "latents", "progress": False}
    model.generate("a cat", conditions={**others, watcher: A}, **arguments)
    watcher.eject()
    return seen[0]


def test_one_picture_each_equals_the_pictures_one_by_one(adapter, model):
    noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    together = latents(adapter, model, [A, B, C], prompt=["a", "b", "c"], latents=noise)
    for i, prompt in enumerate("abc"):
        alone = latents(adapter, model, PICTURES[i], prompt=prompt, latents=noise[i : i + 1])
        assert close(together[i : i + 1], alone)
    two = latents(adapter, model, [[A, B], [C, A]], prompt=["a", "b"], latents=noise[:2])
    alone = latents(adapter, model, [[C, A]], prompt="b", latents=noise[1:2])
    assert close(two[1:], alone)


def test_the_encoder_runs_once_per_generation(adapter, model):
    calls: list[int] = []
    hook = adapter.encoder.register_forward_pre_hook(lambda _, xs: calls.append(len(xs[0])))
    latents(adapter, model, {"picture": [[A, B]], "negative": C}, steps=3)
    latents(adapter, model, A, steps=3)
    hook.remove()
    assert calls == [3, 2]  # the second shows zeros to the negative branch


def test_masks_divide_the_picture_among_pictures(adapter, model):
    value = {"picture": [[A, B]], "masks": [LEFT, 1 - LEFT]}
    divided = first_outputs(adapter, model, value)
    left, right = (first_outputs(adapter, model, picture) for picture in (A, B))
    small = torch.zeros(8, 8, dtype=torch.bool)
    small[:, :3] = True  # beyond the reach of bicubic resizing
    at_left, at_right = small.flatten(), small.flip(1).flatten()
    torch.testing.assert_close(divided[:, at_left], left[:, at_left], atol=1e-5, rtol=0)
    torch.testing.assert_close(divided[:, at_right], right[:, at_right], atol=1e-5, rtol=0)
    swapped = first_outputs(adapter, model, {**value, "masks": [1 - LEFT, LEFT]})
    torch.testing.assert_close(swapped[:, at_left], right[:, at_left], atol=1e-5, rtol=0)
    whole = latents(adapter, model, {"picture": A, "masks": torch.ones(1, 1, 5, 7)})
    assert close(whole, latents(adapter, model, A))
    odd = Condition({"picture": [[A, B]], "masks": torch.rand(2, 1, 63, 41)}, mask=LEFT)
    assert latents(adapter, model, odd).isfinite().all()
    nowhere = Condition(A, mask=torch.zeros(1, 1, 1, 1))
    assert close(latents(adapter, model, nowhere), latents(adapter, model, None))


def first_outputs(adapter: ImagePrompt, model: LatentDiffusion, value: Any) -> torch.Tensor:
    """Returns what the first attention to pictures adds for the prompt, (1, tokens, width)."""
    outputs: list[torch.Tensor] = []
    attend = adapter.parts.branches.layer("1.attend")
    hook = attend.register_forward_hook(lambda _, xs, y: outputs.append(y))
    latents(adapter, model, value, steps=1)
    hook.remove()
    return outputs[0][-1:]


def test_the_masks_of_one_generation_leave_no_trace(adapter, model):
    before = bits(latents(adapter, model, A))
    latents(adapter, model, {"picture": [[A, B]], "masks": [LEFT, 1 - LEFT]})
    assert bits(latents(adapter, model, A)) == before


def test_negative_pictures_push_away(adapter, model):
    plain = latents(adapter, model, A)
    pushed = latents(adapter, model, {"picture": A, "negative": B})
    assert not close(pushed, plain)
    several = latents(adapter, model, {"picture": [[A, C]], "negative": B})
    assert close(several, latents(adapter, model, {"picture": [[A, C]], "negative": [[B, B]]}))
    guided = {"guidance": 1.0}  # without a negative branch nothing is shown to it
    same = latents(adapter, model, {"picture": A, "negative": B}, **guided)
    assert close(same, latents(adapter, model, A, **guided))


def test_style_and_layout_are_single_transformers(adapter, model):
    places = adapter.named_places(model)
    assert {name: len(paths) for name, paths in places.items()} == {"style": 1, "layout": 1}
    by_place = {"style": 0.5, "layout": 1.0}
    both = latents(adapter, model, Condition(A, scale=by_place))
    assert not close(both, latents(adapter, model, Condition(A, scale={"style": 0.5})))
    path = places["style"][0]
    number = [seat.path for seat in model.slot("unet.transformer")].index(path)
    named = latents(adapter, model, Condition(A, scale={f"unet.transformer.{number}": 0.5}))
    assert bits(named) == bits(latents(adapter, model, Condition(A, scale={"style": 0.5})))
    with pytest.raises(ConditionError, match="Did you mean 'style'"):
        latents(adapter, model, Condition(A, scale={"stile": 1.0}))


WRONG = {
    "another input": ({"picture": A, "mask": LEFT}, "takes picture, negative, masks, not mask."),
    "no picture": ({"negative": A}, "needs picture; it is given negative."),
    "pictures too many": ([A, B, C], "is given 3 values as picture for 1 picture."),
    "masks too many": (
        {"picture": A, "masks": [LEFT, LEFT]},
        "is given 2 masks, and 1 as picture.",
    ),
    "negatives too many": (
        {"picture": [[A, B]], "negative": [[A, B, C]]},
        "is given 3 values as negative beside 2 as picture.",
    ),
    "no number": (7, "a value of type int is not an image"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_use_is_an_error_before_any_network_runs(wrong, adapter, model):
    value, message = WRONG[wrong]
    hook = adapter.encoder.register_forward_pre_hook(lambda *_: pytest.fail("a network ran"))
    with pytest.raises(ConditionError) as error:
        latents(adapter, model, value)
    hook.remove()
    assert message in error.value.message
    assert error.value.hint


def test_rows_of_different_lengths_are_refused(adapter, model):
    with pytest.raises(ConditionError, match="given lists of 1 and 2 as picture"):
        latents(adapter, model, [[A], [B, C]], prompt=["a", "b"])


def test_a_hot_swap_exchanges_weights_and_encoders(adapter, model):
    first = latents(adapter, model, A)
    other = KINDS["plus"](key="other")
    other.inject(model).eject()
    for weight in (*other.parts.parameters(), *other.encoder.parameters()):
        weight.data += 0.1
    adapter.hotswap(other)
    assert not close(latents(adapter, model, A), first)
    adapter.eject()
    other.inject(model)
    assert bits(latents(other, model, A)) == bits(first)
    other.eject()
    adapter.inject(model)
