import diffusers
import pytest
import torch

from refiners_core import weights
from refiners_core.models.vae import AUTOENCODER_KEYS, AutoencoderConfig, AutoencoderKL


def build_peer(**changes):
    levels = len(changes.get("block_out_channels", (8, 16, 24)))
    return diffusers.AutoencoderKL(
        **{
            "block_out_channels": (8, 16, 24),
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "layers_per_block": 2,
            "norm_num_groups": 4,
            **changes,
        }
    ).eval()


def build_ours(file, config) -> AutoencoderKL:
    with torch.device("meta"):
        ours = AutoencoderKL(AutoencoderConfig.from_json(config))
    return weights.load(ours, file, AUTOENCODER_KEYS)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"block_out_channels": (8, 16), "layers_per_block": 1, "mid_block_add_attention": False},
        {
            "latent_channels": 16,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "shift_factor": 0.1,
            "scaling_factor": 1.5,
        },
    ],
    ids=["as in SD 1.5", "as in the playground", "without 1x1 convolutions"],
)
@torch.no_grad()
def test_encoding_and_decoding_equal_those_of_diffusers(changes, publish, differ):
    peer = build_peer(**changes)
    ours = build_ours(*publish(peer))
    pixels = torch.rand(2, 3, 32, 24) * 2 - 1
    shift, scale = peer.config.shift_factor or 0, peer.config.scaling_factor

    theirs = peer.encode(pixels).latent_dist
    mean, log_variance = ours.encoder(pixels)
    assert differ(mean, theirs.mean) <= 1e-5
    assert differ(log_variance, theirs.logvar) <= 1e-5

    latents = ours.encode(pixels, torch.Generator().manual_seed(3))
    drawn = (theirs.sample(torch.Generator().manual_seed(3)) - shift) * scale
    assert differ(latents, drawn) <= 1e-5

    assert differ(ours.decode(latents), peer.decode(latents / scale + shift).sample) <= 1e-5


@torch.no_grad()
def test_called_as_a_tree_it_returns_the_reconstruction(publish, differ):
    peer = build_peer()
    ours = build_ours(*publish(peer))
    pixels = torch.rand(1, 3, 16, 16)
    assert differ(ours(pixels), peer(pixels, sample_posterior=False).sample) <= 1e-5


def test_gradients_pass_through_sampling():
    ours = AutoencoderKL(AutoencoderConfig(channels=(4, 8), blocks=1, groups=4))
    ours.decode(ours.encode(torch.rand(1, 3, 8, 8))).sum().backward()
    assert ours.layer("encoder.conv_in").weight.grad.abs().sum() > 0


def test_saved_weights_have_the_layout_of_diffusers(publish, tmp_path):
    file, config = publish(build_peer())
    published = weights.read(file)
    ours = build_ours(file, config)
    weights.save(ours, tmp_path / "again.safetensors", AUTOENCODER_KEYS)
    again = weights.read(tmp_path / "again.safetensors")
    assert again.keys() == published.keys()
    assert all(torch.equal(again[key], published[key]) for key in published)


def test_names_of_attention_from_before_2023_are_read(publish):
    file, config = publish(build_peer())
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for key, tensor in weights.read(file).items():
        for new, name in renamed.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{name}.")
        old[key] = tensor
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in old
    ours, again = build_ours(file, config), build_ours(old, config)
    assert all(
        torch.equal(a, b)
        for a, b in zip(ours.state_dict().values(), again.state_dict().values(), strict=True)
    )
