"""Teaches the autoencoder's decoder to draw faces as well: fifteen minutes on one core.

`train_autoencoder.py` saw scenes alone. Its latents keep what a face needs, its decoder does not
draw it: 20.5 dB. The encoder stays as it is, so latents, and what was trained on them, stay valid.
"""

from random import Random

import torch
from loop import Recipe, train
from model import build_model, save_part
from refiners_playground.picture import Picture, draw_pictures
from refiners_playground.random_scene import random_face, varied_scene
from run import arguments
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss
from train_autoencoder import HELD_OUT_SEED, sharpness_loss, signal_to_noise

NOISE = 0.03
"""The deviation of the noise on latents: those that the UNet predicts are not exact."""
MEASURED = 64


def main() -> None:
    """Trains, measures, writes fp16 weights."""
    options = arguments(__doc__ or "", steps=2400, batch=12, measure_every=300)
    torch.manual_seed(0)
    model = build_model("autoencoder")
    autoencoder = model.autoencoder.to(memory_format=torch.channels_last)
    autoencoder.encoder.requires_grad_(False)
    held_out = Random(HELD_OUT_SEED)
    faces: list[Picture] = [random_face(held_out) for _ in range(MEASURED)]
    scenes: list[Picture] = [varied_scene(held_out) for _ in range(MEASURED)]

    def loss_at(step: int, random: Random) -> Tensor:
        kinds = (random_face, varied_scene)
        pictures = [kinds[row % 2](random) for row in range(options.batch)]
        pixels = draw_pictures(pictures) * 2 - 1
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            latents = autoencoder.encoder(pixels)[0]
        decoded = autoencoder.decoder(latents + NOISE * torch.randn_like(latents))
        errors = l1_loss(decoded, pixels) + mse_loss(decoded, pixels)
        return errors + 0.5 * sharpness_loss(decoded, pixels)

    def measure() -> dict[str, float]:
        return {
            "faces": signal_to_noise(model, faces),
            "scenes": signal_to_noise(model, scenes),
        }

    recipe = Recipe(muon=2e-3, adam=1e-3, betas=(0.9, 0.98), hold=0.4, decay=0.995)
    train("decoder", autoencoder.decoder, recipe, loss_at, measure, options)
    save_part(model, "autoencoder")


if __name__ == "__main__":
    main()
