"""A decoder-only transformer: tokens in, logits of the next token out."""

from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from refiners_core.layers.attend import Attend
from refiners_core.models.decoder.cache import PLACES, Blocks, JoinPast
from refiners_core.models.decoder.config import Activation, DecoderConfig
from refiners_core.models.decoder.norm import HeadNorm, build_norm
from refiners_core.models.decoder.places import (
    NEAR,
    VISIBLE,
    CountPlaces,
    LearnedPlaces,
    Recent,
    Visible,
)
from refiners_core.models.decoder.rope import ANGLES, Angles, Rotate
from refiners_core.tree.bare_tree import bare_children
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import (
    Distribute,
    Identity,
    Parallel,
    Passthrough,
    Residual,
    SetContext,
)
from refiners_core.tree.context import Context

DECODER: Final = "decoder.network"
"""The context key of the decoder that runs, for layers that run it on features of their own."""


class Decoder(Chain):
    """A decoder-only transformer (arXiv:1706.03762, arXiv:2302.13971).

    Takes ids `(rows, tokens)`, or features `(rows, tokens, width)` in place of the scaled ones of
    tokens, and returns logits `(rows, tokens, vocabulary)`. The context may have
    a mask of padding under `decoder.mask`; under `decoder.cache` a `Cache` with the tokens before;
    under `decoder.recent` the number of tokens at the end whose logits are computed.

    Args:
        config: The sizes of the decoder.

    Example:
        >>> config = DecoderConfig(
        ...     family="llama", vocabulary=9, width=8, inner_width=8, layers=1, heads=2, kv_heads=1,
        ...     head_width=4, places=16,
        ... )
        >>> Decoder(config)(torch.tensor([[1, 5, 2]])).shape
        torch.Size([1, 3, 9])
    """

    def __init__(self, config: DecoderConfig) -> None:
        embed = nn.Embedding(config.vocabulary, config.width)
        head = nn.Linear(config.width, config.vocabulary, bias=False)
        if config.is_tied:
            head.weight = embed.weight
        before: dict[str, nn.Module] = {}
        if config.embedding_scale != 1:
            before["magnify"] = Times(config.embedding_scale)
        before["positions"] = Positions(config)
        if config.rope is None:
            before["learned"] = Residual(places=LearnedPlaces(config.places, config.width))
        after: dict[str, nn.Module] = {}
        if config.logit_cap is not None:
            after["cap"] = Cap(config.logit_cap)
        super().__init__(
            embed=embed,
            **before,
            blocks=Blocks(**{str(i): DecoderBlock(config, i) for i in range(config.layers)}),
            recent=Recent(),
            norm=build_norm(config.norm, config.width, config.eps),
            head=head,
            **after,
        )
        self.config: Final = config

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows tokens vocabulary"]:
        context = context.scope({}, memory=context.memory)
        context[DECODER] = self
        x: Tensor = inputs[0]
        if not x.is_floating_point():
            return super().run(context, x)
        for name in bare_children(self):
            if name not in ("embed", "magnify"):
                x = self.call(self.at(name), context, x)
        return x


class Positions(Passthrough):
    """Writes the places of tokens into the context, and the tokens that each attends to.

    Args:
        config: The sizes of the decoder.
    """

    def __init__(self, config: DecoderConfig) -> None:
        places: dict[str, nn.Module] = {"count": CountPlaces(), "keep": SetContext(PLACES)}
        if config.rope is not None:
            places["angles"] = Angles(config.rope, config.head_width)
            places["keep_angles"] = SetContext(ANGLES)
        windows = {*(config.windows or [None])}
        masks: dict[str, nn.Module] = {}
        if None in windows:
            masks["visible"] = Chain(mask=Visible(), keep=SetContext(VISIBLE))
        for window in windows - {None}:
            masks["near"] = Chain(mask=Visible(window), keep=SetContext(NEAR))
        super().__init__(written=Parallel(places=Chain(**places), **masks))


class DecoderBlock(Chain):
    """A layer of the decoder: attention, then a network that processes tokens separately.

    Args:
        config: The sizes of the decoder.
        index: The position of the block, from 0.
    """

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__(
            attention=DecoderAttention(config, index), feed_forward=DecoderFeedForward(config)
        )


class DecoderAttention(Residual):
    """Attention of tokens to those before, added to its input.

    Args:
        config: The sizes of the decoder.
        index: The position of the block, from 0.
    """

    def __init__(self, config: DecoderConfig, index: int) -> None:
        width, eps = config.width, config.eps
        heads, kv_heads, head_width = config.heads, config.kv_heads, config.head_width
        inner, shared = heads * head_width, kv_heads * head_width
        window = config.windows[index] if config.windows else None
        turned: dict[str, nn.Module] = {}
        if config.has_head_norm:
            turned["norm_heads"] = Distribute(
                q=HeadNorm(heads, head_width, eps),
                k=HeadNorm(kv_heads, head_width, eps),
                v=Identity(),
            )
        if config.rope is not None:
            turned["rotate"] = Distribute(q=Rotate(heads), k=Rotate(kv_heads), v=Identity())
        super().__init__(
            norm=build_norm(config.norm, width, eps),
            project=Parallel(
                to_q=nn.Linear(width, inner, bias=config.has_qkv_bias),
                to_k=nn.Linear(width, shared, bias=config.has_qkv_bias),
                to_v=nn.Linear(width, shared, bias=config.has_qkv_bias),
            ),
            **turned,
            join_past=JoinPast(),
            attend=Attend(
                heads,
                kv_heads=kv_heads,
                scale=config.scales[index] if config.scales else None,
                cap=config.attention_cap,
                mask=VISIBLE if window is None else NEAR,
            ),
            to_out=nn.Linear(inner, width, bias=config.has_output_bias),
            **_output(config),
        )


class DecoderFeedForward(Residual):
    """A network that processes tokens separately, added to its input.

    Args:
        config: The sizes of the decoder.
    """

    def __init__(self, config: DecoderConfig) -> None:
        width, inner, bias = config.width, config.inner_width, config.has_inner_bias
        expand = nn.Linear(width, inner, bias=bias)
        act = nn.SiLU() if config.activation == "silu" else nn.GELU(approximate="tanh")
        if config.is_gated:
            expand = Parallel(gate=expand, value=nn.Linear(width, inner, bias=bias))
            act = Gated(config.activation)
        super().__init__(
            norm=build_norm(config.norm, width, config.eps),
            expand=expand,
            act=act,
            contract=nn.Linear(inner, width, bias=bias),
            **_output(config),
        )


def _output(config: DecoderConfig) -> dict[str, nn.Module]:
    """Returns the last layers of a residual, the place of its output among them."""
    if not config.has_output_norm:
        return {"output": Identity()}
    norm = build_norm(config.norm, config.width, config.eps)
    return {"norm_output": norm, "output": Identity()}


class Gated(nn.Module):
    """Multiplies features by the activation of others (arXiv:2002.05202).

    Args:
        activation: `silu`, or `gelu-tanh` for the approximation of GELU.
    """

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation: Final = activation

    def forward(
        self, gate: Float[Tensor, "*any inner"], value: Float[Tensor, "*any inner"]
    ) -> Float[Tensor, "*any inner"]:
        """Returns the gated features."""
        act = silu(gate) if self.activation == "silu" else gelu(gate, approximate="tanh")
        return act * value


class Times(nn.Module):
    """Multiplies features by a number that is rounded to their dtype, as Gemma does.

    Args:
        factor: The number.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor: Final = factor

    def forward(self, x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Returns the multiplied features."""
        return x * torch.tensor(self.factor, dtype=x.dtype, device=x.device)


class Cap(nn.Module):
    """Limits values smoothly: `cap tanh(x / cap)` (arXiv:2408.00118, section 2).

    Args:
        cap: The bound of the absolute values.
    """

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap: Final = cap

    def forward(self, x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Returns the limited values."""
        return torch.tanh(x / self.cap) * self.cap
