"""The choice of the next token from its logits."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the likeliest, or drawn from what filters leave."""

    temperature: float = 0.0
    """The divisor of logits before a draw; 0 takes the likeliest token."""
    top_k: int | None = None
    """The number of likeliest tokens that stay; None keeps all."""
    top_p: float | None = None
    """The probability, in 0...1, that the likeliest tokens which stay have together at least
    (arXiv:1904.09751, section 3.1)."""
    min_p: float | None = None
    """The share, in 0...1, of the largest probability that a token which stays has at least
    (arXiv:2407.01082)."""
    repetition_penalty: float = 1.0
    """The number by which positive logits of tokens that occur already are divided, and negative
    ones multiplied (arXiv:1909.05858, section 4.1)."""

    def choose(
        self,
        logits: Float[Tensor, "rows vocabulary"],
        seen: Bool[Tensor, "rows vocabulary"] | None,
        generators: list[torch.Generator | None],
    ) -> Int[Tensor, "rows"]:
        """Returns the next token of each row.

        Args:
            logits: The logits of the model.
            seen: True for the tokens that occur in a row; None without a penalty.
            generators: The source of each row; None for a row that has ended, which draws nothing
                and gets its likeliest token.
        """
        logits = self.penalised(logits.float(), seen)
        likeliest = logits.argmax(-1)
        if self.temperature == 0:
            return likeliest
        probabilities = self.filtered(logits).softmax(-1).cpu()
        chosen = likeliest.cpu()
        for row, generator in enumerate(generators):
            if generator is not None:
                draw = torch.multinomial(probabilities[row : row + 1], 1, generator=generator)
                chosen[row] = draw[0, 0]
        return chosen.to(logits.device)

    def penalised(
        self, logits: Float[Tensor, "rows vocabulary"], seen: Bool[Tensor, "rows vocabulary"] | None
    ) -> Float[Tensor, "rows vocabulary"]:
        """Returns the logits after the penalty of repetition, once for each token that occurs."""
        if seen is None or self.repetition_penalty == 1:
            return logits
        penalty = self.repetition_penalty
        return torch.where(
            seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits
        )

    def filtered(
        self, logits: Float[Tensor, "rows vocabulary"]
    ) -> Float[Tensor, "rows vocabulary"]:
        """Returns the logits over the temperature, minus infinity for tokens that do not stay."""
        logits = logits / self.temperature
        if self.top_k is not None:
            count = min(self.top_k, logits.shape[-1])
            logits = _without(logits, logits < logits.topk(count).values[..., -1:])
        if self.top_p is not None:
            ascending, order = logits.sort(descending=False)
            is_out = ascending.softmax(-1).cumsum(-1) <= 1 - self.top_p
            is_out[..., -1] = False
            logits = _without(logits, is_out.scatter(-1, order, is_out))
        if self.min_p is not None:
            probabilities = logits.softmax(-1)
            least = self.min_p * probabilities.amax(-1, keepdim=True)
            logits = _without(logits, probabilities < least)
        return logits


def _without(logits: Tensor, is_out: Tensor) -> Tensor:
    return logits.masked_fill(is_out, float("-inf"))
