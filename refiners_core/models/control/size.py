"""The size of a conditioning image's features."""

from refiners_core.errors import ConditionError
from refiners_core.models.diffusion import GenerationRequest


def check_reduction(side: int, request: GenerationRequest, adapter: str) -> None:
    """Checks that an encoder reduces images to the size of the model's latents.

    Args:
        side: The pixels, along one side, that become a position of the features.
        request: The generation.
        adapter: The name of the adapter, for messages.

    Raises:
        ConditionError: The sizes differ.
    """
    if request.height != request.latent_height * side:
        raise ConditionError(
            f"{adapter} encodes {side} x {side} pixels to a position, this model "
            f"{request.height // request.latent_height} to a latent.",
            hint="Load one that was trained for latents of this size.",
        )
