"""The part that the objectives of image models share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from refiners_core import Adapter
from refiners_core.models.diffusion import LatentDiffusion
from refiners_train.config.schema import Config
from refiners_train.data.batch import Batch
from refiners_train.engine.conditioning import Conditioning

Drawn = Mapping[str, Tensor]
"""The random values of some rows by name, on the CPU."""


class PictureObjective(ABC):
    """An objective with an error for each example, and a weight for the mean of prior examples.

    Args:
        model: The frozen base, which wears the adapter.
        adapter: The adapter.
        config: The configuration.
    """

    def __init__(self, model: LatentDiffusion, adapter: Adapter, config: Config) -> None:
        self.reading: Final = Conditioning(model, adapter)
        self.model: Final = model
        self.data: Final = config.data
        self.train: Final = config.train
        self.schedule: Final = model.sampler.schedule
        self.weights: Tensor = torch.tensor(
            [1.0, self.train.prior_weight], device=self.reading.device
        )

    @abstractmethod
    def timesteps(self, count: int, generator: Generator) -> dict[str, Tensor]:
        """Draws `timesteps` and what else the objective needs, with a row for each example."""

    @abstractmethod
    def errors(self, batch: Batch, drawn: Drawn) -> Float[Tensor, "rows"]:
        """Returns the error of each row, float32, with gradients.

        Args:
            batch: Rows on the device.
            drawn: Their random values.
        """

    def draw(self, batch: Batch, total: int, generator: Generator) -> dict[str, Tensor]:
        """Draws noise, timesteps, and which rows lose their prompt or their condition."""
        return {
            **self.timesteps(total, generator),
            "noise": torch.randn(
                total, *self.reading.latent_shape(batch), generator=generator, device="cpu"
            ),
            "no_text": _drawn(total, self.data.text_dropped, generator),
            "no_condition": _drawn(total, self.data.condition_dropped, generator),
        }

    def counts(self, batch: Batch) -> Float[Tensor, "2"]:
        """Returns the number of examples, and of prior examples."""
        priors = 0 if batch.is_prior is None else int(batch.is_prior.sum())
        return torch.tensor([float(len(batch) - priors), float(priors)])

    def sums(self, batch: Batch, drawn: Drawn) -> Float[Tensor, "2"]:
        """Returns the summed errors of the examples, and of the prior examples."""
        error = self.errors(batch, drawn)
        if batch.weights is not None:
            error = error * batch.weights
        if batch.is_prior is None:
            total = error.sum()
            return torch.stack([total, torch.zeros_like(total)])
        prior = error * batch.is_prior
        return torch.stack([(error - prior).sum(), prior.sum()])

    def context(self, batch: Batch, drawn: Drawn) -> dict[str, Tensor]:
        """Returns the context values of the prompts, the sizes and the condition."""
        reading = self.reading
        is_dropped = self.no_text(batch, drawn)
        texts = ["" if gone else text for text, gone in zip(batch.texts, is_dropped, strict=True)]
        hidden = self.placed(drawn["no_condition"]) if self.data.condition_dropped else None
        return {
            **reading.scale,
            **reading.texts(batch.texts, is_dropped, reading.scale),
            **reading.sizes(batch),
            **reading.condition(batch, texts, hidden),
        }

    def no_text(self, batch: Batch, drawn: Drawn) -> Sequence[bool]:
        """Returns whether each row loses its prompt."""
        return drawn["no_text"].tolist() if self.data.text_dropped else [False] * len(batch)

    def placed(self, drawn: Tensor) -> Tensor:
        """Returns random values on the device."""
        return drawn.to(self.reading.device, non_blocking=True)


def _drawn(count: int, share: float, generator: Generator) -> Tensor:
    return torch.rand(count, generator=generator, device="cpu") < share
