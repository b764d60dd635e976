"""The results of language models: what was written, and how likely texts are."""

import math
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

Ending = Literal["end", "stop", "length", "callback"]
"""Why a text ends: by a token of the model, a stop of the caller, the number of tokens, or the
callback."""


@dataclass(frozen=True)
class Continuation:
    """A generated text with its tokens and their probabilities."""

    text: str
    """The text, up to the stop; empty for a model without a tokenizer."""
    tokens: Int[Tensor, "tokens"]
    """The generated tokens, the one that ends the text included."""
    log_probabilities: Float[Tensor, "tokens"]
    """The natural logarithm of the probability of each token, before penalty, temperature and
    filters."""
    ending: Ending
    """Why the text ends."""


@dataclass(frozen=True)
class TextScore:
    """How likely a text is for a model."""

    tokens: Int[Tensor, "tokens"]
    """The tokens of the text."""
    log_probabilities: Float[Tensor, "scored"]
    """The natural logarithm of the probability of each token but the first, given those before."""

    @property
    def total(self) -> float:
        """The natural logarithm of the probability of the text after its first token."""
        return float(self.log_probabilities.double().sum())

    @property
    def perplexity(self) -> float:
        """The inverse of the geometric mean of the probabilities, from 1."""
        return math.exp(-self.total / len(self.log_probabilities))
