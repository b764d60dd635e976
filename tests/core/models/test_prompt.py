"""Long and weighted prompts, and clip skip."""

import pytest
import torch
from torch import nn

from refiners_core import Adapter, Sum
from refiners_core.errors import AdapterError
from refiners_core.models.clip import ClipSkip
from refiners_core.models.samplers import DPM2M

LONG = "a red circle over two blue squares"  # 28 letters, where a window holds 14


def read(model, *texts):
    with torch.no_grad():
        return model.read(texts, {})["text"]


def run(model, prompt, **arguments):
    arguments = {"steps": 4, "seed": 7, "sampler": DPM2M(model.sampler.schedule)} | arguments
    return model.generate(prompt, **arguments, output="latents", progress=False)


def test_a_long_prompt_is_read_to_its_end(model):
    assert read(model, LONG).shape == (1, 32, 8)
    assert not read(model, LONG).equal(read(model, LONG.replace("squares", "figures")))
    assert read(model, LONG)[:, :16].equal(read(model, "a red circle over"))


def test_texts_of_different_lengths_are_tiled_to_equal_length(model):
    short, long = read(model, "a", LONG)
    assert short.equal(torch.cat([read(model, "a")[0]] * 2))
    torch.testing.assert_close(long, read(model, LONG)[0])


def test_batching_changes_no_image_of_a_long_prompt(model):
    batch = run(model, ["a", LONG, "b " * 40], negative_prompt="dull")
    alone = [
        run(model, prompt, negative_prompt="dull", seed=7 + i)
        for i, prompt in enumerate(["a", LONG, "b " * 40])
    ]
    torch.testing.assert_close(batch, torch.cat(alone))


def test_weights_scale_away_from_an_empty_prompt(model):
    plain, empty = read(model, "a red b"), read(model, "")
    parse_weights = read(model, "a (red:1.5) b")
    where = slice(2, 5)
    expected = empty + 1.5 * (plain - empty)
    torch.testing.assert_close(parse_weights[:, where], expected[:, where])
    assert parse_weights[:, :2].equal(plain[:, :2])
    assert parse_weights[:, 5:].equal(plain[:, 5:])
    assert read(model, "a (red:1) b").equal(plain)
    assert read(model, "a (red:0) b")[:, where].allclose(empty[:, where])


def test_escaped_parentheses_are_words(model):
    assert read(model, r"\(a:2\)").equal(read(model, r"(a:2\)"))
    assert not read(model, r"\(a:2\)").equal(read(model, "(a:2)"))


class Louder(Adapter):
    """Something like a LoRA: a branch beside linear layers of the text encoder."""

    def edits(self, model):
        return model.slot("text_encoder.linear").wrap(
            lambda inner, seat: Sum(
                inner,
                self.layer(
                    seat, lambda: nn.Linear(seat.layer.in_features, seat.layer.out_features)
                ),
            ),
            stage="branch",
        )


def test_skipped_layers_do_not_run_and_the_others_are_unchanged(model):
    before = read(model, "a")
    encoder = model.text_encoder
    tokens, _ = model.tokenizer.windows("a")
    with ClipSkip(layers=1).on(model):
        skipped = read(model, "a")
        assert "Skipped" in str(model.text_encoder)
    x = encoder.embed(tokens)
    expected = encoder.norm(encoder.layer("transformer.0")(x))
    assert skipped.equal(expected)
    assert not skipped.equal(before)
    assert read(model, "a").equal(before)


def test_clip_skip_combines_with_adapters_of_the_layers(model):
    louder, skip = Louder(), ClipSkip()
    with louder.on(model), skip.on(model):
        first = read(model, "a")
    with skip.on(model), louder.on(model):
        assert read(model, "a").equal(first)
    with skip.on(model):
        assert not read(model, "a").equal(first)


def test_at_least_one_layer_is_left(model):
    with pytest.raises(AdapterError, match=r"skips 2 of 2 layers.*ClipSkip\(layers=1\)"):
        ClipSkip(layers=2).inject(model)
    with pytest.raises(AdapterError, match="at least one layer, not 0"):
        ClipSkip(layers=0)
