"""The published files of IC-Light: an offset for every tensor of the UNet."""

from collections.abc import Mapping

from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.models.unet import UNetConfig

_FIRST = "conv_in.weight"
_NORM = "conv_norm_out.weight"
_LEAST = 0.5
"""The mean size from which on the weights of a norm are whole ones, which begin at 1."""


def check_offsets(tensors: Mapping[str, Tensor], config: UNetConfig, pictures: int) -> None:
    """Checks that tensors are offsets for a UNet of these sizes, and for so many pictures.

    Args:
        tensors: The tensors by published name.
        config: The sizes of the base's UNet.
        pictures: The number of pictures whose latents the first convolution reads.

    Raises:
        WeightsError: The tensors are of another kind, or for another number of pictures.
    """
    first, norm = tensors.get(_FIRST), tensors.get(_NORM)
    if first is None or norm is None or first.ndim != 4:
        examples = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise WeightsError(
            f"these are not the weights of IC-Light: no {_FIRST!r} beside {_NORM!r}, but "
            f"{examples}, for example.",
            hint="Give a file such as iclight_sd15_fc.safetensors.",
        )
    latents = config.in_channels
    if first.shape[1] == latents * (1 + 3 - pictures):
        shown, name = "latents, foreground and background", "ic-light-fbc"
        if pictures == 2:
            shown, name = "latents and foreground", "ic-light-fc"
        raise WeightsError(
            f"this file of IC-Light reads {first.shape[1]} channels: {shown}.",
            hint=f'Try load_adapter("{name}", model, file=...).',
        )
    if float(norm.float().abs().mean()) > _LEAST:
        raise WeightsError(
            "these are whole weights of a UNet, not offsets: the norms are near 1, not near 0.",
            hint="Load them as a model, or give a file such as iclight_sd15_fc.safetensors.",
        )
