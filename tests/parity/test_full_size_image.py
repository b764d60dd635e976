"""Image prompts, faces, light and encoders of the released sizes, held to their peers.

`pytest -m slow tests/parity/test_full_size_image.py -rP` prints how far apart they are. The encoder
of pictures is a shallow one, as wide as the released ones: `test_full_size.py` holds those. The
largest case needs 16 GB of memory.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save, save_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    T5Config,
    T5EncoderModel,
)

from refiners_core.models.device import built_on
from refiners_core.models.dino import DINO_KEYS, DinoConfig, DinoImageEncoder
from refiners_core.models.t5 import T5_KEYS, T5_MASK, T5Encoder
from refiners_core.models.t5 import T5Config as OurT5Config
from refiners_core.models.unet import UNET_KEYS
from refiners_core.testing import tiny_t5_tokenizer
from refiners_core.weights import load

from . import test_ella as ella
from . import test_ic_light as ic_light
from . import test_instantid as instantid
from .ip_adapter_peer import attentions, face_plus, linear, plus, serving
from .ip_adapter_peer import drawn as random_tensors
from .test_full_size import drawn, folder, loaded, saved
from .test_full_size_adapters import (
    SIDE,
    bare,
    check,
    inputs,
    network,
    outputs_of,
    sizes,
    theirs_of,
    without_gradients,
)
from .tiny_hub import serving as serving_files

__all__ = ["check", "folder", "without_gradients"]
pytestmark = pytest.mark.slow

FEATURES, EMBEDDING = 1280, 1024
"""The widths of the released image encoder: of its patches, and of its projection."""
SHALLOW = {"width": FEATURES, "inner-width": 64, "layers": 1, "heads": 16}
PLUS = {"sd15": (768, 768), "sdxl": (2048, 1280)}
"""For each base, the width of its text and that inside the resampler."""
T5_XL = {
    "vocab_size": 32128, "d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32,
    "d_kv": 64, "feed_forward_proj": "gated-gelu",
}  # fmt: skip


def shapes_of(name: str, base: str) -> Any:
    """Returns the published shapes of a projection."""
    text, inner = PLUS[base]
    if name == "ip-adapter":
        return linear(text, EMBEDDING)
    return plus(text, FEATURES, inner) if "plusv2" not in name else face_plus(text, FEATURES, text)


def wearing(unet: Any, base: str, weights: Any) -> Any:
    """Puts an image prompt on the UNet of diffusers; returns its projection."""
    kind = {"sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}[base]
    names = ("vae", "text_encoder", "tokenizer", "image_encoder", "feature_extractor")
    more = ("safety_checker",) if base == "sd15" else ("text_encoder_2", "tokenizer_2")
    options = {"requires_safety_checker": False} if base == "sd15" else {}
    pipe = kind(unet=unet, scheduler=DDIMScheduler(), **dict.fromkeys(names + more), **options)
    pipe.load_ip_adapter([weights], "", [None], None)
    (projection,) = unet.encoder_hid_proj.image_projection_layers
    return projection


def context_of(base: str, adapter: Any, **values: Any) -> dict[str, Any]:
    values |= {key: inputs(base)[key] for key in ("text", "pooled", "time_ids")}
    return values | {"timestep": torch.tensor(321), adapter.scale_key: torch.tensor(1.0)}


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("sd15", "ip-adapter"),
        ("sd15", "ip-adapter-plus"),
        ("sd15", "ip-adapter-faceid-plusv2"),
        ("sdxl", "ip-adapter-plus"),
    ],
)
def test_image_prompts_equal_those_of_diffusers(
    base: str, name: str, folder: Path, check: Any
) -> None:
    unet = theirs_of(base)
    model = load_base(base, unet)
    torch.manual_seed(2)
    rank = 128 if "faceid" in name else 0
    weights = {
        "image_proj": random_tensors(shapes_of(name, base)),
        "ip_adapter": attentions(unet, rank, std=0.02),
    }
    narrow = {"hidden_size": FEATURES, "intermediate_size": 64, "num_hidden_layers": 1}
    config = CLIPVisionConfig(
        **narrow, num_attention_heads=16, projection_dim=EMBEDDING, patch_size=14, hidden_act="gelu"
    )
    encoder = drawn(lambda: CLIPVisionModelWithProjection(config))
    with serving(folder, {base: (unet, {name: weights})}, encoder, SHALLOW):
        adapter = refiners.load_adapter(name, model)
    patches = torch.randn(2, 257, FEATURES)
    faces = torch.nn.functional.normalize(torch.randn(2, 512), dim=1)
    parts, shown = {
        "ip-adapter": ((patches[:, 0, :EMBEDDING],), patches[:, :1, :EMBEDDING]),
        "ip-adapter-plus": ((patches,), patches[:, None]),
        "ip-adapter-faceid-plusv2": ((faces, patches), faces[:, None]),
    }[name]
    tokens = adapter.projected(parts)
    context = context_of(base, adapter, **{adapter.tokens_key: tokens})
    if rank:
        context[adapter.strength_key] = torch.ones(1, 1, 1)
    made = model.unet(inputs(base)["latents"], context=context)
    projection = wearing(unet, base, weights)
    if rank:
        projection.clip_embeds, projection.shortcut = patches[:, None], True
    added = {"text_embeds": context["pooled"], "time_ids": context["time_ids"]}
    prediction = unet(
        inputs(base)["latents"],
        torch.tensor(321),
        context["text"],
        added_cond_kwargs=added | {"image_embeds": [shown]},
    ).sample
    check([tokens, made], [projection(shown.flatten(0, 1)).view(tokens.shape), prediction])


def load_base(base: str, unet: Any) -> Any:
    """Returns a model that has the weights of diffusers' UNet."""
    model = bare(base)
    load(model.unet, unet.state_dict(), UNET_KEYS)
    return model


def test_instantid_equals_the_parts_of_diffusers(folder: Path, check: Any) -> None:
    control = network("sdxl")
    (folder / "ControlNetModel").mkdir()
    save_file(
        dict(control.state_dict()), folder / "ControlNetModel/diffusion_pytorch_model.safetensors"
    )
    torch.manual_seed(2)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**sizes("sdxl"))
    weights = {"image_proj": instantid.resampler(1280, 2048), "ip_adapter": attentions(unet)}
    flat = {f"{part}.{key}": v for part, values in weights.items() for key, v in values.items()}
    save_file(flat, folder / "ip-adapter.safetensors")
    resampler = unet._convert_ip_adapter_image_proj_to_diffusers(
        weights["image_proj"], low_cpu_mem_usage=False
    )
    faces = torch.randn(2, 1, 512) * 20
    tokens = resampler(faces)
    skips = outputs_of(control, "sdxl", encoder_hidden_states=tokens)
    del control
    model = bare("sdxl")
    adapter = refiners.load_adapter(folder, model)
    values = inputs("sdxl")
    context = {key: values[key] for key in ("pooled", "time_ids")} | {
        "timestep": torch.tensor(321),
        "text": adapter.parts.projection(faces),
        adapter.features_key: adapter.control.encoder(values["pixels"]),
        adapter.tokens_key: adapter.parts.projection(faces),
        adapter.control_key: torch.ones(1, 1, 1, 1),
        adapter.scale_key: torch.tensor(1.0),
    }
    ours = adapter.control.network(values["latents"], context=context)
    check([context["text"], *ours], [tokens, *skips])


def test_ella_equals_its_formulas(folder: Path, check: Any) -> None:
    tensors = ella.random_tensors(768, 2048, tokens=64, layers=6, waves=320, std=0.03)
    narrow = T5Config(**T5_XL | {"d_ff": 64, "num_layers": 1, "vocab_size": 110})
    peer = drawn(lambda: T5EncoderModel(narrow))
    tiny_t5_tokenizer()._model.save(str(folder / "tokenizer.json"))
    state = {key: v for key, v in peer.state_dict().items() if "embed_tokens" not in key}
    content = {
        ("QQGYLab/ELLA", "ella-sd1.5-tsc-t5xl.safetensors"): save(tensors),
        ("QQGYLab/ELLA", f"{ella.FOLDER}/model.safetensors"): save(state),
        ("QQGYLab/ELLA", f"{ella.FOLDER}/config.json"): json.dumps(narrow.to_dict()).encode(),
        ("QQGYLab/ELLA", f"{ella.FOLDER}/tokenizer.json"): (folder / "tokenizer.json").read_bytes(),
    }
    with serving_files(folder, {"refiners_ella": content}, widths={}):
        adapter = refiners.load_adapter("ella", bare("sd15"))
    features = torch.randn(20, 2048)
    ours = [
        adapter.connector(
            None, context={adapter.features_key: features[None], "timestep": torch.tensor(timestep)}
        )[0]
        for timestep in (980, 20)
    ]
    check(ours, [ella.tokens_of(tensors, features, timestep) for timestep in (980, 20)])


def test_ic_light_equals_a_wider_unet(folder: Path, check: Any) -> None:
    unet = theirs_of("sd15")
    model = load_base("sd15", unet)
    offsets = ic_light.offsets(unet, 2)
    save_file(offsets, folder / "light.safetensors")
    adapter = refiners.load_adapter("ic-light-fbc", model, file=folder / "light.safetensors")
    light = torch.randn(2, 8, SIDE, SIDE)
    context = context_of("sd15", adapter, **{adapter.light_key: light})
    ours = model.unet(inputs("sd15")["latents"], context=context)
    wide = ic_light.widened(unet, offsets)
    latents = torch.cat([inputs("sd15")["latents"], light], 1)
    check([ours], [wide(latents, torch.tensor(321), context["text"]).sample])


def test_the_encoder_of_t5_xl_equals_that_of_transformers(folder: Path, check: Any) -> None:
    peer = drawn(lambda: T5EncoderModel(T5Config(**T5_XL)))
    peer.tie_weights()
    for block in peer.encoder.block:
        # As T5 initialises it: its attention does not scale logits.
        block.layer[0].SelfAttention.q.weight.mul_(T5_XL["d_kv"] ** -0.5)
    ids = torch.randint(0, T5_XL["vocab_size"], (2, 40))
    mask = torch.arange(40) < torch.tensor([[40], [13]])
    expected = peer(ids, attention_mask=mask).last_hidden_state[mask]
    file, config = saved(peer, folder)
    del peer
    with built_on("meta"):
        ours = T5Encoder(OurT5Config.from_json(config))
    loaded(ours, file, T5_KEYS)
    check([ours(ids, context={T5_MASK: mask})[mask]], [expected])


def test_dinov2_l_equals_that_of_transformers(folder: Path, check: Any) -> None:
    widths = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    peer = drawn(lambda: Dinov2Model(Dinov2Config(**widths, image_size=518)))
    pixels = torch.randn(1, 3, 224, 224)
    file, _ = saved(peer, folder)
    with built_on("meta"):
        ours = DinoImageEncoder(DinoConfig(width=1024, inner_width=4096, layers=24, heads=16))
    loaded(ours, file, DINO_KEYS)
    check([ours(pixels)], [peer(pixels).last_hidden_state])
