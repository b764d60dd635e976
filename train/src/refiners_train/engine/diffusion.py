"""The objective of diffusion models: predict what the base predicts, from noised latents."""

from typing import Final

from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import adaptive_avg_pool2d, mse_loss

from refiners_core.models.diffusion import COND
from refiners_train.data.batch import Batch
from refiners_train.engine.picture_objective import Drawn, PictureObjective
from refiners_train.engine.timestep import draw_timesteps
from refiners_train.engine.weighting import alphas_at, masked_mean, min_snr

_BRANCHES: Final = (COND,)


class Diffusion(PictureObjective):
    """The error of the prediction of noise, velocity or image (arXiv:2006.11239, section 3.4)."""

    def timesteps(self, count: int, generator: Generator) -> dict[str, Tensor]:
        """Draws training steps."""
        most = self.schedule.train_steps
        return {"timesteps": draw_timesteps(self.train.timesteps, count, most, generator)}

    def errors(self, batch: Batch, drawn: Drawn) -> Float[Tensor, "rows"]:
        """Returns the squared error of the prediction, masked and weighted."""
        schedule, timesteps = self.schedule, self.placed(drawn["timesteps"])
        latents = self.reading.latents(batch)
        noise = self.placed(drawn["noise"]).to(latents.dtype)
        context = {"timestep": timesteps, "branches": _BRANCHES, **self.context(batch, drawn)}
        noised = schedule.add_noise(latents, noise, timesteps)
        predicted = self.model.at("unet")(noised, context=context)
        target = schedule.target(latents, noise, timesteps)
        error = mse_loss(predicted.float(), target.float(), reduction="none")
        means = masked_mean(error, small_mask(batch, error))
        if self.train.snr_gamma is None:
            return means
        alphas = alphas_at(schedule, timesteps)
        return means * min_snr(alphas, self.train.snr_gamma, schedule.prediction)


def small_mask(batch: Batch, like: Tensor) -> Float[Tensor, "rows 1 height width"] | None:
    """Returns the masks of a batch in the size of latents; None without any."""
    if batch.masks is None:
        return None
    return adaptive_avg_pool2d(batch.masks, (like.shape[-2], like.shape[-1]))
