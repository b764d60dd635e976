"""A file that is not a LoRA for the model is refused in one line; the model stays untouched."""

import json
import warnings
from functools import cache

import pytest
import torch
from refiners_lora.adapter import Lora

from refiners_core import Source
from refiners_core.errors import AdapterError, Notice, WeightsError
from refiners_core.models import sdxl
from refiners_core.models.clip import ClipTextConfig
from refiners_core.models.unet import UNetConfig
from refiners_core.models.vae import AutoencoderConfig
from refiners_core.testing import tiny_model
from refiners_core.weights import write

ATTENTION = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"
DOTTED = "unet.mid_block.attentions.0.transformer_blocks.0.attn1"
CROSS = ATTENTION.replace("attn1_to_q", "attn2_to_k")
DEEP = ATTENTION.replace("blocks_0_attn1", "blocks_1_attn1")


def pair(name, rows=16, columns=16, rank=2, kernel=()):
    up = torch.ones(rows, rank, *([1, 1] if kernel else []))
    down = torch.ones(rank, columns, *kernel)
    return {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}


def peft(name, rows=16, columns=16, rank=2):
    return {
        f"{name}.lora_B.weight": torch.ones(rows, rank),
        f"{name}.lora_A.weight": torch.ones(rank, columns),
    }


def loha(a, b):
    shapes = {"w1_a": a, "w1_b": b, "w2_a": a, "w2_b": b}
    return {f"{ATTENTION}.hada_{role}": torch.ones(shape) for role, shape in shapes.items()}


GOOD = pair(ATTENTION)
ONE = torch.ones(1)


def sdxl_model():
    text = ClipTextConfig(vocabulary=9, width=4, inner_width=8, layers=2, heads=2, end_token=8)
    pooling = ClipTextConfig(
        vocabulary=9, width=4, inner_width=8, layers=2, heads=2, end_token=8, projection_width=4
    )
    unet = UNetConfig(
        channels=(8, 16),
        layers=(1, 1),
        depths=(0, 2),
        mid_depth=2,
        heads=(2, 2),
        text_width=8,
        groups=4,
        has_linear_projection=True,
        added_cond_width=4 + 6 * 256,
    )
    autoencoder = AutoencoderConfig(channels=(8, 8, 8), blocks=1, groups=4, has_attention=False)
    return sdxl.build(unet=unet, text_encoder=text, text_encoder_2=pooling, autoencoder=autoencoder)


shared_model = cache(tiny_model)
"""One model for all files: a refused file must leave it bare, and others are ejected."""


def inject(tensors, tmp_path, model=None, metadata=None, name="style.safetensors"):
    model = shared_model() if model is None else model
    write(tensors, tmp_path / name, metadata)
    try:
        return Lora(weights=lambda _: Source({"weights": tmp_path / name})).inject(model).eject()
    finally:
        assert model.adapters == ()


KINDS = {
    "a VeRA": {f"{DOTTED}.to_q.vera_lambda_b": ONE},
    "a FourierFT": {f"{DOTTED}.to_q.fourierft_spectrum": ONE},
    "an HRA": {f"{DOTTED}.to_q.hra_u": ONE},
    "a file that replaces whole weights": {f"{ATTENTION}.set_weight": ONE},
    "a prompt of trained tokens": {"prompt_embeddings": ONE},
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_peft_methods_are_refused_by_name(kind, tmp_path):
    with pytest.raises(WeightsError) as refusal:
        inject(KINDS[kind], tmp_path)
    assert str(refusal.value).startswith("style.safetensors is ")
    assert kind in str(refusal.value)
    assert "That method is not read" in str(refusal.value)
    assert len(str(refusal.value)) < 300


DOUBLE = {**GOOD, **peft(f"{DOTTED}.to_q")}
DAMAGED = pair(ATTENTION)
DAMAGED[f"{ATTENTION}.lora_up.weight"] = torch.full((16, 2), torch.nan)
WRONG = {
    "not a LoRA: it holds 'controlnet_cond": {"controlnet_cond_embedding.conv_in.weight": ONE},
    "an AdaLoRA without its configuration": {
        f"{DOTTED}.to_q.lora_A": ONE,
        f"{DOTTED}.to_q.lora_E": ONE,
    },
    "its configuration names none by trainable_token_indices": {
        **GOOD,
        "lora_te.token_adapter.trainable_tokens_delta": ONE,
    },
    "not a LoRA: it holds 'clip_g', 'clip_l'": {"clip_l": ONE, "clip_g": ONE},
    "has no layer 'ip_adapter.1.to_q_lora'": {
        "image_proj.norm.weight": ONE,
        "ip_adapter.1.to_q_lora.down.weight": torch.ones(2, 16),
        "ip_adapter.1.to_q_lora.up.weight": torch.ones(16, 2),
    },
    "not a LoRA: it holds 'a', 'b' and 1 more": {"a": ONE, "b": ONE, "c": ONE},
    "a LoRA for Flux": pair("lora_unet_double_blocks_0_img_attn_qkv"),
    "a LoRA for Stable Diffusion 3": pair("lora_te3_encoder_block_0"),
    "a LoRA for Stable Cascade": pair("lora_prior_unet_down_blocks_0"),
    "a LoRA for a diffusion transformer": pair("transformer.blocks.0.attn"),
    "a LoRA for a language model": peft("base_model.model.model.layers.0.self_attn.q_proj"),
    "a LoRA for sdxl; this model is sd15: it reads texts of width 2048, not 8": pair(
        CROSS, 16, 2048
    ),
    "a LoRA for sd2; this model is sd15: it reads texts of width 1024": pair(CROSS, 16, 1024),
    "a LoRA for sdxl; this model is sd15: it names 'lora_te2_x'": {**GOOD, **pair("lora_te2_x")},
    "a LoRA for sdxl; this model is sd15: it names 'lora_unet_mid": {**GOOD, **pair(DEEP)},
    "a LoRA for a model of other sizes; this model is sd15: 1 of 1 layers": pair(ATTENTION, 64, 64),
    "goes from [64] to [16], the layer from [16] to [16]": pair(ATTENTION, 16, 64),
    "goes from [16, 1, 3] to": pair(ATTENTION, 16, 16, kernel=(1, 3)),
    "has a weight `down`, no `up`": {f"{ATTENTION}.lora_down.weight": torch.ones(2, 16)},
    "has a weight `up`, no `down`": {f"{ATTENTION}.lora_up.weight": torch.ones(16, 2)},
    "do not share a rank: down is [3, 16], up is [16, 2]": {
        **GOOD,
        f"{ATTENTION}.lora_down.weight": torch.ones(3, 16),
    },
    "are [0, 16] float32 and [16, 0] float32": pair(ATTENTION, rank=0),
    "are [2, 16] int8 and [16, 2] float32": {
        **GOOD,
        f"{ATTENTION}.lora_down.weight": torch.ones(2, 16, dtype=torch.int8),
    },
    "are not all finite numbers": DAMAGED,
    "'.*alpha' is not a finite number": {**GOOD, f"{ATTENTION}.alpha": torch.tensor(torch.inf)},
    "has a weight `hada_w1_a`, no `hada_w1_b`": {f"{ATTENTION}.hada_w1_a": torch.ones(16, 2)},
    "are incomplete: there is a `hada_t1`, but no `hada_t2`": {
        **loha((16, 2), (2, 16)),
        f"{ATTENTION}.hada_t1": torch.ones(2, 2, 1, 1),
    },
    "are incomplete: there is a `hada_t2`, but no `hada_t1`": {
        **loha((16, 2), (2, 16)),
        f"{ATTENTION}.hada_t2": torch.ones(2, 2, 1, 1),
    },
    "do not share a rank: w1_a is [16, 3], w1_b is [2, 16]": loha((16, 3), (2, 16)),
    "goes from [17] to [16], the layer from [16] to [16]": loha((16, 2), (2, 17)),
    "has a weight `lokr_w1`, no `lokr_w2`": {f"{ATTENTION}.lokr_w1": torch.ones(2, 2)},
    "by two methods: beside a LoRA it has a weight `hada_w1_a`": {
        **GOOD,
        **loha((16, 2), (2, 16)),
    },
    "are not square blocks: [4, 4, 2]": {f"{ATTENTION}.oft_blocks": torch.ones(4, 4, 2)},
    "goes from any to [12], the layer from [16] to [16]": {
        f"{ATTENTION}.oft_blocks": torch.ones(3, 4, 4)
    },
    "has magnitudes [5, 1], the layer goes from 16 to 16": {
        **GOOD,
        f"{ATTENTION}.dora_scale": torch.ones(5, 1),
    },
    "changes a bias of [3], the layer has [16]": {**GOOD, f"{ATTENTION}.diff_b": torch.ones(3)},
    "holds a LoRA for 'lora_unet_mid_block_resnets_0_norm1', which is a GroupNorm": pair(
        "lora_unet_mid_block_resnets_0_norm1"
    ),
    "do not share a rank: a1 is [16, 2], a2 is [3, 16]": {
        f"{ATTENTION}.{half}.weight": torch.ones(shape)
        for half, shape in {"a1": (16, 2), "a2": (3, 16), "b1": (16, 2), "b2": (2, 16)}.items()
    },
    "are not a factor for each feature: [4, 4]": {
        f"{ATTENTION}.weight": torch.ones(4, 4),
        f"{ATTENTION}.on_input": torch.tensor(0),
    },
    "holds two weights `down`": {
        f"{DOTTED}.to_q.lora_A.{name}.weight": torch.ones(2, 16) for name in ("one", "two")
    },
    "one layer under two names": DOUBLE,
    "holds a LoRA for 2 layers; this sd15 has no layer 'a', 'b'": {
        **pair("a"),
        **pair("b"),
    },
    "has no layer 'lora_unet_x'": {**pair("lora_unet_x"), **pair(TEXT, 16, 8)},
}


@pytest.mark.parametrize("words", WRONG)
def test_a_file_for_another_model_is_refused_in_one_line(words, tmp_path):
    with pytest.raises(WeightsError) as refusal:
        inject(WRONG[words], tmp_path)
    text = str(refusal.value)
    assert words.replace(".*", ATTENTION + ".") in text
    assert "\n" not in text
    assert len(text) < 400
    assert refusal.value.hint


def test_a_lora_of_sd15_is_refused_on_sdxl(tmp_path):
    with pytest.raises(WeightsError, match="for sd15; this model is sdxl: it names 'lora_te_"):
        inject({**GOOD, **pair(TEXT)}, tmp_path, sdxl_model())
    with pytest.raises(WeightsError, match="for sd15; this model is sdxl: it reads texts of width"):
        inject(pair(CROSS, 16, 768), tmp_path, sdxl_model())
    inject(pair(DEEP), tmp_path, sdxl_model())


def test_a_pickle_is_not_opened(tmp_path):
    (tmp_path / "style.bin").write_bytes(b"\x80\x04.")
    adapter = Lora(weights=lambda _: Source({"weights": tmp_path / "style.bin"}))
    with pytest.raises(WeightsError, match=r"is a pickle.*was not opened.*rewrite_pickle"):
        adapter.inject(tiny_model())


def test_a_part_of_a_model_is_refused():
    with pytest.raises(AdapterError, match=r"goes on a whole model, not on UNet. Try adapter.inj"):
        Lora().inject(tiny_model().unet)


def test_unknown_layers_and_keys_are_left_out_with_one_notice(tmp_path):
    odd = {f"lora_unet_odd_{i}": None for i in range(5)}
    tensors = {**GOOD, "bundle_emb.cat": ONE, f"{TEXT}.alpha": ONE}
    for name in odd:
        tensors |= pair(name)
    with pytest.warns(Notice) as notices:
        adapter = inject(tensors, tmp_path)
    assert len(adapter.published()) == 2
    assert [str(notice.message) for notice in notices] == [
        "style.safetensors: 5 of 6 layers are not in this sd15 and were left out: "
        "'lora_unet_odd_0', 'lora_unet_odd_1', 'lora_unet_odd_2' and 2 more; 2 tensors do not "
        f"belong to a LoRA and were left out: 'bundle_emb.cat', '{TEXT}.alpha'."
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inject(GOOD, tmp_path)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[1]", "is not a JSON object"),
        ("[]", "is not a JSON object"),
        ('{"r": 2, "lora_alpha": null}', "lora_alpha = None"),
        ("{", "is not a JSON object"),
        ('{"unet.lora_alpha": "big"}', "lora_alpha = 'big'"),
        ('{"unet.alpha_pattern": [3]}', "which are not numbers"),
        ('{"unet.use_dora": true}', "has use_dora, but no layer of the unet has magnitudes"),
    ],
)
def test_an_invalid_configuration_is_refused(config, words, tmp_path):
    with pytest.raises(WeightsError, match=words.replace("(", r"\(")):
        inject(peft(f"{DOTTED}.to_q"), tmp_path, metadata={"lora_adapter_metadata": config})


def test_the_configuration_beside_a_file_of_peft_is_read(tmp_path):
    tensors = peft(f"base_model.model.{DOTTED.removeprefix('unet.')}.to_q")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "alpha_pattern": {}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    adapter = inject(tensors, tmp_path, name="adapter_model.safetensors")
    assert [layer.alpha for layer in adapter.own_layers.children()] == [6]
