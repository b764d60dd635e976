import math

import pytest
import torch
from torch import nn

from refiners_core import Context
from refiners_core.errors import ModelError
from refiners_core.layers.attend import Attend
from refiners_core.layers.attention import CrossAttention, SelfAttention
from refiners_core.layers.embedding import PositionEmbedding
from refiners_core.layers.feed_forward import GatedFeedForward, QuickGelu
from refiners_core.layers.resample import Downsample, Upsample, UpsampleLike
from refiners_core.layers.residual_block import ResidualBlock
from refiners_core.layers.timestep import SinusoidalEmbedding, TimestepEncoder
from refiners_core.layers.tokens import AsTokens
from refiners_core.layers.transformer import SpatialTransformer


def near(a, b) -> bool:
    return torch.allclose(a, b, atol=1e-6)


def test_attending_is_a_softmax_over_keys():
    q, k, v = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    weights = (q @ k.mT / math.sqrt(4)).softmax(-1)
    assert near(Attend(1)(q, k, v), weights @ v)


def test_each_head_attends_in_its_part_of_the_width():
    q, k, v = torch.randn(1, 3, 6), torch.randn(1, 3, 6), torch.randn(1, 3, 6)
    parts = [
        Attend(1)(a, b, c)
        for a, b, c in zip(q.split(2, -1), k.split(2, -1), v.split(2, -1), strict=True)
    ]
    assert near(Attend(3)(q, k, v), torch.cat(parts, -1))


def test_a_causal_token_does_not_see_later_ones():
    attention = SelfAttention(4, 2, is_causal=True)
    x = torch.randn(1, 5, 4)
    changed = torch.cat([x[:, :3], torch.randn(1, 2, 4)], 1)
    assert near(attention(x)[:, :3], attention(changed)[:, :3])
    assert not near(attention(x)[:, 3:], attention(changed)[:, 3:])


def attended(q, k, v, added):
    """Returns the attention of one head, from its formula."""
    return (q @ k.mT / math.sqrt(q.shape[-1]) + added).softmax(-1) @ v


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("queries", [1, 3])
def test_a_mask_is_added_to_the_logits_of_all_heads(rows, queries):
    q, k, v = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    mask = torch.randn(rows, queries, 5)
    parts = [attended(*(x[..., i : i + 2] for x in (q, k, v)), mask) for i in (0, 2)]
    assert near(Attend(2)(q, k, v, mask), torch.cat(parts, -1))
    looks = torch.rand(rows, queries, 5) > 0.5
    looks[..., 0] = True
    added = torch.zeros(looks.shape).masked_fill(~looks, float("-inf"))
    assert near(Attend(2)(q, k, v, looks), Attend(2)(q, k, v, added))


@pytest.mark.parametrize("queries", [1, 5])
def test_under_a_mask_a_causal_token_still_does_not_see_later_ones(queries):
    q, k, v = torch.randn(2, 5, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    mask = torch.randn(2, queries, 5)
    added = mask + torch.full((5, 5), float("-inf")).triu(1)
    assert near(Attend(1, is_causal=True)(q, k, v, mask), attended(q, k, v, added))
    everything = torch.ones(2, queries, 5, dtype=torch.bool)
    assert near(Attend(1, is_causal=True)(q, k, v, everything), Attend(1, is_causal=True)(q, k, v))


def test_cross_attention_attends_to_the_text_of_the_context():
    attention = CrossAttention(4, 2, source_width=6)
    x, text = torch.randn(2, 3, 4), torch.randn(2, 7, 6)
    assert attention(x, context={"text": text}).shape == (2, 3, 4)
    project = attention.project
    alone = attention.attend(project.to_q(x), project.to_k(text), project.to_v(text))
    assert near(attention(x, context={"text": text}), attention.to_out(alone))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ModelError, match="10 features cannot be divided among 3 heads"):
        SelfAttention(10, 3)


@pytest.mark.parametrize("is_linear", [False, True])
def test_a_transformer_returns_a_contiguous_map(is_linear):
    layer = SpatialTransformer(8, 2, 5, depth=2, groups=4, is_linear=is_linear)
    y = layer(torch.randn(2, 8, 3, 4), context={"text": torch.randn(2, 6, 5)})
    assert y.shape == (2, 8, 3, 4)
    assert y.is_contiguous()


def test_tokens_are_the_positions_of_a_map_row_by_row():
    seen = []

    class Look(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x

    x = torch.arange(12.0).view(1, 2, 2, 3)
    assert AsTokens(Look())(x).equal(x)
    assert seen[0][0, :, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_half_of_the_features_gate_the_others():
    layer = GatedFeedForward(3, 5)
    x = torch.randn(1, 2, 3)
    value, gate = layer.expand(x).split(5, -1)
    assert near(layer(x), layer.contract(value * nn.GELU()(gate)))


def test_quick_gelu_is_near_gelu():
    x = torch.linspace(-4, 4, 50)
    assert (QuickGelu()(x) - nn.GELU()(x)).abs().max() < 0.03


def test_a_sinusoidal_embedding_begins_with_the_cosine_of_the_timestep():
    waves = SinusoidalEmbedding(8)(torch.tensor([0, 3]), torch.zeros(1))
    assert waves[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert waves[1, 0].item() == pytest.approx(math.cos(3))
    assert waves[1, 5].item() == pytest.approx(math.sin(3 * 10000 ** (-1 / 4)))


def test_one_timestep_serves_all_rows_in_the_dtype_of_the_map():
    encoder = TimestepEncoder(4, 6).to(torch.bfloat16)
    like = torch.zeros(3, 2, dtype=torch.bfloat16)
    assert encoder(torch.tensor(999), like).shape == (1, 6)
    assert encoder(torch.tensor(999), like).dtype == torch.bfloat16
    # Rounded only after the embedding: in bfloat16, 999 would be 1000.
    assert not encoder(torch.tensor(999), like).equal(encoder(torch.tensor(1000), like))


def test_an_odd_width_of_a_sinusoidal_embedding_is_refused():
    with pytest.raises(ModelError, match=r"cosines and sines\), not 5"):
        SinusoidalEmbedding(5)


def test_sizes_are_halved_rounding_up_and_doubled():
    x = torch.randn(1, 4, 5, 8)
    assert Downsample(4)(x).shape == (1, 4, 3, 4)
    assert Downsample(4, pads_end=True)(x).shape == (1, 4, 2, 4)
    assert Upsample(4)(x).shape == (1, 4, 10, 16)


def test_a_map_is_enlarged_to_the_size_of_another():
    layer = UpsampleLike(4, like="other")
    x, context = torch.randn(1, 4, 3, 4), Context({"other": torch.zeros(1, 9, 5, 8)})
    assert layer(x, context=context).shape == (1, 4, 5, 8)
    doubled = Upsample(4)
    doubled.conv.load_state_dict(layer.conv.state_dict())
    context["other"] = torch.zeros(1, 1, 6, 8)
    assert layer(x, context=context).equal(doubled(x))


def test_a_residual_block_begins_with_its_shortcut():
    block = ResidualBlock(4, 4, groups=2, eps=1e-5)
    nn.init.zeros_(block.body.conv_2.weight)
    nn.init.zeros_(block.body.conv_2.bias)
    x = torch.randn(1, 4, 3, 3)
    assert block(x).equal(x)
    assert ResidualBlock(4, 6, groups=2, eps=1e-5)(x).shape == (1, 6, 3, 3)


def test_channels_that_groups_do_not_divide_are_refused():
    with pytest.raises(ModelError, match="6 channels cannot be divided among 4 groups"):
        ResidualBlock(4, 6, groups=4, eps=1e-5)


def test_a_sequence_that_is_too_long_is_refused():
    places = PositionEmbedding(4, 2)
    assert places(torch.zeros(1, 3, dtype=torch.long)).shape == (3, 2)
    with pytest.raises(ModelError, match="5 tokens is too long for 4 positions"):
        places(torch.zeros(1, 5, dtype=torch.long))
