"""Adapters that read prompts compute what a loop computes that is written out."""

from typing import Any

import instruct
import ip_adapter
import photo_maker
import pytest
import torch
from refiners_regional.prompt import RegionalPrompts
from torch import Tensor, nn

from refiners_core.errors import ConditionError
from refiners_core.testing import tiny_model, tiny_sdxl

from .test_contract import PICTURE
from .walk import STEPS, generate, guided, walked

FACES = [PICTURE, 1 - PICTURE]


@pytest.fixture
def model() -> Any:
    return tiny_model()


def at_once(model: Any, **values: Tensor) -> Any:
    """Returns a function that predicts both branches at once, with more values in the context."""

    def denoised(step: int, x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        context = {"timestep": timestep, "text": text, "branches": ("uncond", "cond"), **values}
        return guided(model.unet(torch.cat([x, x]), context=context))

    return denoised


def low(picture: Tensor) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(picture, 2).flatten(1)


@torch.no_grad()
def fused(maker: photo_maker.PhotoMaker, words: Tensor, face: Tensor) -> Tensor:
    """Returns the features of one word, fused with a face."""
    both = torch.cat([words, maker.look(low(face))[0]])
    return words + maker.fuse.norm(maker.fuse.mix(both))


LONG = "a very long story of a cat@"  # two windows; the word ends in the second one
PLACES = {"a cat@": 4, "a (cat:1.5)@": 4, "(a:0.5) cat@": 4, LONG: 16 + 6}


@torch.no_grad()
@pytest.mark.parametrize("prompt", PLACES)
def test_a_face_is_fused_with_the_word_before_the_trigger(model, prompt):
    maker = photo_maker.PhotoMaker().inject(model)
    made = generate(model, prompt=prompt, conditions={maker: PICTURE})
    maker.eject()
    text = model.read(["", prompt], {})["text"]
    tokens = model.tokenize([prompt], {}).ids[0][0]
    place = PLACES[prompt]
    assert tokens[place + 1] == model.tokenizer.tokens("@")[0]
    text[1, place] = fused(maker, text[1, place], PICTURE)
    straight = walked(model, at_once(model), text)
    torch.testing.assert_close(made, straight, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(made, generate(model, prompt=prompt), atol=1e-5)


@torch.no_grad()
def test_each_picture_has_a_face_and_a_prompt_of_its_own(model):
    maker = photo_maker.PhotoMaker().inject(model)
    prompts = ["a cat@", LONG]
    made = generate(model, prompt=prompts, conditions={maker: torch.cat(FACES)})
    alone = [
        generate(model, prompt=prompt, conditions={maker: face}, seed=7 + i)
        for i, (prompt, face) in enumerate(zip(prompts, FACES, strict=True))
    ]
    torch.testing.assert_close(made, torch.cat(alone), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_both_text_encoders_of_sdxl_are_fused_together():
    model = tiny_sdxl()
    maker = photo_maker.PhotoMaker().inject(model)
    seen: list[Tensor] = []
    model.unet.register_forward_pre_hook(
        lambda unet, inputs, kwargs: seen.append(kwargs["context"]["text"]), with_kwargs=True
    )
    generate(model, prompt="a cat@", conditions={maker: PICTURE}, steps=1)
    maker.eject()
    text = model.read(["", "a cat@"], {})["text"]
    text[1, 4] = fused(maker, text[1, 4], PICTURE)
    expected = torch.stack([torch.zeros_like(text[0]), text[1]])
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-6)


def test_a_prompt_without_the_trigger_is_refused_before_any_network_runs(model):
    maker = photo_maker.PhotoMaker(key="photo").inject(model)
    calls: list[int] = []
    model.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(ConditionError, match="photo finds no @ in the prompt"):
        generate(model, conditions={maker: PICTURE})
    assert not calls
    outline = tiny_model(tokenizer=None, device="meta")
    photo_maker.PhotoMaker(key="outlined").inject(outline)
    (outlined,) = outline.adapters
    outline.check("a cat", conditions={outlined: PICTURE})  # without a tokenizer: nothing to find


@torch.no_grad()
def test_an_image_prompt_reads_the_prompt_and_an_instruction(model):
    adapter = instruct.Instruct().inject(model)
    value = {"image": PICTURE, "instruction": "use the style"}
    made = generate(model, conditions={adapter: value})
    image = adapter.project(low(PICTURE)).view(1, ip_adapter.TOKENS, 8)
    texts = [model.read([text], {})["text"] for text in ("use the style", "a red circle")]
    cond = adapter.reader(image, torch.cat(texts, dim=1))
    nothing = adapter.project(torch.zeros(1, 12)).view(1, ip_adapter.TOKENS, 8)
    values = {
        adapter.context_key("tokens"): torch.cat([nothing, cond]),
        adapter.scale_key: torch.tensor(1.0),
    }
    assert made.equal(walked(model, at_once(model, **values)))


def test_prompts_of_adapters_are_the_same_one_branch_at_a_time(model):
    maker = photo_maker.PhotoMaker().inject(model)
    regions = RegionalPrompts().inject(model)
    conditions = {maker: PICTURE, regions: [{"prompt": "a star", "negative": "ink"}]}
    options = {"prompt": LONG, "conditions": conditions, "count": 2, "steps": STEPS}
    together, apart = generate(model, **options), generate(model, **options, sequential=True)
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-4)
