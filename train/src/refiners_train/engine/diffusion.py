"""The objective of diffusion models: predict what the base predicts, from noised latents."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import adaptive_avg_pool2d, mse_loss

from refiners_core import Adapter
from refiners_core.models.diffusion import COND, GenerationRequest, LatentDiffusion
from refiners_train.config.schema import Config
from refiners_train.data.batch import Batch
from refiners_train.engine.timestep import draw_timesteps
from refiners_train.engine.weighting import alphas_at, masked_mean, min_snr


class Diffusion:
    """The error of the prediction of noise, velocity or image (arXiv:2006.11239, section 3.4).

    Args:
        model: The frozen base, which wears the adapter.
        adapter: The adapter.
        config: The configuration.
    """

    def __init__(self, model: LatentDiffusion, adapter: Adapter, config: Config) -> None:
        self.model: Final = model
        self.adapter: Final = adapter
        self.data: Final = config.data
        self.train: Final = config.train
        self.device: Final = model.unet.device
        self.schedule: Final = model.sampler.schedule
        self.weights: Tensor = torch.tensor([1.0, self.train.prior_weight], device=self.device)
        self._one: Final = torch.tensor(1.0, device=self.device, dtype=model.unet.dtype)

    def draw(self, batch: Batch, total: int, generator: Generator) -> dict[str, Tensor]:
        """Draws noise, timesteps, and which rows lose their prompt or their condition."""
        timesteps = draw_timesteps(
            self.train.timesteps, total, self.schedule.train_steps, generator
        )
        return {
            "timesteps": timesteps,
            "noise": torch.randn(total, *self._latent_shape(batch), generator=generator),
            "no_text": torch.rand(total, generator=generator) < self.data.text_dropped,
            "no_condition": torch.rand(total, generator=generator) < self.data.condition_dropped,
        }

    def counts(self, batch: Batch) -> Tensor:
        """Returns the number of examples, and of prior examples."""
        priors = 0 if batch.is_prior is None else int(batch.is_prior.sum())
        return torch.tensor([float(len(batch) - priors), float(priors)])

    def sums(self, batch: Batch, drawn: Mapping[str, Tensor]) -> Float[Tensor, "2"]:
        """Returns the summed errors of the examples, and of the prior examples."""
        error = self._errors(batch, drawn)
        if batch.weights is not None:
            error = error * batch.weights
        if batch.is_prior is None:
            total = error.sum()
            return torch.stack([total, torch.zeros_like(total)])
        prior = error * batch.is_prior
        return torch.stack([(error - prior).sum(), prior.sum()])

    def _errors(self, batch: Batch, drawn: Mapping[str, Tensor]) -> Float[Tensor, "rows"]:
        schedule, timesteps = self.schedule, self._placed(drawn["timesteps"])
        latents = self.latents(batch)
        noise = self._placed(drawn["noise"]).to(latents.dtype)
        context = {"timestep": timesteps, "branches": (COND,), **self.context(batch, drawn)}
        predicted = self.model.at("unet")(
            schedule.add_noise(latents, noise, timesteps), context=context
        )
        target = schedule.target(latents, noise, timesteps)
        error = mse_loss(predicted.float(), target.float(), reduction="none")
        mask = batch.masks
        if mask is not None:
            mask = adaptive_avg_pool2d(mask, (error.shape[-2], error.shape[-1]))
        means = masked_mean(error, mask)
        if self.train.snr_gamma is None:
            return means
        alphas = alphas_at(schedule, timesteps)
        return means * min_snr(alphas, self.train.snr_gamma, schedule.prediction)

    def latents(self, batch: Batch) -> Float[Tensor, "rows channels height width"]:
        """Returns the latents of a batch, which the frozen autoencoder encodes unless given."""
        if batch.latents is not None:
            return batch.latents.to(self._one.dtype)
        assert batch.pictures is not None, "an example has a picture or latents"
        with torch.no_grad():
            return self.model.encode(batch.pictures).to(self._one.dtype)

    def context(self, batch: Batch, drawn: Mapping[str, Tensor]) -> dict[str, Any]:
        """Returns the context values of the prompts, the sizes and the adapter's condition."""
        scale = {self.adapter.scale_key: self._one}
        is_dropped = drawn["no_text"].tolist() if self.data.text_dropped else [False] * len(batch)
        texts = ["" if gone else text for text, gone in zip(batch.texts, is_dropped, strict=True)]
        silent = [gone and self.model.is_silent_when_empty for gone in is_dropped]
        context: dict[str, Any] = self.model.read(
            texts, scale, is_silent=silent if any(silent) else ()
        )
        context |= scale
        request = self.request(batch, texts)
        if batch.time_ids is not None and self.model.unet.config.added_cond_width is not None:
            context["time_ids"] = batch.time_ids
        else:
            context |= {
                name: ids.expand(len(batch), -1)
                for name, ids in self.model.describe(request).items()
            }
        if self.adapter.takes_condition or self.adapter.reads_prompts:
            context |= self.encoded(batch, request, self._placed(drawn["no_condition"]))
        return context

    def request(self, batch: Batch, texts: list[str]) -> GenerationRequest:
        """Returns the request that the adapter's `encode` would get in a generation."""
        reduction = self.model.autoencoder.config.reduction
        like = batch.pictures if batch.latents is None else batch.latents
        assert like is not None, "an example has a picture or latents"
        height, width = like.shape[-2:]
        if batch.latents is None:
            height, width = height // reduction, width // reduction
        return GenerationRequest(
            model=self.model,
            count=len(batch),
            branches=("uncond", "cond"),
            height=height * reduction,
            width=width * reduction,
            latent_height=height,
            latent_width=width,
            dtype=self._one.dtype,
            device=self.device,
            prompts={"uncond": [""] * len(texts), "cond": texts},
        )

    def encoded(
        self, batch: Batch, request: GenerationRequest, dropped: Tensor
    ) -> dict[str, Tensor]:
        """Returns the context values of the conditions; dropped rows have those of `uncond`."""
        value: Any = None
        if self.adapter.takes_condition:
            value = batch.conditions.get("", dict(batch.conditions))
        values: dict[str, Tensor] = {}
        for key, branches in self.adapter.encode(value, request).items():
            cond = branches["cond"].to(self.device)
            cond = cond.to(self._one.dtype) if cond.is_floating_point() else cond
            uncond = branches.get("uncond")
            if uncond is not None and self.data.condition_dropped:
                uncond = uncond.to(cond).expand_as(cond)
                cond = torch.where(dropped.view(-1, *[1] * (cond.ndim - 1)), uncond, cond)
            values[key] = cond.expand(len(batch), *cond.shape[1:])
        return values

    def _placed(self, drawn: Tensor) -> Tensor:
        return drawn.to(self.device, non_blocking=True)

    def _latent_shape(self, batch: Batch) -> tuple[int, ...]:
        if batch.latents is not None:
            return tuple(batch.latents.shape[1:])
        assert batch.pictures is not None, "an example has a picture or latents"
        config = self.model.autoencoder.config
        height, width = batch.pictures.shape[-2:]
        return config.latent_channels, height // config.reduction, width // config.reduction
