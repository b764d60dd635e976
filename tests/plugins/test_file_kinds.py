"""The files that people have, told apart by their headers alone, by data of manifests and catalog.

The headers have the published names and, in places that decide, the published shapes; their files
hold no tensor at all.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
import refiners
import torch
from refiners.errors import RefinersError
from refiners.hub.client import Hub
from refiners.recognition.recogniser import Evidence
from refiners.sources.reader import find_reader
from refiners.sources.recognition import identify_kind

from refiners_core import Model
from refiners_core.models import sd15, sdxl
from refiners_core.weights import write

Shapes = Mapping[str, tuple[int, ...]]
LDM, HF = "input_blocks.4.1.transformer_blocks.0", "down_blocks.1.attentions.0.transformer_blocks.0"
WHOLE = "model.diffusion_model."


def pair(name: str, width: int = 640, rank: int = 8, *, out: int = 640) -> Shapes:
    return {
        f"{name}.lora_down.weight": (rank, width),
        f"{name}.lora_up.weight": (out, rank),
        f"{name}.alpha": (),
    }


def peft(name: str, width: int = 640) -> Shapes:
    return {f"{name}.lora_A.weight": (8, width), f"{name}.lora_B.weight": (640, 8)}


def old(name: str, width: int = 640) -> Shapes:
    return {f"{name}.down.weight": (8, width), f"{name}.up.weight": (640, 8)}


def flat(name: str) -> str:
    return name.replace(".", "_")


def ip_adapter(width: int, **projection: tuple[int, ...]) -> Shapes:
    keys = {f"image_proj.{key.replace('__', '.')}": shape for key, shape in projection.items()}
    return {
        **keys,
        "ip_adapter.1.to_k_ip.weight": (320, width),
        "ip_adapter.1.to_v_ip.weight": (320, width),
    }


def control(width: int, prefix: str = "") -> Shapes:
    return {
        f"{prefix}controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
        f"{prefix}controlnet_down_blocks.0.weight": (320, 320, 1, 1),
        f"{prefix}{HF}.attn2.to_k.weight": (640, width),
    }


def original(width: int, prefix: str = "") -> Shapes:
    return {
        f"{prefix}input_hint_block.0.weight": (16, 3, 3, 3),
        f"{prefix}zero_convs.0.0.weight": (320, 320, 1, 1),
        f"{prefix}{LDM}.attn2.to_k.weight": (640, width),
    }


def t2i(channels: int) -> Shapes:
    return {
        "adapter.conv_in.weight": (320, channels, 3, 3),
        "adapter.body.0.resnets.0.block1.weight": (320, 320, 3, 3),
        "adapter.body.1.in_conv.weight": (640, 320, 1, 1),
    }


def whole(width: int, channels: int = 4) -> Shapes:
    return {
        f"{WHOLE}input_blocks.0.0.weight": (320, channels, 3, 3),
        f"{WHOLE}{LDM}.attn2.to_k.weight": (640, width),
        f"{WHOLE}output_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, width),
        "first_stage_model.encoder.down.0.block.0.conv1.weight": (128, 128, 3, 3),
    }


def unet(width: int, channels: int = 4) -> Shapes:
    return {
        "conv_in.weight": (320, channels, 3, 3),
        "conv_out.weight": (4, 320, 3, 3),
        f"{HF}.attn2.to_k.weight": (640, width),
        f"{HF.replace('down', 'up')}.attn2.to_k.weight": (640, width),
    }


ATTENTION = f"lora_unet_{flat(HF)}_attn2_to_k"
SGM = f"lora_unet_{flat(LDM)}_attn2_to_k"
TEXT = "text_model_encoder_layers_0_self_attn_q_proj"
FLUX = "lora_unet_double_blocks_0_img_attn_qkv"
LANGUAGE = "base_model.model.model.layers.0.self_attn.q_proj"
RESAMPLER = {"latents": (1, 16, 768), "proj_in__weight": (768, 1280)}

KINDS: Mapping[str, tuple[Shapes, str]] = {
    "kohya, SD 1.5": (pair(ATTENTION, 768), "a LoRA for sd15 (kohya, diffusers' names)"),
    "kohya, SD 1.5 with the original names": (pair(SGM, 768), "a LoRA for sd15 (kohya, original"),
    "kohya, SDXL with sgm's names": (pair(SGM, 2048), "a LoRA for sdxl (kohya, original names)"),
    "LCM and Lightning for SDXL": (pair(ATTENTION, 2048), "a LoRA for sdxl (kohya, diffusers'"),
    "kohya, SD 2": (pair(ATTENTION, 1024), "a LoRA for sd2 (kohya, diffusers' names)"),
    "kohya, self-attention alone": (
        pair(ATTENTION.replace("attn2", "attn1")), "a LoRA (kohya, diffusers' names)"),
    "kohya, text encoder of SD 1.5": (
        pair(f"lora_te_{TEXT}", 768), "a LoRA for sd15 (kohya, text encoder)"),
    "kohya, text encoders of SDXL": (
        {**pair(f"lora_te1_{TEXT}", 768), **pair(f"lora_te2_{TEXT}", 1280)},
        "a LoRA for sdxl (kohya, text encoders)"),
    "diffusers with PEFT": (peft(f"unet.{HF}.attn2.to_k", 2048), "a LoRA for sdxl (diffusers)"),
    "diffusers before PEFT": (
        old(f"unet.{HF}.attn2.processor.to_k_lora", 768), "a LoRA for sd15 (diffusers)"),
    "attention processors without a prefix": (
        old(f"{HF}.attn2.processor.to_k_lora", 768), "a LoRA for sd15 (diffusers)"),
    "diffusers, text encoder": (
        old("text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer", 768),
        "a LoRA (diffusers, text encoder)"),
    "PEFT of a UNet": (peft(f"base_model.model.{HF}.attn2.to_k", 768), "a LoRA for sd15 (PEFT)"),
    "LoHa": ({f"{ATTENTION}.hada_w1_a": (640, 8), f"{ATTENTION}.hada_w1_b": (8, 768)},
             "a LoHa for sd15 (LyCORIS)"),
    "LoKr": ({f"{ATTENTION}.lokr_w1": (8, 8), f"{ATTENTION}.lokr_w2_a": (80, 8)},
             "a LoKr (LyCORIS)"),
    "DoRA": ({**pair(ATTENTION, 768), f"{ATTENTION}.dora_scale": (640, 1)}, "a DoRA for sd15"),
    "DoRA of PEFT": (
        {**peft(f"unet.{HF}.attn2.to_k", 768), f"unet.{HF}.attn2.to_k.lora_magnitude_vector": (1,)},
        "a DoRA for sd15"),
    "LoCon with a core": (
        {**pair(ATTENTION, 768), f"{ATTENTION}.lora_mid.weight": (8, 8, 3, 3)},
        "a LoCon with a core tensor (CP decomposition) for sd15"),
    "DoRA of a text encoder": (
        {**pair(f"lora_te_{TEXT}", 768), f"lora_te_{TEXT}.dora_scale": (1, 768)},
        "a DoRA for sd15 (kohya, text encoder)"),
    "OFT": ({f"{ATTENTION}.oft_blocks": (4, 160, 160)}, "an OFT (LyCORIS)"),
    "OFT of PEFT": ({f"base_model.model.{HF}.attn2.to_k.oft_R.weight": (4, 12)}, "an OFT (PEFT)"),
    "BOFT of PEFT": (
        {f"base_model.model.{HF}.attn2.to_k.boft_R": (1, 40, 4, 4)}, "a BOFT (PEFT)"),
    "BOFT": ({f"{ATTENTION}.oft_blocks": (3, 160, 4, 4)}, "a BOFT (LyCORIS)"),
    "GLoRA": (
        {f"{ATTENTION}.{half}.weight": shape for half, shape in (
            ("a1", (768, 8)), ("a2", (8, 768)), ("b1", (640, 8)), ("b2", (8, 768)))},
        "a GLoRA for sd15 (LyCORIS)"),
    "difference": ({f"{ATTENTION}.diff": (640, 768)}, "a difference of whole weights for sd15"),
    "difference of norms": (
        {"lora_unet_mid_block_resnets_0_norm1.w_norm": (1280,)}, "a difference of norms (LyCORIS)"),
    "IA3": ({f"{ATTENTION}.on_input": (), f"{ATTENTION}.weight": (640,)}, "an IA3 (LyCORIS)"),
    "IA3 of PEFT": ({f"base_model.model.{HF}.attn2.to_k.ia3_l": (640, 1)}, "an IA3 (PEFT)"),
    "IP-Adapter": (
        ip_adapter(768, proj__weight=(3072, 1024), norm__weight=(768,)),
        "an IP-Adapter for sd15 (linear projection, ViT-H)"),
    "IP-Adapter of ViT-G": (
        ip_adapter(2048, proj__weight=(8192, 1280), norm__weight=(2048,)),
        "an IP-Adapter for sdxl (linear projection, ViT-G)"),
    "IP-Adapter Plus": (
        ip_adapter(768, **RESAMPLER), "an IP-Adapter Plus for sd15 (resampler, ViT-H)"),
    "IP-Adapter Plus of another encoder": (
        ip_adapter(2048, **RESAMPLER | {"proj_in__weight": (768, 1664)}),
        "an IP-Adapter Plus for sdxl (resampler)"),
    "IP-Adapter of DINOv2": (
        ip_adapter(768, **RESAMPLER | {"proj_in__weight": (768, 1024)}),
        "an IP-Adapter of DINOv2 for sd15 (resampler, ViT-L)"),
    "IP-Adapter of the largest DINOv2": (
        ip_adapter(2048, **RESAMPLER | {"proj_in__weight": (1280, 1536)}),
        "an IP-Adapter of DINOv2 for sdxl (resampler, ViT-g)"),
    "IP-Adapter Full": (
        ip_adapter(768, proj__0__weight=(1280, 1280), proj__3__weight=(768,)),
        "an IP-Adapter Full for sd15"),
    "FaceID": (
        ip_adapter(768, proj__0__weight=(1024, 512), proj__2__weight=(3072, 1024)),
        "an IP-Adapter FaceID for sd15 (linear projection)"),
    "FaceID Plus": (
        ip_adapter(768, proj__0__weight=(1024, 512),
                   perceiver_resampler__proj_in__weight=(768, 1280)),
        "an IP-Adapter FaceID for sd15 (plus)"),
    "InstantID": (
        ip_adapter(2048, latents=(1, 16, 1280), proj_in__weight=(1280, 512)),
        "an InstantID for sdxl (resampler of faces)"),
    "ControlNet": (control(768), "a ControlNet for sd15 (diffusers)"),
    "ControlNet for SDXL": (control(2048), "a ControlNet for sdxl (diffusers)"),
    "ControlNet, original": (original(768, "control_model."), "a ControlNet for sd15 (original)"),
    "ControlNet, original without a prefix": (original(768), "a ControlNet for sd15 (original)"),
    "ControlNet Union": (
        {**control(2048), "task_embedding": (6, 320)}, "a ControlNet Union for sdxl (diffusers)"),
    "Control-LoRA": (
        {"lora_controlnet": (0,), "input_hint_block.0.weight": (16, 3, 3, 3),
         f"{LDM}.attn2.to_k.down": (128, 2048), f"{LDM}.attn2.to_k.up": (640, 128)},
        "a Control-LoRA for sdxl (original)"),
    "T2I-Adapter": (t2i(192), "a T2I-Adapter for sd15 (full, diffusers)"),
    "T2I-Adapter of one channel": (t2i(64), "a T2I-Adapter for sd15 (full, diffusers)"),
    "T2I-Adapter XL": (t2i(768), "a T2I-Adapter for sdxl (full, diffusers)"),
    "T2I-Adapter, original": (
        {"conv_in.weight": (320, 192, 3, 3), "body.0.block1.weight": (320, 320, 3, 3)},
        "a T2I-Adapter for sd15 (full, original)"),
    "T2I-Adapter, light": (
        {"adapter.body.0.in_conv.weight": (80, 192, 1, 1),
         "adapter.body.0.resnets.0.block1.weight": (80, 80, 3, 3),
         "adapter.body.0.out_conv.weight": (320, 80, 1, 1)},
        "a T2I-Adapter for sd15 (light, diffusers)"),
    "T2I-Adapter for style": (
        {"style_embedding": (1, 8, 1024), "proj": (1024, 768),
         "transformer_layes.0.attn.in_proj_weight": (3072, 1024)},
        "a T2I-Adapter for style for sd15 (original)"),
    "textual inversion": ({"emb_params": (4, 768)}, "a textual inversion for sd15 (embedding)"),
    "textual inversion for SDXL": (
        {"clip_l": (4, 768), "clip_g": (4, 1280)}, "a textual inversion for sdxl"),
    "textual inversion of a web interface": (
        {"string_to_param.*": (2, 768), "string_to_token.*": ()},
        "a textual inversion for sd15 (embedding of a web interface)"),
    "textual inversion for SD 2": ({"sks": (4, 1024)}, "a textual inversion for sd2 (learned"),
    "textual inversion for SD 3": (
        {"clip_l": (4, 768), "clip_g": (4, 1280), "t5xxl": (4, 4096)},
        "a textual inversion for sd3"),
    "learned tokens without brackets": ({"sks": (4, 768)}, "a textual inversion for sd15 (learn"),
    "learned token": ({"<cat-toy>": (768,)}, "a textual inversion for sd15 (learned token)"),
    "whole SD 1.5": (whole(768), "a whole model for sd15 (single file)"),
    "whole SDXL": (whole(2048), "a whole model for sdxl (single file)"),
    "whole SD 2": (whole(1024), "a whole model for sd2 (single file)"),
    "inpainting SD 1.5": (whole(768, 9), "an inpainting model for sd15 (single file)"),
    "InstructPix2Pix": (whole(768, 8), "a model that edits by instructions for sd15"),
    "UNet": (unet(768), "a UNet for sd15 (diffusers)"),
    "inpainting UNet": (unet(768, 9), "a UNet for inpainting for sd15 (diffusers)"),
    "UNet of SDXL, original": (
        {key.removeprefix(WHOLE): shape for key, shape in whole(2048).items() if WHOLE in key},
        "a UNet for sdxl (original)"),
    "VAE": (
        {"encoder.down_blocks.0.resnets.0.conv1.weight": (128, 128, 3, 3),
         "decoder.up_blocks.0.resnets.0.conv1.weight": (512, 512, 3, 3)},
        "an autoencoder (diffusers)"),
    "VAE, original": ({"encoder.down.0.block.0.conv1.weight": (1,)}, "an autoencoder (original)"),
    "text encoder": (
        {"text_model.embeddings.token_embedding.weight": (49408, 768)}, "a text encoder"),
    "image encoder": ({"vision_model.post_layernorm.weight": (1280,)}, "an image encoder"),
    "Flux, kohya": (pair(FLUX, 3072), "a LoRA for flux (kohya)"),
    "Flux, kohya with text encoder": (
        {**pair(FLUX, 3072), **pair(f"lora_te1_{TEXT}", 768)}, "a LoRA for flux (kohya)"),
    "Flux, diffusers": (
        peft("transformer.single_transformer_blocks.0.attn.to_q", 3072),
        "a LoRA for flux (diffusers)"),
    "Flux, double blocks alone": (
        peft("transformer.transformer_blocks.0.attn.to_q", 3072), "a LoRA for flux (diffusers)"),
    "Flux, XLabs": (old("double_blocks.0.processor.qkv_lora1", 3072), "a LoRA for flux (XLabs)"),
    "Flux, fal": (
        peft("base_model.model.double_blocks.0.img_attn.qkv", 3072),
        "a LoRA for flux (authors' names)"),
    "Flux, control LoRA of its authors": (
        {**peft("double_blocks.0.img_attn.qkv", 3072),
         "double_blocks.0.img_attn.qkv.lora_B.bias": (9216,),
         "double_blocks.0.img_attn.norm.key_norm.scale": (128,)},
        "a control LoRA for flux (authors' control)"),
    "Flux ControlNet": (
        {"controlnet_x_embedder.weight": (3072, 64), "controlnet_blocks.0.weight": (3072, 3072),
         "transformer_blocks.0.attn.to_q.weight": (3072, 3072)},
        "a ControlNet for flux (diffusers)"),
    "Flux ControlNet Union": (
        {"controlnet_x_embedder.weight": (3072, 64), "controlnet_blocks.0.weight": (3072, 3072),
         "transformer_blocks.0.attn.to_q.weight": (3072, 3072),
         "controlnet_mode_embedder.weight": (10, 3072)},
        "a ControlNet Union for flux (diffusers)"),
    "Flux ControlNet of XLabs": (
        {"input_hint_block.0.weight": (16, 3, 3, 3), "controlnet_blocks.0.weight": (3072, 3072),
         "double_blocks.0.img_attn.qkv.weight": (1, 1), "pos_embed_input.weight": (3072, 64)},
        "a ControlNet for flux (XLabs)"),
    "Flux IP-Adapter": (
        {"double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight": (3072, 4096),
         "ip_adapter_proj_model.proj.weight": (16384, 768)},
        "an IP-Adapter for flux (XLabs)"),
    "Flux Redux": (
        {"redux_up.weight": (12288, 1152), "redux_down.weight": (4096, 12288)}, "a Redux for flux"),
    "Flux": (
        {"double_blocks.0.img_attn.qkv.weight": (9216, 3072),
         "single_blocks.0.linear1.weight": (1,), "final_layer.linear.weight": (64, 3072)},
        "a whole model for flux (authors' file)"),
    "SD 3, kohya": (
        pair("lora_unet_joint_blocks_0_x_block_attn_qkv", 1536), "a LoRA for sd3 (kohya)"),
    "language model, LoRA": (peft(LANGUAGE, 2048), "a LoRA for a language model (PEFT)"),
    "language model, IA3": (
        {"base_model.model.model.layers.0.self_attn.k_proj.ia3_l": (512, 1)}, "an IA3 (PEFT)"),
    "language model, OFT": (
        {"base_model.model.model.layers.0.self_attn.k_proj.oft_R.weight": (16, 6)},
        "an OFT (PEFT)"),
    "language model, AdaLoRA": (
        {**peft(LANGUAGE), f"{LANGUAGE}.lora_E": (8, 1)}, "an AdaLoRA (PEFT)"),
    "bottleneck": (
        {f"model.layers.0.output_adapters.adapters.x.adapter_{key}": shape for key, shape in {
            "down.0.weight": (4, 64), "down.0.bias": (4,), "up.weight": (64, 4)}.items()},
        "a bottleneck adapter (AdapterHub)"),
    "Compacter": (
        {"model.layers.0.output_adapters.adapters.x.adapter_up.W_left": (4, 2, 1),
         "model.shared_parameters.x.phm_rule": (4, 4, 4)}, "a Compacter (AdapterHub)"),
    "AdapterHub, LoRA": (
        {"model.layers.0.self_attn.q_proj.loras.x.lora_A": (4, 64),
         "model.layers.0.self_attn.q_proj.loras.x.lora_B": (64, 4)},
        "a LoRA or IA3 (AdapterHub)"),
    "AdapterFusion": (
        {"model.layers.0.output_adapters.adapter_fusion_layer.x,y.query.weight": (64, 64)},
        "a fusion of bottleneck adapters (AdapterHub)"),
    "trained prompt": ({"prompt_embeddings": (20, 2048)}, "trained tokens before a prompt"),
    "a LoRA of another network": (pair("lora_unet_somewhere_else"), "a LoRA (kohya)"),
}  # fmt: skip
"""The header of each kind of file, and how it is described."""

BY_CONFIG: Mapping[str, tuple[Shapes, Mapping[str, object], str]] = {
    "PREFIX_TUNING": ({"prompt_embeddings": (20, 2048)}, {"peft_type": "PREFIX_TUNING"},
                      "trained keys and values before a prompt (PEFT, PREFIX_TUNING)"),
    "PROMPT_TUNING": ({"prompt_embeddings": (20, 2048)}, {"peft_type": "PROMPT_TUNING"},
                      "trained tokens before a prompt (PEFT, PROMPT_TUNING)"),
    "shuffle": (control(768), {"global_pool_conditions": True},
                "a ControlNet that pools its outputs for sd15"),
}  # fmt: skip
"""Files that only a configuration beside them tells apart."""

BY_METADATA: Mapping[str, tuple[Shapes, Mapping[str, str], str]] = {
    "ss_base_model_version": (
        pair(ATTENTION.replace("attn2", "attn1")), {"ss_base_model_version": "sdxl_base_v1-0"},
        "a LoRA for sdxl (kohya, diffusers' names)"),
    "modelspec.architecture": (
        pair(f"lora_te1_{TEXT}", 768), {"modelspec.architecture": "flux-1-dev/lora"},
        "a LoRA for flux (kohya, text encoder)"),
}  # fmt: skip
"""Files of which only the metadata of the header name the base."""


def written(path: Path, shapes: Shapes, metadata: Mapping[str, str] | None = None) -> Path:
    """Writes the header of a safetensors file, and nothing behind it."""
    header = {
        name: {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]}
        for name, shape in shapes.items()
    } | ({"__metadata__": metadata} if metadata else {})
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_file_is_recognised_by_its_header(kind: str):
    shapes, words = KINDS[kind]
    fits = identify_kind(Evidence(shapes))
    assert [str(fit) for fit in fits][:1] == [str(fits[0])], "one kind"
    assert len({fit.reader.id for fit in fits}) == 1
    assert str(fits[0]).startswith(words)


def test_at_least_24_kinds_are_told_apart():
    described = {str(identify_kind(Evidence(shapes))[0]) for shapes, _ in KINDS.values()}
    assert len(described) >= 45


@pytest.mark.parametrize("kind", BY_CONFIG)
def test_a_configuration_beside_the_file_counts(kind: str):
    shapes, config, words = BY_CONFIG[kind]
    assert str(identify_kind(Evidence(shapes, {}, config))[0]).startswith(words)
    assert not str(identify_kind(Evidence(shapes))[0]).startswith(words)


@pytest.mark.parametrize("key", BY_METADATA)
def test_metadata_name_a_base_that_shapes_leave_open(key: str):
    shapes, metadata, words = BY_METADATA[key]
    assert str(identify_kind(Evidence(shapes, metadata))[0]) == words
    assert not identify_kind(Evidence(shapes))[0].bases


def test_shapes_count_more_than_metadata():
    metadata = {"ss_base_model_version": "sdxl_base_v1-0"}
    assert identify_kind(Evidence(pair(ATTENTION, 768), metadata))[0].bases == ("sd15",)


def test_a_file_without_a_known_layout_is_described_by_its_tensors(tmp_path: Path):
    path = written(tmp_path / "a.safetensors", {f"layer.{i}": (1,) for i in range(9)})
    assert identify_kind(Evidence({"layer.0": (1,)})) == ()
    with pytest.raises(RefinersError) as error:
        find_reader(str(path), Hub.from_environment(offline=True))
    assert "it holds 'layer.0', 'layer.1', 'layer.2' and 6 more" in error.value.message
    assert 'load_adapter("adapter-fusion", model, file=' in error.value.hint


# --- pairs that do not fit -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def models() -> Mapping[str, Model]:
    """The released models without weights."""
    return {"sd15": sd15.build(device="meta"), "sdxl": sdxl.build(device="meta")}


WRONG: Mapping[str, tuple[str, str]] = {
    "kohya, SDXL with sgm's names": ("sd15", "a LoRA for sdxl (kohya, original names), not for "),
    "kohya, SD 1.5": ("sdxl", "a LoRA for sd15 (kohya, diffusers' names), not for this sdxl mo"),
    "kohya, SD 2": ("sd15", "a LoRA for sd2"),
    "kohya, text encoders of SDXL": ("sd15", "a LoRA for sdxl (kohya, text encoders), not for"),
    "LoHa": ("sdxl", "a LoHa for sd15 (LyCORIS), not for this sdxl model"),
    "DoRA": ("sdxl", "a DoRA for sd15 (kohya, diffusers' names), not for this sdxl model"),
    "IP-Adapter": ("sdxl", "an IP-Adapter for sd15 (linear projection, ViT-H), not for this sdxl"),
    "IP-Adapter Plus": ("sdxl", "an IP-Adapter Plus for sd15 (resampler, ViT-H), not for this sd"),
    "IP-Adapter Full": (
        "sdxl",
        "an IP-Adapter Full for sd15 (projection of every token, ViT-H), n",
    ),
    "IP-Adapter of DINOv2": ("sdxl", "an IP-Adapter of DINOv2 for sd15 (resampler, ViT-L), not f"),
    "InstantID": ("sd15", "an InstantID for sdxl (resampler of faces), not for this sd15 model"),
    "FaceID": ("sdxl", "an IP-Adapter FaceID for sd15 (linear projection), not for this sdxl"),
    "FaceID Plus": ("sdxl", "an IP-Adapter FaceID for sd15 (plus), not for this sdxl model"),
    "ControlNet for SDXL": ("sd15", "a ControlNet for sdxl (diffusers), not for this sd15 model"),
    "ControlNet, original": ("sdxl", "a ControlNet for sd15 (original), not for this sdxl model"),
    "T2I-Adapter XL": ("sd15", "a T2I-Adapter for sdxl (full, diffusers), not for this sd15 model"),
    "textual inversion for SDXL": ("sd15", "a textual inversion for sdxl (embeddings of two enc"),
    "textual inversion for SD 2": ("sdxl", "a textual inversion for sd2 (learned tokens), not for"),
    "textual inversion for SD 3": ("sdxl", "only embeddings of CLIP's text encoders are read"),
    "Flux, kohya": ("sd15", "a LoRA for flux (kohya); no known adapter reads it"),
    "whole SDXL": ("sdxl", "a whole model for sdxl (single file), not an adapter"),
    "VAE": ("sd15", "an autoencoder (diffusers); no known adapter reads it"),
}
"""A kind of file, a model that does not suit it, and words of the refusal."""


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_pair_is_refused_before_a_tensor_is_read(
    kind: str, tmp_path: Path, models: Mapping[str, Model]
):
    base, words = WRONG[kind]
    path = written(tmp_path / "file.safetensors", KINDS[kind][0])
    with pytest.raises(RefinersError) as error:
        refiners.load_adapter(path, models[base])
    assert words in str(error.value)
    assert error.value.hint or "Load a model of base" in str(error.value)
    assert models[base].adapters == ()


def test_a_word_of_sd15_goes_on_sdxl_with_a_notice(tmp_path: Path, models: Mapping[str, Model]):
    write({"<cat>": torch.ones(2, 768)}, tmp_path / "a.safetensors")
    with pytest.warns(refiners.Notice, match=r"the second text encoder of this sdxl \(1280 feat"):
        adapter = refiners.load_adapter(tmp_path / "a.safetensors", models["sdxl"])
    assert adapter.words == {"<cat>": (2, 0)}
    adapter.eject()


def test_an_unbound_adapter_is_refused_by_the_model(tmp_path: Path, models: Mapping[str, Model]):
    path = written(tmp_path / "file.safetensors", KINDS["LCM and Lightning for SDXL"][0])
    adapter = refiners.load_adapter(path)
    with pytest.raises(refiners.IncompatibleError, match=r"a LoRA for sdxl .* not for this sd15"):
        adapter.inject(models["sd15"])
    assert not adapter.is_worn
