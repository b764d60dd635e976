"""Two text encoders that read the same texts."""

from typing import Final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from refiners_core.models.clip.layer import PENULTIMATE
from refiners_core.models.clip.text import ClipTextEncoder, first_end
from refiners_core.models.clip.window import TextOutput
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Concatenate, UseContext


class TextEncoderPair(Concatenate):
    """Concatenates the penultimate features of two encoders (arXiv:2307.01952, section 2.1).

    Takes ids `(rows, tokens)` and returns `(rows, tokens, width + width)`. Writes the pooled text
    of the second encoder to the context under `clip.pooled`.

    Args:
        clip_l: The encoder whose features come first; both are built with `is_part`.
        clip_g: The encoder that pools.
        padding: The token with which the second encoder pads texts.
    """

    def __init__(
        self, clip_l: ClipTextEncoder, clip_g: ClipTextEncoder, *, padding: int = 0
    ) -> None:
        super().__init__(
            clip_l=Chain(
                encoder=clip_l, penultimate=UseContext(PENULTIMATE), features=TextOutput()
            ),
            clip_g=Chain(
                pad=PadAfterEnd(clip_g.config.end_token, padding),
                encoder=clip_g,
                penultimate=UseContext(PENULTIMATE),
                features=TextOutput(),
            ),
            dim=-1,
        )
        self.padding: Final = padding


def encoder_tokens(
    encoder: Chain, tokens: Int[Tensor, "rows tokens"]
) -> tuple[Int[Tensor, "rows tokens"], ...]:
    """Returns the tokens that each encoder reads, in the order of their features.

    Args:
        encoder: A text encoder, or a pair.
        tokens: The tokens that it takes.
    """
    if not isinstance(encoder, TextEncoderPair):
        return (tokens,)
    return tokens, encoder.layer("clip_g.pad", PadAfterEnd)(tokens)


class PadAfterEnd(nn.Module):
    """Replaces all tokens after the first end token of each text.

    OpenCLIP pads texts with zeros, CLIP with the end token. Both encoders read the same words, as
    they were trained; the second tokenizer of diffusers treats "!" in a prompt as padding, which is
    not reproduced here.

    Args:
        end: The id of the end token; 2 means the highest id of a text.
        padding: The id of the padding token.
    """

    def __init__(self, end: int, padding: int) -> None:
        super().__init__()
        self.end: Final = end
        self.padding: Final = padding

    def forward(self, tokens: Int[Tensor, "rows tokens"]) -> Int[Tensor, "rows tokens"]:
        """Returns the tokens with the new padding."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        is_after = positions > first_end(tokens, self.end)[:, None]
        return tokens.masked_fill(is_after, self.padding)

    def extra_repr(self) -> str:
        return f"padding={self.padding}"
