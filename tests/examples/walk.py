"""A generation that is written out, against which adapters are compared."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

STEPS, GUIDANCE = 5, 3.0
Denoised = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Returns the guided prediction of a step from its index, latents, timestep and texts."""


def generate(model: Any, **options: Any) -> Tensor:
    defaults = {"steps": STEPS, "guidance": GUIDANCE, "seed": 7, "output": "latents"}
    return model.generate(**{"prompt": "a red circle", "progress": False, **defaults, **options})


@torch.no_grad()
def walked(model: Any, denoised: Denoised, text: Tensor | None = None, count: int = 1) -> Tensor:
    """Returns the latents of a generation, with the prediction of each step from a function."""
    sampler = model.sampler.with_steps(STEPS)
    sources = [torch.Generator().manual_seed(7 + i) for i in range(count)]
    noise = torch.stack([torch.randn(4, 8, 8, generator=source) for source in sources])
    x, past = sampler.begin(noise), ()
    texts = model.read(["", "a red circle"], {})["text"] if text is None else text
    for step, timestep in enumerate(sampler.timesteps):
        prediction = denoised(step, x, torch.tensor(timestep), texts)
        stepped = sampler.step(x, prediction, step, past=past)
        x, past = stepped.latents, (stepped.clean, *past)[: sampler.memory]
    return x


def guided(prediction: Tensor) -> Tensor:
    uncond, cond = prediction.chunk(2)
    return uncond + GUIDANCE * (cond - uncond)
