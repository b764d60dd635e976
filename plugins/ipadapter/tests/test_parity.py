"""The image attention computes the same as diffusers' IP-Adapter."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from refiners_ipadapter.adapter import IpAdapter
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from refiners_core import Source
from refiners_core.models.clip import ClipTextConfig, clip_pixels
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.sd15 import build
from refiners_core.models.unet import UNET_KEYS, UNetConfig
from refiners_core.models.vae import AutoencoderConfig
from refiners_core.weights import load, read, write

WIDTH, EMBEDDING, TOKENS = 24, 20, 4
ENCODER = {
    "image-size": 32,
    "patch-size": 8,
    "width": 16,
    "inner-width": 32,
    "layers": 2,
    "heads": 2,
}


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=8,
    ).eval()


@pytest.fixture(scope="module")
def vision() -> CLIPVisionModelWithProjection:
    torch.manual_seed(1)
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            image_size=32,
            patch_size=8,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=EMBEDDING,
            hidden_act="gelu",
        )
    ).eval()


@pytest.fixture(scope="module")
def source(
    unet: UNet2DConditionModel,
    vision: CLIPVisionModelWithProjection,
    tmp_path_factory: pytest.TempPathFactory,
) -> Source:
    torch.manual_seed(2)
    tensors = {
        "image_proj.proj.weight": torch.randn(TOKENS * WIDTH, EMBEDDING),
        "image_proj.proj.bias": torch.randn(TOKENS * WIDTH),
        "image_proj.norm.weight": torch.randn(WIDTH),
        "image_proj.norm.bias": torch.randn(WIDTH),
    }
    names = list(unet.attn_processors)  # down, up, mid: the order of the files
    for n, name in enumerate(names):
        if "attn2" in name:
            hidden = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
            tensors[f"ip_adapter.{n}.to_k_ip.weight"] = torch.randn(hidden, WIDTH) * 0.3
            tensors[f"ip_adapter.{n}.to_v_ip.weight"] = torch.randn(hidden, WIDTH) * 0.3
    folder = tmp_path_factory.mktemp("ip-adapter")
    write(tensors, folder / "ip-adapter.safetensors")
    vision.save_pretrained(folder / "image_encoder")
    files = {
        "weights": folder / "ip-adapter.safetensors",
        "encoder": folder / "image_encoder" / "model.safetensors",
    }
    return Source(files, {"encoder": ENCODER | {"projection-width": EMBEDDING}}, "tiny")


@pytest.fixture
def model(unet: UNet2DConditionModel) -> LatentDiffusion:
    config = UNetConfig.from_json(json.loads(unet.to_json_string()))
    text = ClipTextConfig(vocabulary=9, width=WIDTH, inner_width=24, layers=1, heads=2, end_token=8)
    autoencoder = AutoencoderConfig(channels=(8, 8, 8), blocks=1, groups=4)
    model = build(unet=config, text_encoder=text, autoencoder=autoencoder)
    load(model.unet, unet.state_dict(), UNET_KEYS)
    return model.eval()


def request(model: LatentDiffusion, rows: int) -> GenerationRequest:
    return GenerationRequest(
        model=model,
        count=rows,
        branches=("uncond", "cond"),
        height=64,
        width=64,
        latent_height=16,
        latent_width=16,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_a_prompted_unet_equals_the_peers(
    unet: UNet2DConditionModel,
    vision: CLIPVisionModelWithProjection,
    source: Source,
    model: LatentDiffusion,
    scale: float,
):
    x, text = torch.randn(2, 4, 16, 16), torch.randn(2, 7, WIDTH)
    picture, t = torch.rand(2, 3, 32, 32), torch.tensor(321)
    adapter = IpAdapter(weights=lambda _: source, name="photo").inject(model)
    encoded = adapter.encode(picture, request(model, 2))
    rows = encoded[adapter.tokens_key]
    context = {"timestep": t, "text": text, adapter.scale_key: torch.tensor(scale)}
    ours = model.unet(x, context=context | {adapter.tokens_key: rows["cond"]})

    embedding = vision(clip_pixels(picture, 32)).image_embeds
    before = unet(x, t, text).sample
    peer = UNet2DConditionModel.from_config(unet.config).eval()
    peer.load_state_dict(unet.state_dict())
    nested: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in read(source.files["weights"]).items():
        part, _, name = key.partition(".")
        nested[part][name] = tensor
    peer._load_ip_adapter_weights([nested])
    for processor in peer.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [scale]
    added = {"image_embeds": [embedding.unsqueeze(1)]}
    theirs = peer(x, t, text, added_cond_kwargs=added).sample

    assert relative(ours, theirs) <= 1e-5
    assert relative(ours, before) > 1e-3  # the picture has an effect


@torch.no_grad()
def test_pixels_equal_those_of_the_peers_processor():
    picture = Image.effect_noise((48, 40), 80).convert("RGB")
    processor = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    theirs = processor(picture, return_tensors="pt").pixel_values
    ours = clip_pixels(picture, 32)
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().mean()) < 0.02  # theirs rounds to bytes in between


def test_the_unconditional_branch_receives_an_embedding_of_zeros(
    source: Source, model: LatentDiffusion
):
    adapter = IpAdapter(weights=lambda _: source).inject(model)
    encoded = adapter.encode(torch.rand(3, 40, 50), request(model, 1))[adapter.tokens_key]
    bias = read(source.files["weights"])["image_proj.proj.bias"].view(1, TOKENS, WIDTH)
    torch.testing.assert_close(encoded["uncond"], adapter.parts.projection.norm(bias))


def test_a_saved_file_equals_the_published_one(
    source: Source, model: LatentDiffusion, tmp_path: Path
):
    adapter = IpAdapter(weights=lambda _: source).inject(model)
    adapter.save(tmp_path / "again.safetensors")
    ours, theirs = read(tmp_path / "again.safetensors"), read(source.files["weights"])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())
