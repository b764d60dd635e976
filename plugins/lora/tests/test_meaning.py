"""A LoRA equals adding `scale * alpha / rank * up @ down` to each weight."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from refiners_lora.adapter import Lora
from refiners_lora.alpha import Alphas
from refiners_lora.layer_name import SLOTS, places_by_name

from refiners_core import Source
from refiners_core.errors import WeightsError
from refiners_core.models import sd15, sdxl
from refiners_core.testing import tiny_model
from refiners_core.weights import write

SCALE = 0.7
NAMES = {
    "lora_unet_down_blocks_0_downsamplers_0_conv": "unet.down.0.downsample.conv",
    "lora_unet_up_blocks_0_upsamplers_0_conv": "unet.up.0.upsample.conv",
    "lora_unet_mid_block_resnets_0_conv1": "unet.mid.resnet_0.body.conv_1",
    "lora_unet_mid_block_resnets_0_time_emb_proj": "unet.mid.resnet_0.body.shift.project",
    "lora_unet_up_blocks_1_resnets_0_conv_shortcut": "unet.up.1.resnet_0.shortcut",
    "lora_unet_mid_block_attentions_0_proj_in": "unet.mid.transformer.proj_in",
    "lora_unet_conv_in": "unet.conv_in",
    "lora_te_text_model_encoder_layers_1_mlp_fc2": (
        "text_encoder.transformer.1.feed_forward.network.contract"
    ),
}


def random(name, weight, rank, alpha=None, has_map=None):
    """Returns random factors for a layer; a kernel of 1x1 is written if `has_map`."""
    kernel = weight.shape[2:]
    has_map = len(kernel) == 2 if has_map is None else has_map
    if kernel in ((), (1, 1)):
        kernel = (1, 1) if has_map else ()
    down = torch.randn(rank, weight.shape[1], *kernel) * 0.3
    up = torch.randn(weight.shape[0], rank, *((1, 1) if has_map else ())) * 0.3
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    if alpha is not None:
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


def grown(model, tensors, names, alphas):
    """Returns a copy of the model with the updates added to its weights."""
    twin = copy.deepcopy(model)
    for name, path in names.items():
        up = tensors[f"{name}.lora_up.weight"].flatten(1)
        down = tensors[f"{name}.lora_down.weight"].flatten(1)
        weight = twin.layer(path).weight.data
        change = (alphas[name] / len(down)) * (up @ down)
        channels = change.shape[1] // weight[0, 0].numel()
        weight[:, :channels] += SCALE * change.view(len(weight), channels, *weight.shape[2:])
    return twin


@torch.no_grad()
def outputs(model, scales):
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(1, model.unet.config.in_channels, 8, 8, generator=generator)
    text = torch.randn(1, 3, model.unet.config.text_width, generator=generator)
    context = {"timestep": torch.tensor(99), "text": text, **scales}
    hidden = model.text_encoder(torch.tensor([[5, 6]]), context=scales)
    return model.unet(x, context=context), hidden


def differ(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


def injected(model, tensors, tmp_path, metadata=None):
    write(tensors, tmp_path / "style.safetensors", metadata)
    return Lora(weights=lambda _: Source({"weights": tmp_path / "style.safetensors"})).inject(model)


def check(model, tensors, names, alphas, tmp_path):
    adapter = injected(model, tensors, tmp_path)
    worn = outputs(model, {adapter.scale_key: torch.tensor(SCALE)})
    adapter.eject()
    expected, bare = outputs(grown(model, tensors, names, alphas), {}), outputs(model, {})
    for ours, theirs, before in zip(worn, expected, bare, strict=True):
        assert differ(ours, theirs) <= 1e-5
        assert differ(before, theirs) > 1e-3


@pytest.mark.parametrize("has_map", [None, True, False])
def test_each_kind_of_layer_is_updated_with_its_own_alpha(has_map, tmp_path):
    torch.manual_seed(0)
    model, tensors, alphas = tiny_model(), {}, {}
    for i, (name, path) in enumerate(NAMES.items()):
        rank, alpha = i % 3 + 2, [94.0, 12.5, None][i % 3]
        alphas[name] = rank if alpha is None else alpha  # an alpha is never borrowed
        alphas[name] /= 10 if alpha == 94 else 1
        alpha = alphas[name] if alpha else None
        tensors |= random(name, model.layer(path).weight, rank, alpha, has_map)
    check(model, tensors, NAMES, alphas, tmp_path)


@pytest.mark.parametrize("channels", [4, 9])
def test_an_inpainting_unet_takes_a_lora_for_the_plain_unet(channels, tmp_path):
    torch.manual_seed(0)
    model = tiny_model(unet=replace(tiny_model().unet.config, in_channels=9))
    names = {name: NAMES[name] for name in (next(iter(NAMES)), "lora_unet_conv_in", [*NAMES][-1])}
    tensors = {}
    for name, path in names.items():
        weight = model.layer(path).weight
        tensors |= random(name, weight[:, :channels] if name.endswith("in") else weight, 2)
    check(model, tensors, names, dict.fromkeys(names, 2), tmp_path)
    plain = injected(model, tensors, tmp_path)
    assert plain.published()["unet.conv_in.lora_A.weight"].shape[1] == channels


def test_a_lora_for_an_inpainting_unet_is_refused_on_a_plain_one(tmp_path):
    tensors = random("lora_unet_conv_in", torch.zeros(8, 9, 3, 3), 2)
    with pytest.raises(WeightsError, match="for an inpainting model; this"):
        injected(tiny_model(), tensors, tmp_path)


@pytest.mark.parametrize(
    ("family", "positions"),
    [
        (
            sd15,
            {
                "input_blocks_1_1_proj_in": "down_blocks.0.attentions.0.proj_in",
                "input_blocks_10_0_in_layers_2": "down_blocks.3.resnets.0.conv1",
                "input_blocks_11_0_in_layers_2": "down_blocks.3.resnets.1.conv1",
                "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
                "output_blocks_2_1_conv": "up_blocks.0.upsamplers.0.conv",
                "output_blocks_5_2_conv": "up_blocks.1.upsamplers.0.conv",
                "output_blocks_11_1_proj_out": "up_blocks.3.attentions.2.proj_out",
                "time_embed_0": "time_embedding.linear_1",
            },
        ),
        (
            sdxl,
            {
                "input_blocks_4_1_proj_in": "down_blocks.1.attentions.0.proj_in",
                "input_blocks_8_1_transformer_blocks_9_attn2_to_k": (
                    "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_k"
                ),
                "middle_block_0_emb_layers_1": "mid_block.resnets.0.time_emb_proj",
                "middle_block_1_proj_in": "mid_block.attentions.0.proj_in",
                "middle_block_2_out_layers_3": "mid_block.resnets.1.conv2",
                "output_blocks_0_1_proj_in": "up_blocks.0.attentions.0.proj_in",
                "output_blocks_8_0_skip_connection": "up_blocks.2.resnets.2.conv_shortcut",
                "label_emb_0_2": "add_embedding.linear_2",
                "out_2": "conv_out",
            },
        ),
    ],
)
def test_layers_are_found_by_their_numbers(family, positions, tmp_path):
    """A sparse file of released sizes: block 10 is neither block 1 nor the second in the file."""
    model = family.build(device="meta")
    places, tensors = places_by_name(model), {}
    for name in positions:
        weight = places[f"lora_unet_{name}"].seat.layer.weight
        tensors |= random(f"lora_unet_{name}", weight, 1)
    published = injected(model, tensors, tmp_path).published()
    for name, meant in positions.items():
        ours = published.pop(f"unet.{meant}.lora_A.weight")
        assert ours.shape == tensors[f"lora_unet_{name}.lora_down.weight"].shape
        published.pop(f"unet.{meant}.lora_B.weight")
    assert published == {}


def test_a_pattern_that_names_a_layer_matches_no_other(tmp_path):
    """`conv_in` is a layer; `to_q` is not, and matches every name that ends with it."""
    names = ["conv_in", "mid_block.resnets.0.conv1", "mid_block.resnets.1.conv1"]
    names.append("mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    model, tensors = tiny_model(), {}
    for name in names:
        weight = places_by_name(model)[f"unet.{name}"].seat.layer.weight
        has_map = weight.ndim == 4
        kernel = weight.shape[2:]
        tensors[f"unet.{name}.lora_A.weight"] = torch.randn(4, weight.shape[1], *kernel)
        shape = (weight.shape[0], 4, *((1, 1) if has_map else ()))
        tensors[f"unet.{name}.lora_B.weight"] = torch.randn(shape)
    patterns = {"conv_in": 1, "^mid_block.resnets.0.conv1": 2, "to_q": 3, "resnets.1.conv1": 5}
    config = {"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": patterns}
    metadata = {"lora_adapter_metadata": json.dumps({**config, "unet.use_rslora": True})}
    adapter = injected(model, tensors, tmp_path, metadata)
    layers = dict(adapter.own_layers.named_children())
    alphas = {path: 2 * layer.factor for path, layer in layers.items()}  # alpha / sqrt(4)
    assert alphas == {
        "unet/conv_in": 1,
        "unet/mid/resnet_0/body/conv_1": 2,
        "unet/mid/resnet_1/body/conv_1": 5,
        "unet/mid/transformer/tokens/blocks/0/self_attention/attention/project/to_q": 3,
    }


def test_a_name_that_ends_alike_is_another_layer():
    alphas = Alphas({"lora_alpha": 2, "alpha_pattern": {"proj": 4}}, ["proj", "a.proj"])
    assert [alphas.of(name, 2) for name in ("proj", "a.proj")] == [4, 2]
    alphas = Alphas({"lora_alpha": 2, "alpha_pattern": {"proj": 4}}, ["a.proj", "b.other"])
    assert [alphas.of(name, 2) for name in ("a.proj", "b.other")] == [4, 2]


def test_every_layer_in_the_slots_has_a_name():
    model = tiny_model()
    seats = {seat.path for slot in SLOTS for seat in model.slot(slot)}
    assert {place.seat.path for place in places_by_name(model).values()} == seats
