"""The objective of LCM-LoRA: a sampler of few steps (arXiv:2311.05556)."""

from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from refiners_core.models.diffusion import COND
from refiners_core.models.samplers import ScheduleConfig
from refiners_train.data.batch import Batch
from refiners_train.engine.diffusion import small_mask
from refiners_train.engine.picture_objective import Drawn, PictureObjective
from refiners_train.engine.weighting import alphas_at, masked_mean

SIGMA_DATA: Final = 0.5
"""The standard deviation of the data in the boundary condition."""
TIME_SCALE: Final = 10.0
"""The factor of timesteps in the boundary condition, as released."""
HUBER: Final = 0.001
"""The constant of the pseudo-Huber error, as released."""
_BRANCHES: Final = (COND,)


class Consistency(PictureObjective):
    """Consistency distillation in latents (arXiv:2310.04378, section 4.2, algorithm 1).

    The teacher is the base without the adapter: it takes one DDIM step with guidance from a
    timestep of its grid to the one before. The student, the base with the adapter, shall predict
    the same image from both ends of the step. Guidance is in the target, so that the student draws
    without.
    """

    def timesteps(self, count: int, generator: Generator) -> dict[str, Tensor]:
        """Draws the beginning of each step on the teacher's grid, and its guidance."""
        options = {"generator": generator, "device": "cpu"}
        grid = self.train.distillation.grid
        stride = self.schedule.train_steps // grid
        number = torch.randint(grid, (count,), **options)  # pyright: ignore
        low, high = self.train.distillation.guidance
        guidance = low + (high - low) * torch.rand(count, **options)  # pyright: ignore
        return {"timesteps": (number + 1) * stride - 1, "guidance": guidance}

    def errors(self, batch: Batch, drawn: Drawn) -> Float[Tensor, "rows"]:
        """Returns the pseudo-Huber error between the images of both ends of a step."""
        start = self.placed(drawn["timesteps"])
        stride = self.schedule.train_steps // self.train.distillation.grid
        end = (start - stride).clamp(min=0)
        latents = self.reading.latents(batch)
        noise = self.placed(drawn["noise"]).to(latents.dtype)
        x = self.schedule.add_noise(latents, noise, start)
        context = self.context(batch, drawn)
        image = self._consistent(x, start, context)
        with torch.no_grad():
            before = self._teacher_step(x, start, end, batch, drawn)
            target = self._consistent(before, end, context)
        difference = image.float() - target.float()
        error = (difference.square() + HUBER**2).sqrt() - HUBER
        return masked_mean(error, small_mask(batch, error))

    def _consistent(
        self, x: Tensor, timesteps: Int[Tensor, "rows"], context: dict[str, Tensor]
    ) -> Tensor:
        """Returns the student's image: the input itself at timestep 0."""
        prediction = self._run(x, timesteps, context)
        clean = split(self.schedule, x, prediction, timesteps).clean
        c_skip, c_out = (part.view(-1, 1, 1, 1) for part in boundary(timesteps))
        return c_skip * x + c_out * clean

    def _teacher_step(
        self,
        x: Tensor,
        start: Int[Tensor, "rows"],
        end: Int[Tensor, "rows"],
        batch: Batch,
        drawn: Drawn,
    ) -> Tensor:
        """Returns the latents after one DDIM step of the base with guidance."""
        reading, count = self.reading, len(batch)
        is_dropped = [*self.no_text(batch, drawn), *[True] * count]
        values = {
            **reading.texts([*batch.texts, *batch.texts], is_dropped, {}),
            **{key: ids.repeat(2, 1) for key, ids in reading.sizes(batch).items()},
        }
        prediction = self._run(x.repeat(2, 1, 1, 1), start.repeat(2), values)
        cond, uncond = prediction.chunk(2)
        guidance = self.placed(drawn["guidance"]).to(cond.dtype).view(-1, 1, 1, 1)
        guided = uncond + guidance * (cond - uncond)
        clean, noise = split(self.schedule, x, guided, start)
        return self.schedule.add_noise(clean, noise, end).to(x.dtype)

    def _run(self, x: Tensor, timesteps: Tensor, context: dict[str, Tensor]) -> Tensor:
        values = {"timestep": timesteps, "branches": _BRANCHES, **context}
        return self.model.at("unet")(x, context=values)


class Split(NamedTuple):
    """The parts of noised latents that a prediction implies, float32."""

    clean: Float[Tensor, "rows channels height width"]
    noise: Float[Tensor, "rows channels height width"]


def split(
    schedule: ScheduleConfig,
    x: Float[Tensor, "rows channels height width"],
    prediction: Float[Tensor, "rows channels height width"],
    timesteps: Int[Tensor, "rows"],
) -> Split:
    """Returns the clean latents and the noise, as `ScheduleConfig.split` does for one timestep.

    Args:
        schedule: The noise schedule.
        x: The latents that the network has read.
        prediction: Its prediction.
        timesteps: The timestep of each row.
    """
    alphas = alphas_at(schedule, timesteps).view(-1, 1, 1, 1)
    a, s = alphas.sqrt(), (1 - alphas).sqrt()
    x, prediction = x.float(), prediction.float()
    if schedule.prediction == "eps":
        return Split((x - s * prediction) / a, prediction)
    if schedule.prediction == "v":
        return Split(a * x - s * prediction, a * prediction + s * x)
    return Split(prediction, (x - a * prediction) / s)


def boundary(timesteps: Int[Tensor, "rows"]) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows"]]:
    """Returns `c_skip` and `c_out` of the boundary condition (arXiv:2310.04378, section 4.1).

    As released, timesteps are multiplied by 10, and `c_out` has no factor of sigma_data.

    Example:
        >>> [part.tolist() for part in boundary(torch.tensor([0]))]
        [[1.0], [0.0]]
    """
    t = TIME_SCALE * timesteps.float()
    square = t.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / square, t / square.sqrt()
