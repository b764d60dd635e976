"""The objective of language models: predict the next token."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from refiners_core import Adapter
from refiners_core.models.decoder import LanguageModel
from refiners_train.config.schema import Config
from refiners_train.data.data_error import DataError
from refiners_train.data.token_rows import IGNORED, TokenBatch


class Causal:
    """The cross entropy of the next token, as a mean over all learnt tokens of a step.

    A text of many tokens therefore weighs more than one of few, whatever parts of a batch and
    processes they are in.

    Args:
        model: The frozen base, which wears the adapter.
        adapter: The adapter.
        config: The configuration.

    Raises:
        DataError: The configuration drops texts or conditions, which language models have not.
    """

    def __init__(self, model: LanguageModel, adapter: Adapter, config: Config) -> None:
        if config.data.text_dropped or config.data.condition_dropped:
            raise DataError(
                "the objective `causal` drops neither texts nor conditions.",
                hint="Take text-dropped and condition-dropped out of [data].",
            )
        self.model: Final = model
        self.weights: Tensor = torch.ones(1, device=model.device)
        self._context: Final = {adapter.scale_key: torch.tensor(1.0, device=model.device)}

    def draw(self, batch: TokenBatch, total: int, generator: Generator) -> dict[str, Tensor]:
        """Draws nothing."""
        return {}

    def counts(self, batch: TokenBatch) -> Float[Tensor, "1"]:
        """Returns the number of learnt tokens."""
        return (batch.labels[:, 1:] != IGNORED).sum()[None].float()

    def sums(self, batch: TokenBatch, drawn: Mapping[str, Tensor]) -> Float[Tensor, "1"]:
        """Returns the summed cross entropy of the learnt tokens."""
        logits: Any = self.model.at("decoder")(batch.ids[:, :-1], context=self._context)
        errors = cross_entropy(
            logits.float().flatten(0, 1),
            batch.labels[:, 1:].flatten(),
            ignore_index=IGNORED,
            reduction="none",
        )
        return (errors.view(len(batch), -1) * batch.weights[:, None]).sum()[None]
