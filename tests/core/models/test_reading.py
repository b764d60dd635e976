"""Prompts as adapters see them: in the request, while they are read, and as they are handed on."""

from contextlib import nullcontext
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from torch import nn

from refiners_core import Adapter, Chain, Condition, Lambda, Layer, Residual, When
from refiners_core.models.clip import ClipSkip
from refiners_core.models.diffusion import request as request_module
from refiners_core.testing import tiny_model, tiny_sdxl

LONG = "a (heavy:1.3) cat and (one:0.5) more on a red table"


def run(model, prompt="a cat", **arguments):
    defaults = {"steps": 1, "seed": 7, "output": "latents", "progress": False}
    return model.generate(prompt, **defaults | arguments)


class Lean(Adapter):
    """Adds a value for each image to the features at one slot of the text encoder."""

    takes_condition = True

    def __init__(self, slot):
        super().__init__()
        self.slot = slot

    def edits(self, model):
        def leaning(inner, seat):
            return Chain(inner, Residual(When(self.scale_key, Shift(self.context_key("value")))))

        return model.slot(self.slot).wrap(leaning, stage="output")

    def encode(self, value, request):
        self.request = request
        value = torch.as_tensor(value).view(-1, 1)
        return {self.context_key("value"): {"cond": value, "uncond": -value}}


class Shift(Layer):
    """Returns a value of each row times numbers from -1 to 1, one for each feature."""

    def __init__(self, key):
        super().__init__()
        self.key = key

    def run(self, context, *inputs):
        return context[self.key][:, None] * torch.linspace(-1, 1, inputs[0].shape[-1])


class Seen:
    """Records the texts that the UNet reads."""

    def __init__(self, model):
        self.text = []
        model.unet.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, unet, inputs, kwargs):
        self.text.append(kwargs["context"]["text"])


SLOTS = ("embedding", "layer", "output", "text")


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("build", [tiny_model, tiny_sdxl])
def test_each_image_is_read_with_its_own_values(build, slot):
    model = build()
    seen, lean = Seen(model), Lean(f"text_encoder.{slot}").inject(model)
    prompts, negatives, values = [LONG, "a cat"], ["dark", LONG], [0.1, 0.7]
    run(model, prompts, negative_prompt=negatives, conditions={lean: values})
    (together,) = seen.text
    for i, value in enumerate(values):
        run(model, prompts[i], negative_prompt=negatives[i], conditions={lean: value})
        uncond, cond = seen.text[-1]
        torch.testing.assert_close(uncond, together[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(cond, together[2 + i], rtol=1e-4, atol=1e-5)
    run(model, prompts[1], negative_prompt=negatives[1], conditions={lean: None})
    assert not torch.allclose(seen.text[-1][1], together[3], atol=1e-3)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("build", [tiny_model, tiny_sdxl])
def test_the_output_is_what_is_handed_on(build, skip):
    model = build(**{"text_encoder": deeper()} | two(build))
    if skip:
        ClipSkip(layers=1).inject(model)
    outputs, seen = [], Seen(model)
    for seat in model.slot("text_encoder.output"):
        seat.layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output))
    run(model, ["a cat", LONG], negative_prompt="dark", count=2)
    length = outputs[0].shape[1]
    assert [tuple(output.shape) for output in outputs] == [(3, length, 8)] * len(outputs)
    assert length > 16
    text = torch.cat(outputs, dim=-1)
    assert seen.text[0].equal(text[[0, 0, 0, 0, 1, 1, 2, 2]])


def deeper():
    return replace(tiny_model().text_encoder.config, layers=4)


def two(build):
    if build is tiny_model:
        return {}
    second = replace(deeper(), activation="gelu", projection_width=8)
    return {"text_encoder_2": second}


def test_an_empty_negative_prompt_of_sdxl_is_silent_at_the_output():
    model, outputs = tiny_sdxl(), []
    for seat in model.slot("text_encoder.output"):
        seat.layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output))
    run(model)
    run(model, negative_prompt="dark")
    assert [bool(output[0].any()) for output in outputs] == [False, False, True, True]
    assert all(output[1].any() for output in outputs)


def test_layers_are_places_in_every_encoder():
    assert len(tiny_model().slot("text_encoder.layer")) == 2
    assert len(tiny_sdxl().slot("text_encoder.layer")) == 4


class Asks(Lean):
    """Keeps the requests that it gets."""

    def check(self, value, request):
        self.checked = request


def requests(model, prompt="a cat", **arguments):
    asks = Asks("text_encoder.output")
    with asks.on(model):
        run(model, prompt, conditions={asks: 0.1}, **arguments)
    return asks.checked, asks.request


def test_a_request_has_the_text_of_each_image_by_branch(model):
    for request in requests(model, ["a cat", "a dog"], count=2, negative_prompt="dark"):
        assert request.prompts == {"uncond": ("dark",) * 4, "cond": ("a cat",) * 2 + ("a dog",) * 2}
    for request in requests(model, guidance=1.0):
        assert request.prompts == {"cond": ("a cat",)}
        assert {*request.tokens} == {"cond"}


def test_a_request_has_a_token_for_each_feature(model):
    seen = Seen(model)
    for request in requests(model, [LONG, "a (cat:1.5)"], count=2, negative_prompt="dark"):
        tokens = request.tokens
    length = seen.text[0].shape[1]
    for branch in ("uncond", "cond"):
        assert tokens[branch].ids[0].shape == tokens[branch].weights.shape == (4, length)
    cat = model.tokenizer.tokens("cat")
    ids, weights = tokens["cond"].ids[0][2], tokens["cond"].weights[2]
    assert ids[:5].tolist() == [model.tokenizer.start, *model.tokenizer.tokens("a"), *cat]
    assert weights[:6].tolist() == [1, 1, 1.5, 1.5, 1.5, 1]
    assert ids.view(-1, 16).unique(dim=0).shape == (1, 16)  # repeated, as its features are
    assert tokens["cond"].ids[0][0].equal(tokens["cond"].ids[0][1])


def test_the_second_encoder_of_sdxl_reads_other_padding():
    model = tiny_sdxl()
    first, second = requests(model)[1].tokens["cond"].ids
    assert first[0, :6].equal(second[0, :6])  # start, four letters, end
    assert (first[0, 6:] == model.tokenizer.padding).all()
    assert (second[0, 6:] == 0).all()


class Word(Adapter):
    """Brings a word of two tokens, both of them zeros."""

    words = MappingProxyType({"<it>": 2})

    def edits(self, model):
        def known(inner, seat):
            return Chain(Lambda(not_negative), inner)

        return model.slot("text_encoder.embedding").wrap(known, stage="inputs")


def not_negative(ids):
    return ids.clamp(min=0)


def test_tokens_are_those_of_the_adapters_that_act(model):
    word = Word().inject(model)
    request = requests(model, "<it>")[0]
    assert request.tokens["cond"].ids[0][0, 1:3].tolist() == [-1, -2]
    asks = Asks("text_encoder.output").inject(model)
    run(model, "<it>", conditions={asks: 0.1, word: None})
    assert asks.checked.tokens["cond"].ids[0][0, 1] >= 0
    assert asks.checked.read(["<it>"])["text"].equal(model.read(["<it>"], {})["text"])


class Turn(Adapter):
    """Turns the features of texts around."""

    def edits(self, model):
        turned = When(self.scale_key, Lambda(negative))
        return model.slot("text_encoder.output").wrap(
            lambda inner, seat: Chain(inner, Residual(turned)), stage="output"
        )


def negative(x):
    return -3 * x


class Reads(Lean):
    """Reads a text while it encodes its condition."""

    def encode(self, value, request):
        self.features = request.read(["a dog"])["text"]
        return super().encode(value, request)


def test_texts_are_read_as_adapters_without_a_condition_change_them(model):
    reads, bare = Reads("text_encoder.output").inject(model), model.read(["a dog"], {})["text"]
    run(model, conditions={reads: 0.1})
    assert reads.features.equal(bare)
    turn = Turn().inject(model)
    run(model, conditions={reads: 0.1})
    torch.testing.assert_close(reads.features, -2 * bare.detach())
    run(model, conditions={reads: 0.1, turn: Condition(scale=0)})
    assert reads.features.equal(bare)


def test_texts_are_read_in_the_dtype_of_the_network_and_with_offload(model, monkeypatch):
    reads, places = Reads("text_encoder.output").inject(model), []

    def recorded(part, device):
        places.append((part is model.text_encoder, str(device)))
        return nullcontext()

    monkeypatch.setattr(request_module, "moved", recorded)
    model.unet.double()
    run(model, conditions={reads: 0.1}, offload="cpu")
    assert places == [(True, "cpu")]
    assert reads.features.dtype == torch.float64
    assert reads.features.grad_fn is None


class Replaced(Adapter):
    """Brings another text encoder, which knows nothing of windows."""

    def edits(self, model):
        def other(seat):
            return self.layer(seat, lambda: Chain(nn.Embedding(600, 8)))

        return model.slot("text_encoder.text").replace(other)


def test_a_text_encoder_that_an_adapter_brings_reads_long_and_weighted_texts(model):
    with Replaced().on(model) as adapter:
        text = model.read(["a", LONG], {})["text"]
        table = next(adapter.parameters()).detach()
        ids, weights = model.tokenize([LONG], {}).ids[0][0], model.tokenize([LONG], {}).weights[0]
    empty = table[model.tokenizer.windows("")[0][0]].repeat(len(ids) // 16, 1)
    expected = empty + weights[:, None] * (table[ids] - empty)
    torch.testing.assert_close(text[1], expected)


class Blocks(Layer):
    def run(self, context, *inputs):
        assert context["branches"] == ("uncond", "cond")
        return inputs[0]


def test_layers_of_the_text_encoder_know_the_branches(model):
    class Knows(Lean):
        def edits(self, model):
            return model.slot("text_encoder.output").before("knows", lambda seat: Blocks())

    run(model, conditions={Knows("").inject(model): 0.1})
