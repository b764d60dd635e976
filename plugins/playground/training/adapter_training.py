"""Trains an adapter on a frozen base model."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

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
    """The training data and the hyperparameters of an adapter."""

    pictures: list[tuple[float, Pictures]]
    """The share of each kind of scene in a batch, with its scenes and latents."""
    look: Callable[[list[Scene]], Any] | None
    """Makes the conditions of scenes; None if the adapter takes no condition."""
    text_dropped: float
    """The share (0...1) of samples with an empty prompt."""
    condition_dropped: float
    """The share (0...1) of samples with the unconditional value of the condition."""
    recipe: Recipe


def request_for(model: LatentDiffusion, count: int) -> GenerationRequest:
    """Returns the request that `encode` receives in a generation of `count` pictures."""
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


def encoded(
    adapter: Adapter, model: LatentDiffusion, conditions: Any, dropped: Tensor
) -> dict[str, Tensor]:
    """Returns the context values of conditions; dropped rows have the values of `uncond`."""
    values: dict[str, Tensor] = {}
    for key, branches in adapter.encode(conditions, request_for(model, len(dropped))).items():
        cond = branches["cond"]
        uncond = branches.get("uncond", cond).expand_as(cond)
        values[key] = torch.where(dropped.view(-1, *[1] * (cond.ndim - 1)), uncond, cond)
    return values


def batch_of(lesson: Lesson, random: Random, count: int) -> tuple[list[Scene], Tensor]:
    """Samples scenes and their latents, each kind with its share."""
    shares = [share for share, _ in lesson.pictures]
    chosen = random.choices(range(len(shares)), shares, k=count)
    scenes: list[Scene] = []
    latents: list[Tensor] = []
    for index, (_, pictures) in enumerate(lesson.pictures):
        sampled, sampled_latents = pictures.sample(random, chosen.count(index))
        scenes += sampled
        latents.append(sampled_latents)
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
    """Trains `learner`, a part of a worn adapter, and leaves its averaged weights in it.

    Args:
        name: The folder of the run.
        model: The frozen base, which wears the adapter.
        adapter: The adapter.
        learner: The trainable layers of the adapter.
        lesson: Data and hyperparameters.
        measure: Returns figures of the adapter in its present state.
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
            context |= encoded(adapter, model, lesson.look(scenes), dropped)
        predicted = model.unet(schedule.add_noise(latents, noise, timesteps), context=context)
        return mse_loss(predicted, schedule.target(latents, noise, timesteps))

    train(name, learner, lesson.recipe, loss_of, measure, options)
