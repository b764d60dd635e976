"""Runs the steps of a scheduler of diffusers, and ours, with a made-up network and given noise."""

import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import diffusers
import torch
from torch import Tensor

from refiners_core.models.samplers import Sampler

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
STEPS = 20


def draws(count: int = 4 * STEPS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, 4, 4, generator=generator) for _ in range(count)]


def network(latents: Tensor, timestep: Any) -> Tensor:
    mixing = torch.linspace(-1, 1, 16).reshape(4, 4)
    return torch.tanh(torch.einsum("oc,nchw->nohw", mixing, latents) + float(timestep) / 1000)


def built(kind: Any, make: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """Calls a constructor of a scheduler without its thousand steps, which take a second."""
    made = mock.patch.object(
        kind, "set_timesteps", lambda self, *a, **kw: setattr(self, "sigmas", torch.zeros(1))
    )
    with made:
        return make(*args, **settings)


def gauss(integrand: Callable[[float], Any], start: Any, end: Any, **_: Any) -> tuple[float, float]:
    """Integrates a polynomial of degree 3 exactly at two points; `quad` asks for 21 or more."""
    start, end = float(start), float(end)
    middle, half = (start + end) / 2, (end - start) / 2
    return half * sum(float(integrand(middle + x * half)) for x in (-(3**-0.5), 3**-0.5)), 0.0


class BrownianPath:
    """The noise sampler of DPM++ SDE, made of the noise that is drawn for each run."""

    def __init__(self, drawn: Iterator[Tensor]) -> None:
        self.drawn = drawn
        self.half: tuple[Tensor, Tensor] | None = None

    def __call__(self, sigma: Tensor, to: Tensor) -> Tensor:
        if self.half is None:
            self.half = next(self.drawn), to
            return self.half[0]
        (first, middle), self.half = self.half, None
        parts = [first * (sigma - middle).sqrt(), next(self.drawn) * (middle - to).sqrt()]
        return sum(parts) / (sigma - to).sqrt()


def theirs(
    peer: Any, monkeypatch: Any, start: int = 0, steps: int = STEPS, **more: Any
) -> tuple[Tensor, list[float]]:
    """Runs a scheduler's steps from `start` on; returns the latents and the timesteps."""
    noise, clean, *drawn = draws()
    left = iter(drawn)
    module = sys.modules[type(peer).__module__]
    monkeypatch.setattr(module, "randn_tensor", lambda *a, **kw: next(left), raising=False)
    lists = {key: more.pop(key) for key in ("timesteps", "sigmas") if key in more}
    peer.set_timesteps(**(lists or {"num_inference_steps": steps}))
    if isinstance(peer, diffusers.LMSDiscreteScheduler):
        monkeypatch.setattr(module.integrate, "quad", gauss)
    if isinstance(peer, diffusers.DPMSolverSDEScheduler):
        peer.noise_sampler = BrownianPath(left)
    timesteps = peer.timesteps[start * peer.order :]
    x = noise * peer.init_noise_sigma
    if start:
        if hasattr(peer, "set_begin_index"):
            peer.set_begin_index(start * peer.order)
        x = peer.add_noise(clean, noise, timesteps[:1])
    for t in timesteps:
        x = peer.step(network(peer.scale_model_input(x, t), t), t, x, **more).prev_sample
    return x, [float(t) for t in timesteps]


def ours(sampler: Sampler, start: int = 0) -> tuple[Tensor, list[float]]:
    """Runs the steps of a sampler that has its steps; returns the latents and the timesteps."""
    noise, clean, *drawn = draws()
    left = iter(drawn)
    run = sampler.with_strength(1 - start / sampler.steps) if start else sampler
    y = run.path[0].add_noise(clean, noise) if start else run.begin(noise)
    past: tuple[Tensor, ...] = ()
    for i, timestep in enumerate(run.timesteps):
        given = next(left) if run.draws(i) else None
        stepped = run.step(y, network(y, timestep), i, past=past, noise=given)
        y, past = stepped.latents, stepped.past
    return y, list(run.timesteps)
