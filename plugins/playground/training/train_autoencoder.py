"""Trains the autoencoder on freshly drawn scenes: about ten minutes on one core.

The recipe is that of latent diffusion (arXiv 2112.10752, appendix G) without the discriminator
and the perceptual loss: drawn scenes are flat colours and edges, which a loss on differences
between neighbouring pixels keeps sharp.
"""

from collections.abc import Sequence
from random import Random

import torch
from loop import Recipe, train
from model import build_model, save_part
from refiners_playground.picture import Picture, draw_pictures
from refiners_playground.random_scene import canonical_scene, varied_scene
from refiners_playground.scene import Scene, draw
from run import arguments
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.vae import AutoencoderKL

HELD_OUT_SEED = 1_000_003
LOG_VARIANCE = -5.6
"""The initial log-variance of latents: noise of 0.06 on latents of deviation about 1."""


def sample(random: Random) -> Scene:
    """Returns a random scene; a quarter are canonical."""
    return canonical_scene(random) if random.random() < 0.25 else varied_scene(random)


@torch.no_grad()
def start_quiet(autoencoder: AutoencoderKL) -> None:
    """Initialises residual blocks as the identity and the noise on latents as small."""
    for name, weight in autoencoder.named_parameters():
        if "conv_2" in name:
            weight.zero_()
    rows = autoencoder.config.latent_channels
    last = autoencoder.layer("encoder.quant_conv")
    last.weight[rows:] = 0
    last.bias[rows:] = LOG_VARIANCE


def sharpness_loss(decoded: Tensor, pixels: Tensor) -> Tensor:
    """Returns the mean absolute error of differences between neighbouring pixels."""
    error = decoded - pixels
    return error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()


def loss_of(autoencoder: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Returns the loss of a batch of pictures in -1...1."""
    mean, log_variance = autoencoder.encoder(pixels)
    deviation = (0.5 * log_variance.clamp(-30, 20)).exp()
    decoded = autoencoder.decoder(mean + deviation * torch.randn_like(mean))
    divergence = 0.5 * (mean.square() + deviation.square() - 1 - log_variance).sum((1, 2, 3)).mean()
    return (
        l1_loss(decoded, pixels)
        + mse_loss(decoded, pixels)
        + 0.5 * sharpness_loss(decoded, pixels)
        + 1e-6 * divergence
        + 1e-4 * mean.square().mean()
        + 1e-3 * (mean.abs() - 3).relu().square().mean()
    )


@torch.no_grad()
def signal_to_noise(model: LatentDiffusion, scenes: Sequence[Picture]) -> float:
    """Returns the mean PSNR (dB) of pictures after a round trip through the mean latents."""
    ratios: list[Tensor] = []
    for start in range(0, len(scenes), 32):
        pixels = draw_pictures(scenes[start : start + 32])
        error = model.decode(model.encode(pixels)) - pixels
        ratios.append(-10 * error.square().mean((1, 2, 3)).log10())
    return torch.cat(ratios).mean().item()


@torch.no_grad()
def normalise(model: LatentDiffusion, scenes: list[Scene]) -> None:
    """Folds the mean and deviation of latents into the 1x1 convolutions around them.

    Latents then have mean 0 and deviation 1 in each channel, so the scaling factor is 1.
    """
    batches = [scenes[start : start + 32] for start in range(0, len(scenes), 32)]
    latents = torch.cat([model.encode(draw(batch)) for batch in batches])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    before = model.autoencoder.layer("encoder.quant_conv")
    after = model.autoencoder.layer("decoder.post_quant_conv")
    rows = len(mean)
    after.bias += after.weight.flatten(1) @ mean
    after.weight *= deviation.view(1, -1, 1, 1)
    before.weight[:rows] /= deviation.view(-1, 1, 1, 1)
    before.bias[:rows] = (before.bias[:rows] - mean) / deviation
    before.bias[rows:] -= 2 * deviation.log()


def main() -> None:
    """Trains, measures, normalises and writes fp16 weights."""
    options = arguments(__doc__ or "", steps=2600, batch=8, measure_every=500)
    torch.manual_seed(0)
    model = build_model()
    autoencoder = model.autoencoder.to(memory_format=torch.channels_last)
    start_quiet(autoencoder)
    held_out = Random(HELD_OUT_SEED)
    measured = [sample(held_out) for _ in range(128)]

    def loss_at(step: int, random: Random) -> Tensor:
        pixels = draw([sample(random) for _ in range(options.batch)]) * 2 - 1
        return loss_of(autoencoder, pixels.contiguous(memory_format=torch.channels_last))

    def measure() -> dict[str, float]:
        return {"psnr": signal_to_noise(model, measured)}

    recipe = Recipe(muon=4e-3, adam=1.5e-3, betas=(0.9, 0.98), hold=0.35, floor=0.0, decay=0.995)
    train("autoencoder", autoencoder, recipe, loss_at, measure, options)
    random = Random(options.steps)
    normalise(model, [sample(random) for _ in range(512)])
    save_part(model, "autoencoder")


if __name__ == "__main__":
    main()
