"""The low frequencies of maps."""

import torch
from jaxtyping import Float
from torch import Tensor


def scaled_frequencies(
    x: Float[Tensor, "rows channels height width"],
    cutoff: int,
    low: float | Tensor,
    high: float | Tensor = 1.0,
) -> Float[Tensor, "rows channels height width"]:
    """Returns maps whose low and high frequencies are scaled, in float32.

    Low are the frequencies from `-cutoff` to `cutoff - 1` on both axes, as in the authors' codes.

    Args:
        x: The maps.
        cutoff: The first frequency that counts as high.
        low: The factor of low frequencies: a number, or one for each row.
        high: The factor of all others.
    """
    waves = torch.fft.fft2(x.float())
    rows, columns = (_is_low(side, cutoff, x.device) for side in x.shape[-2:])
    return torch.fft.ifft2(waves * torch.where(rows[:, None] & columns, low, high)).real


def _is_low(side: int, cutoff: int, device: torch.device) -> Tensor:
    """Returns which frequencies of an axis are low, in the order of a Fourier transform."""
    frequencies = torch.fft.fftfreq(side, 1 / side, device=device)
    return (frequencies >= -cutoff) & (frequencies < cutoff)
