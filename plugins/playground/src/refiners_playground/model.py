"""The playground model: the architecture of Stable Diffusion 1.5 in small sizes."""

from typing import Final

import torch

from refiners_core import Source
from refiners_core.models.clip import ClipTokenizer
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.sd15 import build as build_family
from refiners_core.models.sd15 import load_weights
from refiners_playground.config import AUTOENCODER, SCHEDULE, TEXT_ENCODER, UNET
from refiners_playground.scene import SIZE

BASE: Final = "playground"


def build(
    source: Source | None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LatentDiffusion:
    """Builds the playground and loads the weights of `source`, if given.

    Args:
        source: The files `unet`, `vae`, `text-encoder`, `vocab` and `merges`.
        device: The device of the weights; the CPU by default.
        dtype: The type of the weights; by default float32, as a CPU gains nothing from less.
    """
    tokenizer = None
    if source is not None:
        tokenizer = ClipTokenizer.load(source.files["vocab"].parent, TEXT_ENCODER.max_tokens)
    model = build_family(
        unet=UNET,
        text_encoder=TEXT_ENCODER,
        autoencoder=AUTOENCODER,
        schedule=SCHEDULE,
        tokenizer=tokenizer,
        size=SIZE,
        base=BASE,
        device=device if source is None else "meta",
        dtype=dtype or torch.float32,
    )
    if source is not None:
        files = {
            role.replace("-", "_"): source.files[role] for role in ("unet", "vae", "text-encoder")
        }
        load_weights(model, files, dtype=dtype or torch.float32, device=device or "cpu")
    return model.eval().requires_grad_(False)
