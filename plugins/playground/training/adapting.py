"""How an adapter learns beside a base that does not change."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch
from data import Pictures
from loop import Recipe, train
from refiners_playground.caption import caption
from refiners_playground.scene import Scene
from timestep import choose_timesteps
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from refiners_core import Adapter
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion


@dataclass(frozen=True)
class Lesson:
    """What an adapter learns from, and how."""

    pictures: list[tuple[float, Pictures]]
    """Scenes with their latents, and the share of each kind."""
    look: Callable[[list[Scene]], Tensor] | None
    """Makes of scenes the pictures in 0...1 that the adapter is shown; None if it takes none."""
    text_dropped: float
    """The share (0...1) of samples without words."""
    condition_dropped: float
    """The share (0...1) of samples without a picture."""
    recipe: Recipe


def request_for(model: LatentDiffusion, count: int) -> GenerationRequest:
    """Says to an adapter's `encode` what it would be told by a generation of `count` pictures."""
    side = model.size // model.autoencoder.config.reduction
    return GenerationRequest(
        model=model,
        count=count,
        branches=("uncond", "cond"),
        height=model.size,
        width=model.size,
        latent_height=side,
        latent_width=side,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def told_to(
    adapter: Adapter, model: LatentDiffusion, pixels: Tensor, dropped: Tensor
) -> dict[str, Tensor]:
    """The context values that stand for pictures; dropped rows are told what `uncond` is told."""
    values: dict[str, Tensor] = {}
    for key, branches in adapter.encode(pixels, request_for(model, len(pixels))).items():
        told = branches["cond"]
        absent = branches.get("uncond", told).expand_as(told)
        values[key] = torch.where(dropped.view(-1, *[1] * (told.ndim - 1)), absent, told)
    return values


def batch_of(lesson: Lesson, random: Random, count: int) -> tuple[list[Scene], Tensor]:
    """Chooses scenes and their latents, of each kind its share."""
    shares = [share for share, _ in lesson.pictures]
    chosen = random.choices(range(len(shares)), shares, k=count)
    scenes: list[Scene] = []
    latents: list[Tensor] = []
    for index, (_, pictures) in enumerate(lesson.pictures):
        some, their_latents = pictures.draw_lots(random, chosen.count(index))
        scenes += some
        latents.append(their_latents)
    return scenes, torch.cat(latents)


def adapt(
    name: str,
    model: LatentDiffusion,
    adapter: Adapter,
    learner: nn.Module,
    lesson: Lesson,
    measure: Callable[[], dict[str, float]],
    options: argparse.Namespace,
) -> None:
    """Trains `learner`, the part of a worn adapter that learns, and leaves the mean weights in it.

    Args:
        name: The run's folder.
        model: The base, which wears the adapter and stays as it is.
        adapter: What is worn.
        learner: The adapter's layers that learn.
        lesson: What from, and how.
        measure: Gives figures of the worn adapter as it is.
        options: `steps`, `batch`, `measure_every`, `fresh`.
    """
    model.requires_grad_(False)
    learner.requires_grad_(True)
    schedule = model.sampler.schedule

    def loss_of(step: int, random: Random) -> Tensor:
        scenes, latents = batch_of(lesson, random, options.batch)
        prompts = [
            "" if random.random() < lesson.text_dropped else caption(scene, random)
            for scene in scenes
        ]
        noise, timesteps = torch.randn_like(latents), choose_timesteps(len(latents))
        dropped = torch.rand(len(latents)) < lesson.condition_dropped
        context = {"timestep": timesteps, **model.read(prompts, {})}
        context[adapter.scale_key] = torch.tensor(1.0)
        if lesson.look is not None:
            context |= told_to(adapter, model, lesson.look(scenes), dropped)
        found = model.unet(schedule.add_noise(latents, noise, timesteps), context=context)
        return mse_loss(found, schedule.target(latents, noise, timesteps))

    train(name, learner, lesson.recipe, loss_of, measure, options)
