"""The network that turns each colour of a palette, with its share, into a token."""

import math
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Chain
from refiners_core.models.image_prompt import IMAGE_ATTENTION_KEYS
from refiners_core.weights import KeyMap

NUMBERS: Final = 4
"""The numbers of a colour: red, green, blue and its share."""
BANDS: Final = 4
"""The frequencies at which each number is encoded."""


class Waves(nn.Module):
    """Encodes each number as itself, sines and cosines (arXiv:2006.10739, section 6).

    Args:
        bands: The number of frequencies: pi, 2 pi, 4 pi and so on.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands: Final = bands

    def forward(
        self, x: Float[Tensor, "rows colours numbers"]
    ) -> Float[Tensor, "rows colours features"]:
        """Encodes numbers in 0...1."""
        frequencies = math.pi * 2.0 ** torch.arange(self.bands, device=x.device, dtype=x.dtype)
        angles = (x[..., None] * frequencies).flatten(-2)
        return torch.cat([2 * x - 1, angles.sin(), angles.cos()], dim=-1)

    def extra_repr(self) -> str:
        return str(self.bands)


class PaletteProjection(Chain):
    """Projects colours to tokens: red, green, blue and the share of each, in 0...1.

    A share of 0 marks an absent colour, whose token the network learns like any other.

    Args:
        width: Features of a token, as wide as the text's.
    """

    def __init__(self, width: int) -> None:
        super().__init__(
            waves=Waves(BANDS),
            expand=nn.Linear(NUMBERS * (2 * BANDS + 1), 2 * width),
            act=nn.SiLU(),
            contract=nn.Linear(2 * width, width),
            norm=nn.LayerNorm(width),
        )


PALETTE_KEYS: Final = KeyMap(
    {
        "projection.expand": "palette_proj.expand",
        "projection.contract": "palette_proj.contract",
        "projection.norm": "palette_proj.norm",
    }
) | IMAGE_ATTENTION_KEYS.under("branches", "palette")
"""The layout in which palette adapters are published."""
