"""The side network computes the same as diffusers' ControlNetModel."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from refiners_controlnet.adapter import ControlNet, InpaintControlNet
from torch import Tensor

from refiners_core import Source
from refiners_core.models.clip import ClipTextConfig
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.sd15 import build
from refiners_core.models.unet import UNET_KEYS, UNetConfig
from refiners_core.models.vae import AutoencoderConfig
from refiners_core.weights import load, read

SIZES = {
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "cross_attention_dim": 24,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape) * 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def peer(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[UNet2DConditionModel, ControlNetModel, Path]:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        **SIZES,
    )
    control = ControlNetModel(conditioning_embedding_out_channels=(8, 16, 24), **SIZES)
    folder = tmp_path_factory.mktemp("controlnet")
    randomised(control).save_pretrained(folder)
    return randomised(unet), control, folder / "diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(peer: tuple[UNet2DConditionModel, ControlNetModel, Path]) -> LatentDiffusion:
    unet = peer[0]
    config = UNetConfig.from_json(json.loads(unet.to_json_string()))
    text = ClipTextConfig(vocabulary=9, width=24, inner_width=24, layers=1, heads=2, end_token=8)
    autoencoder = AutoencoderConfig(channels=(8, 8, 8), blocks=1, groups=4)
    model = build(unet=config, text_encoder=text, autoencoder=autoencoder)
    load(model.unet, unet.state_dict(), UNET_KEYS)
    return model.eval()


def request(model: LatentDiffusion, rows: int) -> GenerationRequest:
    return GenerationRequest(
        model=model,
        count=rows,
        branches=("cond",),
        height=64,
        width=64,
        latent_height=16,
        latent_width=16,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_a_controlled_unet_equals_the_peers(
    peer: tuple[UNet2DConditionModel, ControlNetModel, Path], model: LatentDiffusion, scale: float
):
    unet, control, path = peer
    x, text = torch.randn(2, 4, 16, 16), torch.randn(2, 7, 24)
    picture, t = torch.rand(2, 3, 64, 64), torch.tensor(321)
    skips, mid = control(
        x, t, text, controlnet_cond=picture, conditioning_scale=scale, return_dict=False
    )
    theirs = unet(
        x,
        t,
        text,
        down_block_additional_residuals=skips,
        mid_block_additional_residual=mid,
    ).sample

    adapter = ControlNet(weights=lambda _: Source({"weights": path}), name="control").inject(model)
    encoded = adapter.encode(picture, request(model, 2))
    context = {key: branches["cond"] for key, branches in encoded.items()}
    context |= {"timestep": t, "text": text, adapter.scale_key: torch.tensor(scale)}
    ours = model.unet(x, context=context)
    assert relative(ours, theirs) <= 1e-5
    assert relative(ours, unet(x, t, text).sample) > 1e-3  # the side network has an effect


def inpaint_condition(image: Tensor, mask: Tensor) -> Tensor:
    """Returns the condition that the documentation of diffusers' inpainting pipeline prescribes."""
    image = image.clone()
    image[mask.expand_as(image) > 0.5] = -1.0
    return image


@torch.no_grad()
@pytest.mark.parametrize("masks", [1, 2])
def test_the_inpainting_network_reads_minus_one_under_the_mask(
    peer: tuple[UNet2DConditionModel, ControlNetModel, Path], model: LatentDiffusion, masks: int
):
    unet, control, path = peer
    x, text, t = torch.randn(2, 4, 16, 16), torch.randn(2, 7, 24), torch.tensor(321)
    picture, mask = torch.rand(2, 3, 64, 64), torch.zeros(masks, 1, 64, 64)
    mask[..., 20:50, 8:40] = 1
    mask[..., 0, 0] = 0.5  # not above one half
    skips, mid = control(
        x, t, text, controlnet_cond=inpaint_condition(picture, mask), return_dict=False
    )
    more = {"down_block_additional_residuals": skips, "mid_block_additional_residual": mid}
    theirs = unet(x, t, text, **more).sample

    adapter = InpaintControlNet(weights=lambda _: Source({"weights": path}), name="inpaint")
    adapter.inject(model)
    encoded = adapter.encode({"picture": picture, "mask": mask}, request(model, 2))
    context = {key: branches["cond"] for key, branches in encoded.items()}
    context |= {"timestep": t, "text": text, adapter.scale_key: torch.tensor(1.0)}
    ours = model.unet(x, context=context)
    assert relative(ours, theirs) <= 1e-5
    grey = adapter.encode({"picture": picture, "mask": torch.zeros_like(mask)}, request(model, 2))
    assert not torch.equal(*(next(iter(values.values()))["cond"] for values in (encoded, grey)))


def test_a_saved_file_equals_the_peers(
    peer: tuple[UNet2DConditionModel, ControlNetModel, Path],
    model: LatentDiffusion,
    tmp_path: Path,
):
    adapter = ControlNet(weights=lambda _: Source({"weights": peer[2]})).inject(model)
    adapter.save(tmp_path / "again.safetensors")
    ours, theirs = read(tmp_path / "again.safetensors"), read(peer[2])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_released_sizes_have_the_keys_and_shapes_of_the_released_files():
    with torch.device("meta"):
        theirs = ControlNetModel(cross_attention_dim=768, attention_head_dim=8).state_dict()
    adapter = ControlNet().inject(build(device="meta"))
    ours = adapter.published()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert (len(ours), sum(v.numel() for v in ours.values())) == (340, 361_279_120)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())
