"""Two text encoders that read the same text, side by side."""

from typing import Final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from refiners_core.models.clip.layer import PENULTIMATE
from refiners_core.models.clip.text import ClipTextEncoder, first_end
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Concatenate, UseContext


class TextEncoderPair(Concatenate):
    """Joins what two encoders know of each token before their last layers (arXiv:2307.01952, 2.1).

    Takes ids `(rows, tokens)` and returns `(rows, tokens, width + width)`. A `Context` that is
    passed in has afterwards the pooled text of the second one under `clip.pooled`.

    Args:
        clip_l: The one whose features come first.
        clip_g: The one that pools.
        padding: What the second one reads after the end of a text.
    """

    def __init__(
        self, clip_l: ClipTextEncoder, clip_g: ClipTextEncoder, *, padding: int = 0
    ) -> None:
        super().__init__(
            clip_l=Chain(encoder=clip_l, penultimate=UseContext(PENULTIMATE)),
            clip_g=Chain(
                pad=PadAfterEnd(clip_g.config.end_token, padding),
                encoder=clip_g,
                penultimate=UseContext(PENULTIMATE),
            ),
            dim=-1,
        )
        self.padding: Final = padding


class PadAfterEnd(nn.Module):
    """Puts another token in all places after the first end token of each text.

    OpenCLIP pads texts with zeros where CLIP repeats the end token. Both read the same words, as
    the encoders were trained; diffusers' second tokenizer takes "!" in a prompt for padding, which
    is not followed here.

    Args:
        end: The id of the end token; 2 stands for the highest id.
        padding: The id of the other token.
    """

    def __init__(self, end: int, padding: int) -> None:
        super().__init__()
        self.end: Final = end
        self.padding: Final = padding

    def forward(self, tokens: Int[Tensor, "rows tokens"]) -> Int[Tensor, "rows tokens"]:
        """Returns the tokens with the other padding."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        is_after = places > first_end(tokens, self.end)[:, None]
        return tokens.masked_fill(is_after, self.padding)

    def extra_repr(self) -> str:
        return f"padding={self.padding}"
