import diffusers
import pytest
import torch

from refiners_core import weights
from refiners_core.models.unet import UNET_KEYS, UNet, UNetConfig

SD15 = {
    "block_out_channels": (32, 32, 64, 64),
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "cross_attention_dim": 24,
    "attention_head_dim": 8,
}
PLAYGROUND = {
    "block_out_channels": (16, 32, 48),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 20,
    "attention_head_dim": 2,
}
DEEP = {
    "block_out_channels": (16, 32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "attention_head_dim": (2, 4, 8),
    "use_linear_projection": True,
    "norm_num_groups": 8,
    "cross_attention_dim": 20,
    "in_channels": 9,
}


def build_ours(file, config) -> UNet:
    with torch.device("meta"):
        ours = UNet(UNetConfig.from_json(config))
    return weights.load(ours, file, UNET_KEYS)


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        (SD15, (16, 24)),
        (PLAYGROUND, (16, 16)),
        (PLAYGROUND, (14, 11)),  # no multiple of 4: enlarged to what the skips have
        (DEEP, (8, 16)),
    ],
    ids=["as in SD 1.5", "as in the playground", "odd sizes", "as in SDXL, 9 channels"],
)
@torch.no_grad()
def test_the_prediction_equals_that_of_diffusers(changes, size, publish, differ):
    peer = diffusers.UNet2DConditionModel(**changes).eval()
    ours = build_ours(*publish(peer))
    latents = torch.randn(2, peer.config.in_channels, *size)
    text = torch.randn(2, 7, peer.config.cross_attention_dim)
    for timestep in (torch.tensor(421), torch.tensor([981, 1])):
        theirs = peer(latents, timestep, text).sample
        prediction = ours(latents, context={"timestep": timestep, "text": text})
        assert differ(prediction, theirs) <= 1e-5


def test_a_backward_pass_gives_the_gradients_of_diffusers(publish, differ):
    peer = diffusers.UNet2DConditionModel(**PLAYGROUND)
    ours = build_ours(*publish(peer))
    latents, text = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 20)
    peer(latents, 7, text).sample.square().sum().backward()
    ours(latents, context={"timestep": torch.tensor(7), "text": text}).square().sum().backward()
    theirs = dict(peer.named_parameters())
    for key, weight in ours.named_parameters():
        assert differ(weight.grad, theirs[UNET_KEYS.published(key)].grad) <= 1e-4, key


def test_diffusers_reads_saved_weights(publish, tmp_path):
    peer = diffusers.UNet2DConditionModel(**PLAYGROUND)
    file, config = publish(peer)
    ours = build_ours(file, config)
    file.unlink()
    weights.save(ours, file, UNET_KEYS)
    again = diffusers.UNet2DConditionModel.from_pretrained(tmp_path)
    state = peer.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in again.state_dict().items())
