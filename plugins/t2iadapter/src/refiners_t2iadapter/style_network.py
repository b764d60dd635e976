"""The network that turns the features of a picture into tokens beside those of the text."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Chain, Residual
from refiners_core.errors import WeightsError
from refiners_core.layers import QuickGelu


@dataclass(frozen=True)
class StyleConfig:
    """The sizes of a style network; the defaults are those of the released one."""

    width: int = 1024
    """Features of a token of the image encoder."""
    text_width: int = 768
    """Features of a token that the UNet reads."""
    tokens: int = 8
    layers: int = 3
    heads: int = 8


class StyleNetwork(Chain):
    """Reads all tokens of an image encoder and returns a few for the UNet.

    Learnt tokens follow those of the picture through a transformer, as in the authors' released
    code of arXiv:2302.08453; their outputs are projected to the width of the text.

    Args:
        config: The sizes.
    """

    def __init__(self, config: StyleConfig) -> None:
        blocks = {str(i): _block(config.width, config.heads) for i in range(config.layers)}
        super().__init__(
            begin=StyleTokens(config.tokens, config.width),
            ln_pre=nn.LayerNorm(config.width),
            transformer_layes=Chain(**blocks),  # spelt so in the files
            last=LastTokens(config.tokens),
            ln_post=nn.LayerNorm(config.width),
            project=nn.Linear(config.width, config.text_width, bias=False),
        )


class StyleTokens(nn.Module):
    """Puts learnt tokens after those of a picture.

    Args:
        count: The number of tokens.
        width: Features of a token.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.style_embedding = nn.Parameter(torch.randn(1, count, width) * width**-0.5)

    def forward(
        self, x: Float[Tensor, "rows tokens width"]
    ) -> Float[Tensor, "rows more_tokens width"]:
        """Returns the tokens of the picture and the learnt ones."""
        return torch.cat([x, self.style_embedding.expand(len(x), -1, -1)], dim=1)


class LastTokens(nn.Module):
    """Returns the last tokens of a sequence.

    Args:
        count: The number of tokens.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Float[Tensor, "rows tokens width"]) -> Float[Tensor, "rows last width"]:
        """Returns the last tokens."""
        return x[:, -self.count :]


class TokenAttention(nn.MultiheadAttention):
    """Attention of tokens to one another, with the projections of queries, keys and values in one
    weight, as in the files."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  one input instead of three
        self, x: Float[Tensor, "rows tokens width"]
    ) -> Float[Tensor, "rows tokens width"]:
        """Returns the output of the attention, without its weights."""
        return super().forward(x, x, x, need_weights=False)[0]


def _block(width: int, heads: int) -> Chain:
    return Chain(
        attention=Residual(
            ln_1=nn.LayerNorm(width), attn=TokenAttention(width, heads, batch_first=True)
        ),
        feed_forward=Residual(
            ln_2=nn.LayerNorm(width),
            mlp=Chain(
                c_fc=nn.Linear(width, 4 * width),
                gelu=QuickGelu(),
                c_proj=nn.Linear(4 * width, width),
            ),
        ),
    )


def style_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of a published file under the names of a `StyleNetwork`.

    Raises:
        WeightsError: The file is not a style adapter.
    """
    if "style_embedding" not in tensors or "proj" not in tensors:
        first = next(iter(tensors), None)
        raise WeightsError(
            f"this file holds {first!r}: it is not a T2I-Adapter for style.",
            hint="Give the file of t2i-style, or load this one by its path.",
        )
    return {
        _inside(key): value.T.contiguous() if key == "proj" else value
        for key, value in tensors.items()
    }


def published_style(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of a `StyleNetwork` under their published names."""
    return {
        _published(key): value.T if key == "project.weight" else value
        for key, value in tensors.items()
    }


def style_config(tensors: Mapping[str, Tensor], heads: int) -> StyleConfig:
    """Returns the sizes of a network, read off published shapes.

    Args:
        tensors: Tensors under published names.
        heads: The number of attention heads, which shapes do not show.
    """
    layers = {key.split(".")[1] for key in tensors if key.startswith("transformer_layes.")}
    width, text_width = tensors["proj"].shape
    count = tensors["style_embedding"].shape[1]
    return StyleConfig(width, text_width, count, len(layers), heads)


def _inside(key: str) -> str:
    if key == "style_embedding":
        return f"begin.{key}"
    if key == "proj":
        return "project.weight"
    for layer, part in (("ln_1", "attention"), ("attn", "attention")):
        key = key.replace(f".{layer}.", f".{part}.{layer}.")
    for layer in ("ln_2", "mlp"):
        key = key.replace(f".{layer}.", f".feed_forward.{layer}.")
    return key


def _published(key: str) -> str:
    if key == "project.weight":
        return "proj"
    for part in ("begin.", "attention.", "feed_forward."):
        key = key.replace(part, "")
    return key
