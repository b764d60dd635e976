import copy
import pickle

import pytest
import torch
from torch import nn

from refiners_core import Chain, Context, Passthrough, Scope, UseContext, select
from refiners_core.errors import ModelError
from refiners_core.layers.attend import Attend
from refiners_core.layers.attention import CrossAttention, SelfAttention
from refiners_core.models.unet import (
    DownBlock,
    DownPath,
    MidBlock,
    SkipRead,
    SkipWrite,
    TimeEmbedding,
    UNet,
    UNetConfig,
    UpBlock,
    skip_key,
)

CONFIG = UNetConfig(
    channels=(8, 16, 24),
    layers=(1, 2, 1),
    depths=(1, 2, 0),
    heads=(2, 4, 2),
    text_width=6,
    groups=4,
)
CONTEXT = {"timestep": torch.tensor(3), "text": torch.randn(2, 5, 6)}


@pytest.fixture(scope="module")
def unet() -> UNet:
    torch.manual_seed(0)
    return UNet(CONFIG)


def test_levels_may_have_different_numbers_of_layers(unet):
    assert unet(torch.randn(2, 4, 8, 12), context=CONTEXT).shape == (2, 4, 8, 12)


@pytest.mark.parametrize("size", [(7, 10), (1, 1), (5, 13)])
def test_sizes_need_not_be_multiples(unet, size):
    assert unet(torch.randn(2, 4, *size), context=CONTEXT).shape == (2, 4, *size)


def test_skips_have_the_configured_channels(unet):
    context = Context(CONTEXT)
    unet(torch.randn(2, 4, 8, 8), context=context)
    recorded = [context[skip_key(i)].shape[1] for i in range(len(CONFIG.skip_channels))]
    assert tuple(recorded) == CONFIG.skip_channels == (8, 8, 8, 16, 16, 16, 24)
    assert skip_key(len(recorded)) not in context


def test_every_skip_is_written_and_read_once_the_latest_first(unet):
    written = [w.keep.key for _, w in unet.walk(SkipWrite)]
    read = [r.record.key for _, r in unet.walk(SkipRead)]
    assert written == [skip_key(i) for i in range(7)]
    assert read == written[::-1]


def test_the_skips_of_sd15():
    config = UNetConfig()
    assert config.skip_channels == (320,) * 4 + (640,) * 3 + (1280,) * 5
    assert [config.first_skip(level) for level in range(4)] == [0, 3, 6, 9]


def test_each_place_that_adapters_edit_can_be_named(unet):
    inside = {
        "skip.write": select(unet).named("record").within(SkipWrite),
        "skip.read": select(unet).named("record").within(SkipRead),
        "skip.backbone": select(unet).named("backbone").within(SkipRead),
        "down.output": select(unet).named("output").within(DownBlock),
        "mid.output": select(unet).named("output").within(MidBlock),
        "self": select(unet).of(SelfAttention),
        "self.attend": select(unet).of(Attend).within(SelfAttention),
        "cross.attend": select(unet).of(Attend).within(CrossAttention),
    }
    # 1 + 2 * 2 blocks down, 1 in the middle, 3 * 2 + 2 up
    attentions = 5 + 1 + 8
    assert {name: len(recorded) for name, recorded in inside.items()} == {
        "skip.write": 7,
        "skip.read": 7,
        "skip.backbone": 7,
        "down.output": 3,
        "mid.output": 1,
        "self": attentions,
        "self.attend": attentions,
        "cross.attend": attentions,
    }
    assert next(iter(select(unet))).path == "input"


def test_a_block_s_output_comes_before_its_last_skip():
    names = [name for name, _ in DownBlock(CONFIG, 1).children_by_name()]
    assert names == [
        *("resnet_0", "transformer_0", "write_0", "resnet_1", "transformer_1"),
        *("output", "write_1", "downsample", "write_2"),
    ]
    assert not select(UpBlock(CONFIG, 0)).named("upsample")


def test_a_side_network_is_made_of_the_encoder_s_parts(unet):
    """Its skips stay in its scope; the UNet beside it computes what it would without."""
    side = Chain(
        time=TimeEmbedding(CONFIG),
        conv_in=nn.Conv2d(4, 8, 3, padding=1),
        write=SkipWrite(0),
        down=DownPath(CONFIG),
        mid=MidBlock(CONFIG),
        last=UseContext(skip_key(6)),
    )
    both = Chain(Passthrough(Scope(side)), unet)
    x = torch.randn(2, 4, 8, 8)
    assert side(x, context=CONTEXT).shape == (2, 24, 2, 2)
    assert both(x, context=CONTEXT).equal(unet(x, context=CONTEXT))


def test_each_row_may_have_its_own_timestep(unet):
    x = torch.randn(2, 4, 8, 8)
    together = unet(x, context=CONTEXT | {"timestep": torch.tensor([3, 700])})
    for row, timestep in enumerate((3, 700)):
        alone = {"timestep": torch.tensor(timestep), "text": CONTEXT["text"][row : row + 1]}
        assert torch.allclose(together[row], unet(x[row : row + 1], context=alone)[0], atol=1e-5)


def test_it_computes_in_the_dtype_of_its_weights():
    context = {"timestep": torch.tensor(999), "text": CONTEXT["text"].bfloat16()}
    y = UNet(CONFIG).to(torch.bfloat16)(torch.randn(2, 4, 8, 8).bfloat16(), context=context)
    assert y.dtype == torch.bfloat16


def test_copies_and_pickles_compute_the_same(unet):
    x = torch.randn(2, 4, 8, 8)
    expected = unet(x, context=CONTEXT)
    for twin in (copy.deepcopy(unet), pickle.loads(pickle.dumps(unet)), unet.copy()):
        assert twin(x, context=CONTEXT).equal(expected)


@pytest.mark.parametrize(
    ("published", "word"),
    [
        ({"down_block_types": ["AttnDownBlock2D"] * 4}, "down_block_types"),
        ({"up_block_types": ["UpBlock2D"] * 4}, "up_block_types"),
        ({"attention_head_dim": [8, 8]}, "attention_head_dim"),
        ({"cross_attention_dim": [768] * 4}, "cross_attention_dim"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"act_fn": "gelu"}, "act_fn"),
        ({"block_out_channels": "many"}, "block_out_channels"),
        ({"_class_name": "UNet3DConditionModel"}, "UNet3DConditionModel"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused_by_name(published, word):
    with pytest.raises(ModelError, match=word):
        UNetConfig.from_json(published)


def test_a_configuration_names_one_number_for_each_level():
    with pytest.raises(ModelError, match="2 levels of channels but heads"):
        UNetConfig(channels=(8, 16), layers=(1, 1), depths=(1, 1), heads=(1,))
