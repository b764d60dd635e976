"""The playground's model for training; its parts are read and written separately."""

from collections.abc import Mapping

from refiners_playground.config import AUTOENCODER, SCHEDULE, TEXT_ENCODER, UNET
from refiners_playground.scene import SIZE
from run import WEIGHTS
from weight_file import save_half

from refiners_core.models import sd15
from refiners_core.models.clip import CLIP_TEXT_KEYS, ClipTokenizer
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.unet import UNET_KEYS
from refiners_core.models.vae import AUTOENCODER_KEYS
from refiners_core.weights import KeyMap, load

FILES: Mapping[str, tuple[str, KeyMap]] = {
    "text_encoder": ("text_encoder.safetensors", CLIP_TEXT_KEYS),
    "unet": ("unet.safetensors", UNET_KEYS),
    "autoencoder": ("vae.safetensors", AUTOENCODER_KEYS),
}
"""The file of each part, and the keys of its weights: those of Stable Diffusion."""


def build_model(*trained: str) -> LatentDiffusion:
    """Builds the model in float32 and loads the trained weights of the named parts."""
    model = sd15.build(
        unet=UNET,
        text_encoder=TEXT_ENCODER,
        autoencoder=AUTOENCODER,
        schedule=SCHEDULE,
        tokenizer=ClipTokenizer.load(WEIGHTS / "tokenizer"),
        size=SIZE,
        base="playground",
    )
    for part in trained:
        file, layout = FILES[part]
        load(model.layer(part), WEIGHTS / file, layout)
    return model


def save_part(model: LatentDiffusion, part: str) -> None:
    """Writes a part's weights in fp16 to the folder that the package ships."""
    file, layout = FILES[part]
    save_half(model.layer(part), file, layout)
