"""What is learnt for each place in a sequence."""

from jaxtyping import Shaped
from torch import Tensor, nn

from refiners_core.errors import ModelError


class PositionEmbedding(nn.Embedding):
    """Gives each place in a sequence its features: `(places, width)` for `(rows, places, ...)`.

    Args:
        num_embeddings: How many places there are at most.
        embedding_dim: Features of a place.
    """

    def forward(self, input: Shaped[Tensor, "rows places *features"]) -> Tensor:
        """Returns the features of as many places as the sequence has.

        Raises:
            ModelError: The sequence is too long.
        """
        places = input.shape[1]
        if places > self.num_embeddings:
            raise ModelError(
                f"a sequence of {places} tokens is too long for {self.num_embeddings} places.",
                hint="Cut it, or encode it in parts.",
            )
        return self.weight[:places]

    def reset_parameters(self) -> None:
        """Starts from the small values that transformers are trained from."""
        nn.init.normal_(self.weight, std=0.02)
