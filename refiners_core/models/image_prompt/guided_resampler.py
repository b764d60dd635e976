"""The resampler of FaceID Plus, in which given tokens attend to features of a picture."""

from typing import Any, Final

from jaxtyping import Float
from torch import Tensor, nn

from refiners_core.models.image_prompt.resampler import (
    FEATURES,
    RESAMPLER_KEYS,
    ResamplerConfig,
    ResamplerLayer,
)
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Distribute, Identity, Lambda, Scope, SetContext
from refiners_core.weights.key_map import KeyMap


class GuidedResampler(Scope):
    """Lets given tokens attend to features, as a `Resampler` does with learned ones.

    Takes tokens `(rows, tokens, width)` and features `(rows, count, features)`, and returns tokens
    `(rows, tokens, out_width)`.

    Args:
        config: The sizes of the resampler; `tokens` is not used.

    Example:
        >>> import torch
        >>> config = ResamplerConfig(
        ...     features=8, width=64, heads=1, depth=1, inner=8, out_width=6
        ... )
        >>> GuidedResampler(config)(torch.randn(2, 3, 64), torch.randn(2, 5, 8)).shape
        torch.Size([2, 3, 6])
    """

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__(
            inputs=Distribute(
                tokens=Identity(),
                features=Chain(
                    proj_in=nn.Linear(config.features, config.width), keep=SetContext(FEATURES)
                ),
            ),
            tokens=Lambda(first_input),
            blocks=Chain(**{str(i): ResamplerLayer(config) for i in range(config.depth)}),
            proj_out=nn.Linear(config.width, config.out_width),
            norm_out=nn.LayerNorm(config.out_width),
        )


def first_input(
    tokens: Float[Tensor, "rows tokens width"], *others: Any
) -> Float[Tensor, "rows tokens width"]:
    """Returns the first of several inputs."""
    return tokens


GUIDED_RESAMPLER_KEYS: Final = RESAMPLER_KEYS | KeyMap({"inputs.features.proj_in": "proj_in"})
"""The layout in which such resamplers are published, below `perceiver_resampler`."""
