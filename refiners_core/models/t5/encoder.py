"""T5's encoder of texts."""

from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, rms_norm

from refiners_core.layers.attend import Attend
from refiners_core.models.t5.bias import T5_MASK as T5_MASK
from refiners_core.models.t5.bias import RelativeBias
from refiners_core.models.t5.config import T5Config
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Parallel, Passthrough, Residual, SetContext, UseContext
from refiners_core.tree.context import Context

BIAS: Final = "t5.bias"
"""The context key of the bias of every attention."""


class T5Encoder(Chain):
    """The encoder of T5 1.1 (arXiv:1910.10683, section 2.1; arXiv:2002.05202).

    Takes ids `(rows, tokens)` and returns features `(rows, tokens, width)`. Reads a mask of padding
    under `t5.mask`, if the context has one. In float16 the sums between layers are float32, as the
    features of some releases exceed its range.

    Args:
        config: The sizes of the encoder.

    Example:
        >>> config = T5Config(vocabulary=9, width=8, inner_width=8, layers=1, heads=2, head_width=4)
        >>> T5Encoder(config)(torch.tensor([[1, 5, 2]])).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__(
            embed=nn.Embedding(config.vocabulary, config.width),
            bias=Passthrough(relative=RelativeBias(config), keep=SetContext(BIAS)),
            blocks=Chain(**{str(i): T5Layer(config) for i in range(config.layers)}),
            norm=T5Norm(config.width, config.eps),
        )
        self.config: Final = config

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows tokens width"]:
        return super().run(context.scope({}, memory=context.memory), *inputs)


class T5Layer(Chain):
    """A layer of the encoder: attention with a bias for distances, then a gated network.

    Args:
        config: The sizes of the encoder.
    """

    def __init__(self, config: T5Config) -> None:
        inner = config.heads * config.head_width
        super().__init__(
            attention=Residual(
                norm=T5Norm(config.width, config.eps),
                project=Parallel(
                    to_q=nn.Linear(config.width, inner, bias=False),
                    to_k=nn.Linear(config.width, inner, bias=False),
                    to_v=nn.Linear(config.width, inner, bias=False),
                    bias=UseContext(BIAS),
                ),
                attend=Attend(config.heads, scale=1.0),
                to_out=nn.Linear(inner, config.width, bias=False),
            ),
            feed_forward=Residual(
                norm=T5Norm(config.width, config.eps),
                expand=Parallel(
                    gate=nn.Linear(config.width, config.inner_width, bias=False),
                    value=nn.Linear(config.width, config.inner_width, bias=False),
                ),
                act=Gate(),
                contract=WideLinear(config.inner_width, config.width, bias=False),
            ),
        )


class T5Norm(nn.RMSNorm):
    """Divides features by their root mean square, computed in float32 (arXiv:1910.07467).

    Args:
        width: Features of a token.
        eps: The number added to the mean square.
    """

    def forward(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """Returns the normalised features in the dtype of the weight."""
        assert self.eps is not None, "the encoder names it"
        normalised = rms_norm(x.float(), self.normalized_shape, None, self.eps)
        return normalised.to(self.weight.dtype) * self.weight


class Gate(nn.Module):
    """Multiplies features by the GELU of others, by its approximation with tanh."""

    def forward(
        self, gate: Float[Tensor, "*any inner"], value: Float[Tensor, "*any inner"]
    ) -> Float[Tensor, "*any inner"]:
        """Returns the gated features."""
        return gelu(gate, approximate="tanh") * value


class WideLinear(nn.Linear):
    """A linear layer that computes in float32 what float16 could not hold."""

    def forward(self, input: Float[Tensor, "*any inputs"]) -> Float[Tensor, "*any outputs"]:
        """Returns float32 for inputs in float16; otherwise their dtype."""
        if input.dtype != torch.float16:
            return super().forward(input)
        return linear(input.float(), self.weight.float())
