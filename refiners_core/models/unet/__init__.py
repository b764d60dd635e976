"""The UNet, and the parts of it that adapters reuse."""

from refiners_core.models.unet.block import DownBlock, DownPath, MidBlock, UpBlock, UpPath
from refiners_core.models.unet.config import UNetConfig
from refiners_core.models.unet.layout import UNET_ENCODER_KEYS, UNET_KEYS
from refiners_core.models.unet.skip import SkipRead, SkipWrite, skip_key
from refiners_core.models.unet.time import AddedConditionEmbedding, TimeEmbedding, TimeShift
from refiners_core.models.unet.unet import UNet

__all__ = [
    "UNET_ENCODER_KEYS",
    "UNET_KEYS",
    "AddedConditionEmbedding",
    "DownBlock",
    "DownPath",
    "MidBlock",
    "SkipRead",
    "SkipWrite",
    "TimeEmbedding",
    "TimeShift",
    "UNet",
    "UNetConfig",
    "UpBlock",
    "UpPath",
    "skip_key",
]
