"""Learned position embeddings."""

from typing import Final

from jaxtyping import Shaped
from torch import Tensor, nn

from refiners_core.errors import ModelError


class PositionEmbedding(nn.Embedding):
    """Learned features of each position in a sequence: `(positions, width)` for an input
    `(rows, positions, ...)`.

    Args:
        places: The maximum length of a sequence.
        width: Features of a position.
        is_exact: Whether every sequence must have exactly this length, as image patches do.
    """

    def __init__(self, places: int, width: int, *, is_exact: bool = False) -> None:
        super().__init__(places, width)
        self.is_exact: Final = is_exact

    def forward(self, input: Shaped[Tensor, "rows places *features"]) -> Tensor:
        """Returns the features of the positions of a sequence.

        Raises:
            ModelError: The sequence is too long, or is shorter than `is_exact` requires.
        """
        places = input.shape[1]
        if places > self.num_embeddings:
            raise ModelError(
                f"a sequence of {places} tokens is too long for {self.num_embeddings} positions.",
                hint="Shorten it, or encode it in parts.",
            )
        if self.is_exact and places != self.num_embeddings:
            raise ModelError(
                f"the input has {places} tokens; exactly {self.num_embeddings} are required.",
                hint="Pass an image of the size that the encoder was made for.",
            )
        return self.weight[:places]

    def reset_parameters(self) -> None:
        """Initialises with the small values from which transformers are trained."""
        nn.init.normal_(self.weight, std=0.02)
