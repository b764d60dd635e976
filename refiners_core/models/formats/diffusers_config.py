"""Configurations as diffusers and transformers write them: the inverse of `from_json`."""

from typing import Any

from refiners_core.models.clip import ClipTextConfig
from refiners_core.models.samplers import ScheduleConfig
from refiners_core.models.samplers.diffusers_scheduler import to_published
from refiners_core.models.samplers.table import WRITERS
from refiners_core.models.unet import UNetConfig
from refiners_core.models.vae import AutoencoderConfig


def of_unet(config: UNetConfig) -> dict[str, Any]:
    """Returns the `config.json` of a `UNet2DConditionModel`."""
    plain = [depth == 0 for depth in config.depths]
    depths = [depth or 1 for depth in config.depths]
    depths[-1] = config.mid_depth  # in diffusers the middle has the depth of the last level
    settings: dict[str, Any] = {
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "block_out_channels": config.channels,
        "layers_per_block": config.layers,
        "down_block_types": [
            "DownBlock2D" if is_plain else "CrossAttnDownBlock2D" for is_plain in plain
        ],
        "up_block_types": [
            "UpBlock2D" if is_plain else "CrossAttnUpBlock2D" for is_plain in plain[::-1]
        ],
        "transformer_layers_per_block": depths,
        "attention_head_dim": config.heads,
        "cross_attention_dim": config.text_width,
        "norm_num_groups": config.groups,
        "norm_eps": config.eps,
        "use_linear_projection": config.has_linear_projection,
    }
    if config.added_cond_width is not None:
        settings["addition_embed_type"] = "text_time"
        settings["addition_time_embed_dim"] = config.time_id_channels
        settings["projection_class_embeddings_input_dim"] = config.added_cond_width
    return settings


def of_autoencoder(config: AutoencoderConfig) -> dict[str, Any]:
    """Returns the `config.json` of an `AutoencoderKL`."""
    levels = len(config.channels)
    return {
        "in_channels": config.pixel_channels,
        "out_channels": config.pixel_channels,
        "latent_channels": config.latent_channels,
        "block_out_channels": config.channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": config.blocks,
        "norm_num_groups": config.groups,
        "mid_block_add_attention": config.has_attention,
        "use_quant_conv": config.has_quant_conv,
        "use_post_quant_conv": config.has_post_quant_conv,
        "scaling_factor": config.scaling_factor,
        "shift_factor": config.shift_factor or None,
        "force_upcast": config.overflows_half,
    }


def of_text_encoder(config: ClipTextConfig) -> dict[str, Any]:
    """Returns the `config.json` of a `CLIPTextModel`, with or without projection."""
    return {
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.max_tokens,
        "hidden_size": config.width,
        "intermediate_size": config.inner_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "hidden_act": config.activation,
        "layer_norm_eps": config.eps,
        "eos_token_id": config.end_token,
        "projection_dim": config.projection_width or config.width,
    }


def of_schedule(config: ScheduleConfig) -> dict[str, Any]:
    """Returns the `scheduler_config.json` of a `DDIMScheduler`."""
    data = to_published(config)
    if data.get("timestep_spacing") == "sgm-uniform":
        data["timestep_spacing"] = "trailing"  # the nearest one that the class has
    return {key: value for key, value in data.items() if WRITERS["DDIMScheduler"].reads(key)}
