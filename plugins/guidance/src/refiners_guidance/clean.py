"""Predictions as the clean latents that they imply, and back."""

import torch
from torch import Tensor

from refiners_core import Context
from refiners_core.models.samplers import Level, Sampler


def to_clean(context: Context, prediction: Tensor) -> Tensor:
    """Returns the clean latents x0 that a prediction implies at this step, float32."""
    sampler, latents, level = _facts(context)
    return sampler.schedule.split(latents, prediction, level)[0]


def to_noise(context: Context, prediction: Tensor) -> Tensor:
    """Returns the noise eps that a prediction implies at this step, float32."""
    sampler, latents, level = _facts(context)
    return sampler.schedule.split(latents, prediction, level)[1]


def from_clean(context: Context, clean: Tensor) -> Tensor:
    """Returns the prediction that implies these clean latents at this step."""
    sampler, latents, level = _facts(context)
    return _prediction(sampler, latents, clean, level)


def noise_after(context: Context, noise: Tensor) -> Tensor:
    """Returns what a first-order step makes of noise, without clean latents and fresh noise.

    Such a step is linear in both, so that this is the share of any noise in its result.
    """
    sampler, _, level = _facts(context)
    latents, clean = level.noise * noise, torch.zeros_like(noise)
    prediction = _prediction(sampler, latents, clean, level)
    return sampler.step(latents, prediction, context["step"], noise=clean).latents


def _prediction(sampler: Sampler, latents: Tensor, clean: Tensor, level: Level) -> Tensor:
    kind = sampler.schedule.prediction
    if kind == "x0":
        return clean
    if kind == "v":
        return (level.signal * latents - clean) / level.noise
    return (latents - level.signal * clean) / level.noise


def _facts(context: Context) -> tuple[Sampler, Tensor, Level]:
    sampler: Sampler = context["sampler"]
    return sampler, context["latents"].float(), sampler.path[context["step"]]
