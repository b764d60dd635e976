"""The timestep-aware semantic connector: features of any text to tokens for each timestep."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import (
    Chain,
    Concatenate,
    Context,
    Distribute,
    Identity,
    Lambda,
    Layer,
    Parallel,
    Passthrough,
    Residual,
    Scope,
    SetContext,
    UseContext,
)
from refiners_core.errors import WeightsError
from refiners_core.layers import Attend, TimestepEncoder
from refiners_core.weights import KeyMap, stacked

TIME: Final = "ella.time"
"""The context key of the embedded timestep inside the connector."""
FEATURES: Final = "ella.projected"
"""The context key of the text's projected features inside the connector."""


@dataclass(frozen=True)
class ConnectorConfig:
    """The sizes of a connector; the defaults are those of the release for Stable Diffusion 1.5."""

    features: int = 2048
    """The features of a token of the language model."""
    width: int = 768
    """The features of a token that the UNet reads."""
    tokens: int = 64
    """The tokens that the UNet reads."""
    layers: int = 6
    heads: int = 8
    waves: int = 320
    """The width of the sinusoidal embedding of the timestep."""

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], width: int, heads: int) -> Self:
        """Reads the sizes of published tensors off their shapes.

        Args:
            tensors: The tensors by published name.
            width: The features of a token that the UNet reads.
            heads: The attention heads, which no shape shows.

        Raises:
            WeightsError: The tensors are not those of ELLA, or are for a text of another width.
        """
        names = ("connector.latents", "connector.proj_in.weight", "time_embedding.linear_1.weight")
        if any(name not in tensors for name in names):
            examples = ", ".join(sorted(tensors)[:3]) or "nothing"
            raise WeightsError(
                f"these are not the weights of ELLA: no {names[0]!r}, but {examples}, for example.",
                hint="Give a file such as ella-sd1.5-tsc-t5xl.safetensors.",
            )
        latents, projection, time = (tensors[name] for name in names)
        if latents.shape[1] != width:
            raise WeightsError(
                f"this ELLA makes tokens of {latents.shape[1]} features, and the UNet reads "
                f"{width}.",
                hint="Load the model that it was trained for.",
            )
        blocks = {key.split(".")[2] for key in tensors if ".perceiver_blocks." in key}
        return cls(projection.shape[1], width, len(latents), len(blocks), heads, time.shape[1])


class Connector(Scope):
    """Turns the features of a text into tokens, differently at each timestep.

    The timestep-aware semantic connector of ELLA (arXiv:2403.05135, section 3.2): a resampler whose
    norms are shifted and scaled by the embedded timestep. Reads the features `(rows, tokens,
    features)` and `timestep` from the context, and a mask `(rows, tokens)`, True for tokens of the
    text, if there is one. Returns tokens `(rows, tokens, width)`.

    Args:
        config: The sizes of the connector.
        features: The context key of the features.
        mask: The context key of the mask.
    """

    def __init__(self, config: ConnectorConfig, features: str, mask: str) -> None:
        width = config.width
        super().__init__(
            text=UseContext(features),
            time=Passthrough(
                sources=Parallel(timestep=UseContext("timestep"), like=Identity()),
                each_row=Lambda(timestep_of_each_row),
                embed=TimestepEncoder(config.waves, width),
                keep=SetContext(TIME),
            ),
            proj_in=nn.Linear(config.features, width),
            keep=SetContext(FEATURES),
            latents=Latents(config.tokens, width),
            shift=Residual(
                time=UseContext(TIME),
                act=nn.SiLU(),
                linear=nn.Linear(width, width),
                over_tokens=Lambda(over_tokens),
            ),
            blocks=Chain(**{str(i): ConnectorLayer(config, mask) for i in range(config.layers)}),
        )
        self.config: Final = config


class ConnectorLayer(Chain):
    """Attention of the tokens to themselves and to the text, then a feed-forward network.

    Args:
        config: The sizes of the connector.
        mask: The context key of the mask.
    """

    def __init__(self, config: ConnectorConfig, mask: str) -> None:
        width = config.width
        super().__init__(
            attention=Residual(
                norm=TimeNorm(width),
                sources=Parallel(
                    q=Identity(),
                    kv=Concatenate(
                        tokens=Identity(), text=Chain(UseContext(FEATURES), norm=TimeNorm(width))
                    ),
                ),
                both=Lambda(keys_twice),
                project=Distribute(
                    to_q=nn.Linear(width, width),
                    to_k=nn.Linear(width, width),
                    to_v=nn.Linear(width, width),
                ),
                hide=WithMask(mask),
                attend=Attend(config.heads),
                to_out=nn.Linear(width, width),
            ),
            feed_forward=Residual(
                norm=TimeNorm(width),
                expand=nn.Linear(width, 4 * width),
                act=Lambda(squared_relu),
                contract=nn.Linear(4 * width, width),
            ),
        )


class TimeNorm(Chain):
    """Normalises features, then scales and shifts them by the embedded timestep.

    Args:
        width: The features of a token, and of the embedded timestep.
    """

    def __init__(self, width: int) -> None:
        super().__init__(
            Parallel(
                norm=nn.LayerNorm(width, 1e-6, elementwise_affine=False),
                time=Chain(UseContext(TIME), nn.SiLU(), linear=nn.Linear(width, 2 * width)),
            ),
            Lambda(shifted),
        )


class WithMask(Layer):
    """Adds a mask to the inputs of an attention: padding of the text is hidden.

    Args:
        key: The context key of the mask, (rows, tokens); without a value nothing is hidden.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key: Final = key

    def run(self, context: Context, *inputs: Any) -> tuple[Tensor, ...]:
        mask: Tensor | None = context.get(self.key)
        if mask is None:
            return inputs
        q: Tensor = inputs[0]
        tokens = torch.ones(len(mask), q.shape[1], dtype=torch.bool, device=q.device)
        return *inputs, torch.cat([tokens, mask.bool()], dim=1)[:, None]

    def extra_repr(self) -> str:
        return repr(self.key)


class Latents(nn.Module):
    """Returns the same trained tokens for every row of its input.

    Args:
        tokens: The number of tokens.
        width: The features of a token.
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(tokens, width) / width**0.5)

    def forward(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows tokens width"]:
        """Repeats the tokens for each row."""
        return self.weight.expand(len(x), -1, -1)


def timestep_of_each_row(timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Repeats a timestep that is the same for all rows, so that rows of any number round alike."""
    return (timestep.expand(len(like)) if timestep.ndim == 0 else timestep), like


def over_tokens(x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows 1 width"]:
    """Shapes features so that they are added to every token."""
    return x[:, None]


def keys_twice(
    q: Float[Tensor, "rows queries width"], kv: Float[Tensor, "rows tokens width"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns queries, keys and values; the same tokens are both keys and values."""
    return q, kv, kv


def squared_relu(x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Squares what is positive, and returns 0 elsewhere (arXiv:2109.08668, section 3.1)."""
    return torch.relu(x).square()


def shifted(
    x: Float[Tensor, "rows tokens width"], time: Float[Tensor, "rows twice"]
) -> Float[Tensor, "rows tokens width"]:
    """Applies the two halves of what the timestep gives: shift and scale."""
    shift, scale = time[:, None].chunk(2, dim=-1)
    return x * (1 + scale) + shift


_BLOCK: Final = "connector.perceiver_blocks.{i}"
ELLA_KEYS: Final = KeyMap(
    {
        "time.embed.linear_1": "time_embedding.linear_1",
        "time.embed.linear_2": "time_embedding.linear_2",
        "proj_in": "connector.proj_in",
        "latents.weight": "connector.latents",
        "shift.linear": "connector.time_aware_linear",
        "blocks.{i}.attention.norm.Parallel_0.time.linear": f"{_BLOCK}.ln_1.linear",
        "blocks.{i}.attention.sources.kv.text.norm.Parallel_0.time.linear": f"{_BLOCK}.ln_2.linear",
        **{
            f"blocks.{{i}}.attention.project.to_{letter}.{kind}": f"{_BLOCK}.attn.in_proj_{kind}"
            for letter in "qkv"
            for kind in ("weight", "bias")
        },
        "blocks.{i}.attention.to_out": f"{_BLOCK}.attn.out_proj",
        "blocks.{i}.feed_forward.norm.Parallel_0.time.linear": f"{_BLOCK}.ln_ff.linear",
        "blocks.{i}.feed_forward.expand": f"{_BLOCK}.mlp.c_fc",
        "blocks.{i}.feed_forward.contract": f"{_BLOCK}.mlp.c_proj",
    },
    transforms={
        f"blocks.{{i}}.attention.project.to_{letter}": stacked(share, 3)
        for share, letter in enumerate("qkv")
    },
)
"""The layout of `QQGYLab/ELLA`."""
