"""Decoders under adapters: the stable places, what each token attends to, keys that are added."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from refiners_core import Adapter, Chain, Condition, Context, Lambda, Layer, Sum
from refiners_core.models.decoder import (
    CACHE,
    TOKEN_MASK,
    BeginText,
    BegunKeys,
    Cache,
    Decoder,
    DecoderConfig,
    KeysBefore,
    LanguageModel,
    LaterPlaces,
    PromptCache,
)
from refiners_core.models.decoder.rope import Rope
from refiners_core.testing import tiny_sdxl

CONFIG = DecoderConfig(
    family="llama", vocabulary=20, width=16, inner_width=24, layers=2, heads=4, kv_heads=2,
    head_width=4, places=64,
)  # fmt: skip
GPT2 = replace(
    CONFIG, family="gpt2", kv_heads=4, rope=None, norm="layer", is_gated=False, is_tied=True
)


def language_model(config: DecoderConfig = CONFIG) -> LanguageModel:
    torch.manual_seed(0)
    decoder = Decoder(config).eval().requires_grad_(False)
    for weight in decoder.parameters():
        weight.data = torch.randn(weight.shape) * 0.4
    return LanguageModel(decoder)


def ids_of(rows: int = 2, tokens: int = 9) -> torch.Tensor:
    return torch.randint(0, 20, (rows, tokens), generator=torch.Generator().manual_seed(1))


def near(a, b) -> bool:
    return torch.allclose(a, b, atol=1e-5)


def test_places_have_stable_names():
    counts = {
        **{"decoder.embed": 1, "decoder.places": 1, "decoder.block": 2, "decoder.attend": 2},
        **{"decoder.attention.input": 2, "decoder.feed_forward.input": 2},
        **{"decoder.attention.output": 2, "decoder.feed_forward.output": 2, "decoder.head": 1},
    }
    for config, linear in ((CONFIG, 14), (GPT2, 12)):
        model = language_model(config)
        assert {name: len(model.slot(name).seats) for name in model.slots} == {
            **counts,
            "decoder.linear": linear,
            "decoder.norm": 5,
        }
    assert model.facts == {"width": 16, "layers": 2, "key_width": 16, "vocabulary": 20}


@pytest.mark.parametrize("position", range(10))
def test_a_window_holds_the_token_itself_and_those_just_before(position: int):
    model = language_model(replace(CONFIG, layers=1, windows=(4,)))
    ids = ids_of(1, 10)
    changed = ids.clone()
    changed[0, position] = (ids[0, position] + 1) % 20
    is_same = [
        torch.equal(a, b)
        for a, b in zip(model.decoder(ids)[0], model.decoder(changed)[0], strict=True)
    ]
    assert is_same == [not position <= query < position + 4 for query in range(10)]


def test_a_call_leaves_nothing_in_the_context():
    model, context = language_model(), {CACHE: Cache(4), TOKEN_MASK: torch.ones(2, 9).bool()}
    values = Context(context)
    model.decoder(ids_of(), context=values)
    assert {*values.keys()} == {CACHE, TOKEN_MASK}


# --- adapters that add keys, features and places ---


class MoreKeys(Adapter):
    """Puts two keys and values before those of the tokens, and moves the tokens by two places."""

    def edits(self, model):
        def longer(inner: nn.Module, seat) -> nn.Module:
            heads = seat.layer.kv_heads
            generator = torch.Generator().manual_seed(3)
            k, v = torch.randn(2, 1, 2, heads * 4, generator=generator)

            def add(q, keys, values, *rest):
                more = [x.expand(len(q), -1, -1) for x in (k, v)]
                keys, values = (
                    torch.cat(pair, 1) for pair in zip(more, (keys, values), strict=True)
                )
                return q, keys, values, *rest

            return Chain(Lambda(add), inner)

        moved = model.slot("decoder.places").wrap(
            lambda inner, seat: Chain(inner, Lambda(lambda places: places + 2)), stage="output"
        )
        return (*model.slot("decoder.attend").wrap(longer, stage="inputs"), *moved)


class Virtual(Adapter):
    """Puts features of two tokens before those of the first call of a generation."""

    def edits(self, model):
        class Longer(Layer):
            def run(self, context, *inputs):
                features, cache = inputs[0], context.get(CACHE)
                if cache is not None and cache.length:
                    return features
                more = torch.ones(1, 2, 16).expand(len(features), -1, -1) * 0.3
                mask = context.get(TOKEN_MASK)
                if mask is not None:
                    context[TOKEN_MASK] = torch.cat([mask.new_ones(len(mask), 2), mask], 1)
                return torch.cat([more, features], 1)

        return model.slot("decoder.embed").wrap(
            lambda inner, seat: Chain(inner, Longer()), stage="output"
        )


class Begun(Adapter):
    """Begins texts with the features of `Virtual`, outside the sequence."""

    tokens_before = 2

    def edits(self, model):
        def begun(inner: nn.Module, seat) -> nn.Module:
            return Chain(
                self.layer(seat, lambda: BeginText(self.key, torch.full((2, 16), 0.3))), inner
            )

        def longer(inner: nn.Module, seat) -> nn.Module:
            window = dict(enumerate(model.config.windows)).get(int(seat.path.split(".")[2]))
            return KeysBefore(BegunKeys(self.key), inner, self.scale_key, window)

        later = LaterPlaces(self.scale_key, 2, self.key)
        return (
            *model.slot("decoder.embed").wrap(begun, stage="inputs"),
            *model.slot("decoder.attend").wrap(longer, stage="inputs"),
            *model.slot("decoder.places").wrap(
                lambda inner, _: Chain(inner, later), stage="output"
            ),
        )


@pytest.mark.parametrize("config", [CONFIG, GPT2, replace(CONFIG, windows=(4, None))], ids=str)
def test_tokens_before_a_text_compute_what_they_compute_in_the_sequence(config):
    model, ids = language_model(config), ids_of()
    mask = torch.arange(9) >= torch.tensor([[3], [0]])
    with Virtual().on(model):
        theirs = model.decoder(ids, context={TOKEN_MASK: mask})[:, -9:]
    adapter = Begun(key="begun").inject(model)
    scale = {adapter.scale_key: torch.tensor(1.0)}
    ours = model.decoder(ids, context={**scale, TOKEN_MASK: mask})
    assert ours.shape == theirs.shape
    assert near(ours[mask], theirs[mask])
    cache = Cache(9)
    parts = [model.decoder(part, context={**scale, CACHE: cache}) for part in ids.split((4, 5), 1)]
    assert near(torch.cat(parts, 1), model.decoder(ids, context=scale))
    assert cache.length == 9
    rows = model.score([ids[0], ids[1]], conditions={adapter: Condition(scale=[0, 1])})
    assert near(rows[1].log_probabilities, model.score(ids[1]).log_probabilities)
    adapter.eject()
    bare = model.score([ids[0], ids[1]])
    assert torch.equal(rows[0].log_probabilities, bare[0].log_probabilities)
    assert not near(rows[1].log_probabilities, bare[1].log_probabilities)


def test_features_take_the_place_of_those_of_tokens():
    model, ids = language_model(replace(CONFIG, embedding_scale=3.0)), ids_of()
    with Virtual().on(model):  # an edit of the embedding, which features do not pass
        features = model.decoder.magnify(model.decoder.embed(ids))
        assert torch.equal(
            model.decoder(features), Decoder.forward(copy.deepcopy(model).decoder, ids)
        )


@pytest.mark.parametrize("adapter", [MoreKeys, Virtual])
@pytest.mark.parametrize("config", [CONFIG, GPT2, replace(CONFIG, windows=(4, None))], ids=str)
def test_the_cache_is_right_under_adapters_that_add_keys(adapter, config):
    model, ids = language_model(config), ids_of()
    bare = model.decoder(ids)
    mask = torch.arange(9) >= torch.tensor([[3], [0]])
    with adapter().on(model):
        whole = model.decoder(ids, context={TOKEN_MASK: mask})[:, -9:]
        assert not near(whole[1], bare[1])
        cache = Cache(5)
        parts = [
            model.decoder(part, context={CACHE: cache, TOKEN_MASK: real})
            for part, real in zip(
                ids.split((4, 3, 1, 1), 1), mask.split((4, 3, 1, 1), 1), strict=True
            )
        ]
        assert near(torch.cat(parts, 1)[:, -9:][mask], whole[mask])
        # Without padding, and a row alone: the same.
        alone = model.decoder(ids[:1, 3:])[:, -6:]
        assert near(alone, whole[:1, 3:])
        assert near(model.decoder(ids)[1:, -9:], whole[1:])
    assert torch.equal(model.decoder(ids), bare)


def test_added_keys_are_seen_by_every_token():
    model = language_model(replace(CONFIG, windows=(1, 1)))  # each token sees itself alone
    ids = ids_of()
    bare = model.decoder(ids)
    with MoreKeys().on(model):
        assert all(not near(a, b) for a, b in zip(model.decoder(ids)[0], bare[0], strict=True))


def test_a_change_beside_a_tied_head_leaves_the_embedding():
    model, ids = language_model(GPT2), ids_of()
    bare = model.decoder(ids)
    table = model.decoder.embed.weight.clone()

    class Beside(Adapter):
        def edits(self, model):
            return model.slot("decoder.head").wrap(
                lambda inner, seat: Sum(inner, self.layer(seat, lambda: nn.Linear(16, 20)))
            )

    with Beside().on(model):
        assert not near(model.decoder(ids), bare)
        assert torch.equal(model.decoder.embed.weight, table)
    assert model.decoder.head.weight is model.decoder.embed.weight


def test_moving_and_copying_keep_the_head_tied():
    for twin in (copy.deepcopy(language_model(GPT2)), language_model(GPT2).to(torch.float64)):
        assert twin.decoder.head.weight is twin.decoder.embed.weight


def test_layers_have_their_published_names_and_shares():
    linear = language_model().published_places("decoder.linear")["decoder"]
    assert len(linear) == 14
    ((seat, transform),) = linear["model.layers.1.mlp.down_proj"]
    assert (seat.path, transform.shares) == ("decoder.blocks.1.feed_forward.contract", 1)
    places = language_model(GPT2).published_places("decoder.linear")["decoder"]
    fused = places["transformer.h.0.attn.c_attn"]
    assert [(seat.name, how.share, how.shares) for seat, how in fused] == [
        ("to_q", 0, 3), ("to_k", 1, 3), ("to_v", 2, 3)
    ]  # fmt: skip


def test_layers_of_latent_diffusion_have_published_names_in_each_part():
    model = tiny_sdxl()
    assert "time_embedding.linear_1" in model.published_places("unet.linear")["unet"]
    text = model.published_places("text_encoder.linear")
    for part in ("text_encoder.clip_l.encoder", "text_encoder.clip_g.encoder"):
        ((seat, _),) = text[part]["text_model.encoder.layers.0.mlp.fc1"]
        assert seat.path.startswith(part)


def test_decoders_in_one_context_rotate_each_by_its_own_frequencies():
    context = Context()
    for theta in (10000.0, 100.0, 10000.0):
        decoder = language_model(replace(CONFIG, rope=Rope(theta))).decoder
        assert torch.equal(decoder(ids_of(), context=context), decoder(ids_of()))


def test_a_model_that_has_written_can_be_trained():
    model, cache = language_model(), PromptCache()
    for _ in range(2):
        model.generate(ids_of(1)[0], max_new_tokens=3, output="tokens", reuse=cache)
    model.decoder.requires_grad_(True)
    model.decoder(ids_of()).logsumexp(-1).mean().backward()
    assert all(weight.grad is not None for weight in model.decoder.parameters())
    read = model.generate(ids_of(1)[0], max_new_tokens=3, output="scores")
    assert not read.log_probabilities.is_inference()
    assert not model.score(ids_of(1)[0]).log_probabilities.is_inference()
