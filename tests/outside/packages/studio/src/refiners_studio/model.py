"""Studio: a latent diffusion model of four levels with narrow text, for pictures of 96 pixels."""

import torch
from tokenizers.pre_tokenizers import ByteLevel

from refiners_core import Source
from refiners_core.models.clip import ClipTextConfig, ClipTokenizer
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.samplers import ScheduleConfig
from refiners_core.models.sd15 import build as build_family
from refiners_core.models.sd15 import load_weights
from refiners_core.models.unet import UNetConfig
from refiners_core.models.vae import AutoencoderConfig

SIGNS = sorted(ByteLevel.alphabet())
TOKENS = [*SIGNS, *(f"{sign}</w>" for sign in SIGNS), "<|startoftext|>", "<|endoftext|>"]
TEXT_ENCODER = ClipTextConfig(
    vocabulary=len(TOKENS),
    max_tokens=20,
    width=48,
    inner_width=64,
    layers=3,
    heads=4,
    end_token=len(TOKENS) - 1,
)
UNET = UNetConfig(
    channels=(16, 24, 32, 32),
    layers=(1, 1, 1, 1),
    depths=(0, 1, 1, 1),
    heads=(2, 2, 4, 4),
    text_width=TEXT_ENCODER.width,
    groups=8,
)
AUTOENCODER = AutoencoderConfig(channels=(8, 16, 16, 16), blocks=1, groups=4)
SCHEDULE = ScheduleConfig(spacing="trailing")
ROLES = {"unet": "unet", "vae": "vae", "text_encoder": "text-encoder"}


def build(
    source: Source | None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LatentDiffusion:
    """Builds the model, with weights where there is a source."""
    model = build_family(
        unet=UNET,
        text_encoder=TEXT_ENCODER,
        autoencoder=AUTOENCODER,
        schedule=SCHEDULE,
        tokenizer=ClipTokenizer({token: i for i, token in enumerate(TOKENS)}, [], length=20),
        size=96,
        base="studio",
        device=device if source is None else "meta",
        dtype=dtype or torch.float32,
    )
    if source is not None:
        files = {part: source.files[role] for part, role in ROLES.items()}
        load_weights(model, files, dtype=dtype or torch.float32, device=device or "cpu")
    return model.eval().requires_grad_(False)
