"""What is learnt for each place in a sequence."""

from typing import Final

from jaxtyping import Shaped
from torch import Tensor, nn

from refiners_core.errors import ModelError


class PositionEmbedding(nn.Embedding):
    """Gives each place in a sequence its features: `(places, width)` for `(rows, places, ...)`.

    Args:
        places: How many places there are at most.
        width: Features of a place.
        is_exact: Whether a sequence must have just as many, as the patches of a picture must.
    """

    def __init__(self, places: int, width: int, *, is_exact: bool = False) -> None:
        super().__init__(places, width)
        self.is_exact: Final = is_exact

    def forward(self, input: Shaped[Tensor, "rows places *features"]) -> Tensor:
        """Returns the features of as many places as the sequence has.

        Raises:
            ModelError: The sequence is too long, or not just as long as it must be.
        """
        places = input.shape[1]
        if places > self.num_embeddings:
            raise ModelError(
                f"a sequence of {places} tokens is too long for {self.num_embeddings} places.",
                hint="Cut it, or encode it in parts.",
            )
        if self.is_exact and places != self.num_embeddings:
            raise ModelError(
                f"{places} tokens came in where there are {self.num_embeddings} places to fill.",
                hint="Give a picture of the size that the encoder was made for.",
            )
        return self.weight[:places]

    def reset_parameters(self) -> None:
        """Starts from the small values that transformers are trained from."""
        nn.init.normal_(self.weight, std=0.02)
