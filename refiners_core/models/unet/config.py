"""The sizes of a UNet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from refiners_core.errors import ModelError
from refiners_core.models.config_reader import Format, Published

TIME_IDS: Final = 6
"""The number of time ids: the sides of the original, the crop's corner, the target's sides."""

UNET: Final = Format.of(
    followed=(
        "sample_size in_channels out_channels block_out_channels down_block_types up_block_types "
        "layers_per_block transformer_layers_per_block attention_head_dim num_attention_heads "
        "cross_attention_dim norm_num_groups norm_eps use_linear_projection "
        "addition_time_embed_dim projection_class_embeddings_input_dim"
    ),
    # Features of the published classes that the released models of these families do not use.
    fixed={
        "addition_embed_type": (None, "text_time"),
        "mid_block_type": ("UNetMidBlock2DCrossAttn",),
        "only_cross_attention": (False,),
        "mid_block_only_cross_attention": (False,),
        "dual_cross_attention": (False,),
        "cross_attention_norm": (None,),
        "attention_type": ("default",),
        "act_fn": ("silu", "swish"),  # two names of one function
        "center_input_sample": (False,),
        "flip_sin_to_cos": (True,),
        "freq_shift": (0,),
        "downsample_padding": (1,),
        "mid_block_scale_factor": (1,),
        "resnet_time_scale_shift": ("default",),
        "resnet_skip_time_act": (False,),
        "resnet_out_scale_factor": (1,),
        "time_embedding_type": ("positional",),
        "time_embedding_dim": (None,),
        "time_embedding_act_fn": (None,),
        "timestep_post_act": (None,),
        "time_cond_proj_dim": (None,),
        "class_embed_type": (None,),
        "class_embeddings_concat": (False,),
        "num_class_embeds": (None,),
        "encoder_hid_dim": (None,),
        "encoder_hid_dim_type": (None,),
        "reverse_transformer_layers_per_block": (None,),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
        # of ControlNets
        "conditioning_channels": (3,),
        "controlnet_conditioning_channel_order": ("rgb",),
        "global_pool_conditions": (False,),
    },
    # For training; for attention without torch's kernel; for another type of embedding; sizes that
    # are read off the tensors of a ControlNet; training averages.
    idle=(
        "dropout upcast_attention addition_embed_type_num_heads "
        "conditioning_embedding_out_channels "
        "decay inv_gamma min_decay optimization_step power update_after_step use_ema_warmup"
    ),
)
"""The keys of published UNets, and of ControlNets for their encoder."""


@dataclass(frozen=True)
class UNetConfig:
    """The sizes of a UNet; the defaults are those of Stable Diffusion 1.5."""

    in_channels: int = 4
    """The channels of the input: the latents, and a mask and an image for inpainting."""
    out_channels: int = 4
    """The channels of the prediction, which are those of the latents."""
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """The channels of each level; every level but the last halves height and width."""
    layers: tuple[int, ...] = (2, 2, 2, 2)
    """The residual blocks of each level on the way down; on the way up it has one more."""
    depths: tuple[int, ...] = (1, 1, 1, 0)
    """The transformer blocks after each residual block of a level; 0 for no attention."""
    mid_depth: int = 1
    """The transformer blocks of the middle; 0 for no attention."""
    heads: tuple[int, ...] = (8, 8, 8, 8)
    """The attention heads of each level; the middle has those of the last level."""
    text_width: int = 768
    """The features of a token of the text."""
    groups: int = 32
    """The groups of group norms."""
    eps: float = 1e-5
    """The number that group norms of residual blocks add to the variance."""
    has_linear_projection: bool = False
    """Whether transformers project with linear layers instead of 1x1 convolutions."""
    added_cond_width: int | None = None
    """The features of pooled text and embedded time ids; None if the UNet does not read them."""
    time_id_channels: int = 256
    """The features of each embedded time id."""

    def __post_init__(self) -> None:
        levels = len(self.channels)
        for name in ("layers", "depths", "heads"):
            if len(getattr(self, name)) != levels:
                raise ModelError(
                    f"UNetConfig has {levels} levels of channels but "
                    f"{name} = {getattr(self, name)}.",
                    hint="Give one number for each level.",
                )

    @property
    def time_width(self) -> int:
        """The features of the embedded timestep."""
        return 4 * self.channels[0]

    @property
    def pooled_width(self) -> int:
        """The features of the pooled text; 0 for a UNet that does not read it."""
        return (
            0
            if self.added_cond_width is None
            else self.added_cond_width - TIME_IDS * self.time_id_channels
        )

    @property
    def skip_channels(self) -> tuple[int, ...]:
        """The channels of each skip, in the order in which they are written."""
        skips = [self.channels[0]]
        for level, channels in enumerate(self.channels):
            is_last = level == len(self.channels) - 1
            skips += [channels] * (self.layers[level] + (not is_last))
        return tuple(skips)

    def first_skip(self, level: int) -> int:
        """Returns the index of the skip that records the input of a level.

        On the way down the level writes the following skips; on the way up it reads this one last.
        """
        return sum(self.layers[:level]) + level

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads a published `config.json` of a UNet, or of a ControlNet for its encoder.

        Raises:
            ModelError: The configuration has an unsupported setting.
        """
        read = Published(data, "UNet2DConditionModel", "ControlNetModel", table=UNET)
        channels = read.numbers("block_out_channels", (320, 640, 1280, 1280))
        levels = len(channels)
        plain = _plain_levels(read, levels)
        depths = read.per_level("transformer_layers_per_block", 1, levels)
        # In published files `attention_head_dim` is the number of heads.
        heads_key = (
            "attention_head_dim"
            if data.get("num_attention_heads") is None
            else "num_attention_heads"
        )
        return cls(
            in_channels=read.value("in_channels", 4),
            out_channels=read.value("out_channels", 4),
            channels=channels,
            layers=read.per_level("layers_per_block", 2, levels),
            depths=tuple([0 if is_plain else n for n, is_plain in zip(depths, plain, strict=True)]),
            mid_depth=depths[-1],
            heads=read.per_level(heads_key, 8, levels),
            text_width=read.value("cross_attention_dim", 1280),
            groups=read.value("norm_num_groups", 32),
            eps=read.value("norm_eps", 1e-5),
            has_linear_projection=read.value("use_linear_projection", False),
            added_cond_width=_added_cond_width(read),
            time_id_channels=read.value("addition_time_embed_dim", 256),
        )


def _plain_levels(read: Published, levels: int) -> list[bool]:
    default = ["CrossAttnDownBlock2D"] * (levels - 1) + ["DownBlock2D"]
    kinds = list(read.data.get("down_block_types") or default)
    if len(kinds) != levels or not {*kinds} <= {*default, "CrossAttnDownBlock2D"}:
        raise read.refusal("down_block_types", f"{levels} of CrossAttnDownBlock2D or DownBlock2D")
    read.only("up_block_types", [kind.replace("Down", "Up") for kind in reversed(kinds)])
    return [kind == "DownBlock2D" for kind in kinds]


def _added_cond_width(read: Published) -> int | None:
    if read.data.get("addition_embed_type") is None:
        return None
    return read.value("projection_class_embeddings_input_dim", 2816)
