"""The resampler of IP-Adapter Plus, which turns many features of an image into a few tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core.errors import WeightsError
from refiners_core.layers.attend import Attend
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import (
    Concatenate,
    Distribute,
    Identity,
    Lambda,
    Parallel,
    Residual,
    Scope,
    SetContext,
    UseContext,
)
from refiners_core.weights.key_map import KeyMap

HEAD: Final = 64
"""The features of a head in every released resampler."""
FEATURES: Final = "resampler.features"
"""The context key of the features inside a resampler."""


@dataclass(frozen=True)
class ResamplerConfig:
    """The sizes of a resampler; the defaults are those of InstantID."""

    features: int = 512
    """The features of the input."""
    width: int = 1280
    """The features of a token inside."""
    heads: int = 20
    """The attention heads, of 64 features each."""
    depth: int = 4
    """The number of layers."""
    inner: int = 5120
    """The features inside the feed-forward networks."""
    tokens: int = 16
    """The number of tokens of the output."""
    out_width: int = 2048
    """The features of a token of the output."""

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str = "image_proj") -> Self:
        """Returns the sizes of published tensors.

        Args:
            tensors: Tensors by their published names.
            prefix: The prefix of the names of the resampler's tensors.

        Raises:
            WeightsError: The tensors are not those of a resampler.
        """
        needed = {
            name: tensors.get(f"{prefix}.{name}")
            for name in (
                "latents",
                "proj_in.weight",
                "proj_out.weight",
                "layers.0.0.to_q.weight",
                "layers.0.1.1.weight",
            )
        }
        shapes = {name: tensor.shape for name, tensor in needed.items() if tensor is not None}
        if len(shapes) < len(needed) or len(shapes["latents"]) != 3:
            examples = ", ".join(sorted(tensors)[:3]) or "nothing"
            missing = next((name for name in needed if name not in shapes), "latents")
            raise WeightsError(
                f"these are not the weights of a resampler: no '{prefix}.{missing}', but "
                f"{examples}, for example.",
                hint="Give a file of IP-Adapter Plus or of InstantID.",
            )
        depth = {key.split(".")[2] for key in tensors if key.startswith(f"{prefix}.layers.")}
        return cls(
            features=shapes["proj_in.weight"][1],
            width=shapes["latents"][2],
            heads=shapes["layers.0.0.to_q.weight"][0] // HEAD,
            depth=len(depth),
            inner=shapes["layers.0.1.1.weight"][0],
            tokens=shapes["latents"][1],
            out_width=shapes["proj_out.weight"][0],
        )


class Resampler(Scope):
    """Turns any number of features into a few tokens (arXiv:2308.06721, section 4.1.2).

    Learned tokens attend to the features and to one another (the Perceiver Resampler of
    arXiv:2204.14198, section 3.1.1). Takes features `(rows, count, features)` and returns tokens
    `(rows, tokens, out_width)`.

    Args:
        config: The sizes of the resampler.

    Example:
        >>> config = ResamplerConfig(
        ...     features=8, width=64, heads=1, depth=1, inner=8, tokens=3, out_width=6
        ... )
        >>> Resampler(config)(torch.randn(2, 5, 8)).shape
        torch.Size([2, 3, 6])
    """

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__(
            proj_in=nn.Linear(config.features, config.width),
            keep=SetContext(FEATURES),
            latents=LearnedTokens(config.tokens, config.width),
            blocks=Chain(**{str(i): ResamplerLayer(config) for i in range(config.depth)}),
            proj_out=nn.Linear(config.width, config.out_width),
            norm_out=nn.LayerNorm(config.out_width),
        )


class ResamplerLayer(Chain):
    """A layer of the resampler: attention, then a feed-forward network.

    Args:
        config: The sizes of the resampler.
    """

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__(
            attention=Residual(look=PerceiverAttention(config.width, config.heads)),
            feed_forward=Residual(
                norm=nn.LayerNorm(config.width),
                expand=nn.Linear(config.width, config.inner, bias=False),
                act=nn.GELU(),
                contract=nn.Linear(config.inner, config.width, bias=False),
            ),
        )


class PerceiverAttention(Chain):
    """Attention of tokens to features and to one another (arXiv:2204.14198, section 3.1.1).

    Args:
        width: The features of a token, inside and out.
        heads: The attention heads, of 64 features each.
    """

    def __init__(self, width: int, heads: int) -> None:
        inner = heads * HEAD
        super().__init__(
            norm=nn.LayerNorm(width),
            sources=Parallel(
                q=Identity(),
                kv=Concatenate(
                    features=Chain(UseContext(FEATURES), norm=nn.LayerNorm(width)),
                    tokens=Identity(),
                ),
            ),
            project=Distribute(
                to_q=nn.Linear(width, inner, bias=False),
                to_kv=nn.Linear(width, 2 * inner, bias=False),
            ),
            split=Lambda(keys_and_values),
            attend=Attend(heads),
            to_out=nn.Linear(inner, width, bias=False),
        )


class LearnedTokens(nn.Module):
    """Returns the same trained tokens for every row of its input.

    Args:
        tokens: The number of tokens.
        width: The features of a token.
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, tokens, width) / width**0.5)

    def forward(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows tokens width"]:
        """Repeats the tokens for each row."""
        return self.weight.expand(len(x), -1, -1)


def keys_and_values(
    q: Float[Tensor, "rows queries inner"], kv: Float[Tensor, "rows tokens both"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns queries, keys and values, from queries and the joint keys and values."""
    k, v = kv.chunk(2, dim=-1)
    return q, k, v


RESAMPLER_KEYS: Final = KeyMap(
    {
        "proj_in": "proj_in",
        "latents.weight": "latents",
        "blocks.{i}.attention.look.norm": "layers.{i}.0.norm2",
        "blocks.{i}.attention.look.sources.kv.features.norm": "layers.{i}.0.norm1",
        "blocks.{i}.attention.look.project": "layers.{i}.0",
        "blocks.{i}.attention.look.to_out": "layers.{i}.0.to_out",
        "blocks.{i}.feed_forward.norm": "layers.{i}.1.0",
        "blocks.{i}.feed_forward.expand": "layers.{i}.1.1",
        "blocks.{i}.feed_forward.contract": "layers.{i}.1.3",
        "proj_out": "proj_out",
        "norm_out": "norm_out",
    }
)
"""The layout in which resamplers are published, below `image_proj`."""
