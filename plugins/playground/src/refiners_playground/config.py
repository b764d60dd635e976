"""The sizes of the playground's networks: Stable Diffusion 1.5 in miniature."""

from refiners_core.models.clip import ClipImageConfig, ClipTextConfig
from refiners_core.models.dino import DinoConfig
from refiners_core.models.samplers import ScheduleConfig
from refiners_core.models.unet import UNetConfig
from refiners_core.models.vae import AutoencoderConfig

TEXT_ENCODER = ClipTextConfig(
    vocabulary=848,
    max_tokens=32,
    width=96,
    inner_width=192,
    layers=2,
    heads=3,
    end_token=680,
)
UNET = UNetConfig(
    channels=(32, 64, 96),
    layers=(1, 1, 1),
    depths=(1, 1, 0),
    heads=(2, 2, 2),
    text_width=TEXT_ENCODER.width,
    groups=8,
)
AUTOENCODER = AutoencoderConfig(
    channels=(16, 32, 64),
    blocks=1,
    groups=4,
    has_attention=False,
    scaling_factor=1.0,
)
"""The mean and deviation of latents are folded into the 1x1 convolutions around them."""
SCHEDULE = ScheduleConfig(beta_end=0.02, prediction="v", spacing="trailing", is_final_clean=True)
IMAGE_ENCODER = ClipImageConfig(
    image_size=64,
    patch_size=8,
    width=96,
    inner_width=192,
    layers=3,
    heads=3,
    projection_width=96,
)
"""The image encoder of the IP-Adapter."""
DINO_ENCODER = DinoConfig(
    image_size=64,
    input_size=64,
    patch_size=8,
    width=96,
    inner_width=192,
    layers=3,
    heads=3,
)
"""The image encoder of the IP-Adapter that reads patches of a DINO."""
