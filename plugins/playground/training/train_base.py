"""Trains text encoder and UNet together on cached latents: about half an hour on one core.

The share of canonical scenes decides success: see `refiners_playground.random_scene`. Watch `swap`,
the loss with a wrong shape word less the loss with the right one: it rises before pictures change.
"""

from random import Random

import torch
from data import Pictures, load_pictures
from loop import Recipe, train
from model import build_model, save_part
from refiners_playground.caption import caption, plain_caption
from refiners_playground.measure.prompt import PlainPrompts
from refiners_playground.scene import SHAPES
from run import arguments
from timestep import choose_timesteps
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from refiners_core.models.diffusion import LatentDiffusion

CANONICAL_SHARE, LATER_SHARE = 0.6, 0.3
LEARNT = 0.95
"""The canonical share falls once this share of prompted shapes is recognised."""
TEXT_DROPPED = 0.1
MEASURED = 48


def velocity_loss(
    model: LatentDiffusion, latents: Tensor, noise: Tensor, timesteps: Tensor, prompts: list[str]
) -> Tensor:
    """Returns the mean squared error of the UNet's prediction with prompts, at given timesteps."""
    schedule = model.sampler.schedule
    noisy = schedule.add_noise(latents, noise, timesteps)
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    context = {"timestep": timesteps, **model.read(prompts, {})}
    return mse_loss(model.unet(noisy, context=context), schedule.target(latents, noise, timesteps))


def batch_of(
    random: Random, canonical: Pictures, varied: Pictures, count: int, share: float
) -> tuple[Tensor, list[str]]:
    """Returns latents and captions; `share` of them canonical, whose shape is always named."""
    easy = sum(random.random() < share for _ in range(count))
    scenes, latents = canonical.sample(random, easy)
    prompts = [caption(scene, random, keep_shape=True) for scene in scenes]
    others, other_latents = varied.sample(random, count - easy)
    prompts += [caption(scene, random) for scene in others]
    prompts = ["" if random.random() < TEXT_DROPPED else prompt for prompt in prompts]
    return torch.cat([latents, other_latents]), prompts


@torch.no_grad()
def swap_difference(model: LatentDiffusion, canonical: Pictures) -> float:
    """Returns the loss with a wrong shape word less that with the right one, at timesteps 400 to
    950."""
    scenes, latents = canonical.scenes[:64], canonical.latents[:64].float()
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(7))
    timesteps = torch.linspace(400, 950, len(scenes)).long()
    right = [plain_caption(scene) for scene in scenes]
    wrong: list[str] = []
    for row, (scene, prompt) in enumerate(zip(scenes, right, strict=True)):
        shape = scene.items[0].shape
        other = SHAPES[(SHAPES.index(shape) + 1 + row % 7) % len(SHAPES)]
        wrong.append(prompt.replace(shape, other))
    swapped = velocity_loss(model, latents, noise, timesteps, wrong)
    return (swapped - velocity_loss(model, latents, noise, timesteps, right)).item()


def main() -> None:
    """Trains, measures with held-out prompts, writes fp16 weights."""
    options = arguments(
        __doc__ or "", steps=2600, batch=24, canonical=8000, varied=16000, measure_every=400
    )
    canonical = load_pictures("canonical", options.canonical)
    varied = load_pictures("varied", options.varied)
    torch.manual_seed(0)
    model = build_model("autoencoder")
    model.unet.to(memory_format=torch.channels_last)
    share = CANONICAL_SHARE

    def loss_of(step: int, random: Random) -> Tensor:
        count = options.batch * (2 if step >= 0.75 * options.steps else 1)
        latents, prompts = batch_of(random, canonical, varied, count, share)
        noise = torch.randn_like(latents)
        return velocity_loss(model, latents, noise, choose_timesteps(count), prompts)

    def measure() -> dict[str, float]:
        nonlocal share
        shares = PlainPrompts().values(model, None, MEASURED)
        share = LATER_SHARE if shares["shape"] >= LEARNT else share
        swap = swap_difference(model, canonical)
        return shares | {"swap": swap}

    learner = nn.ModuleDict({"text_encoder": model.text_encoder, "unet": model.unet})
    recipe = Recipe(muon=3e-3, adam=1.2e-3, warm=100, hold=0.5, decay=0.999)
    train("base", learner, recipe, loss_of, measure, options)
    save_part(model, "text_encoder")
    save_part(model, "unet")


if __name__ == "__main__":
    main()
