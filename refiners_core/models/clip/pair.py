"""Two text encoders that read the same texts."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from refiners_core.models.clip.layer import PENULTIMATE
from refiners_core.models.clip.text import ClipTextEncoder, first_end
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.clip.window import WINDOWS, TextOutput, Windows
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Concatenate, UseContext
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer

SECOND_TOKENS: Final = "clip_g.tokens"
"""The context key of the tokens that the second encoder reads, if they are others."""
SECOND_WINDOWS: Final = "clip_g.windows"
"""The context key of the windows of these tokens."""


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
                tokens=PublishedTokens(),
                pad=PadAfterEnd(clip_g.config.end_token, padding),
                encoder=clip_g,
                penultimate=UseContext(PENULTIMATE),
                features=TextOutput(),
            ),
            dim=-1,
        )
        self.padding: Final = padding

    def second_tokenizer(
        self,
        tokenizer: ClipTokenizer,
        words: Sequence[Mapping[str, Sequence[int]]],
        texts: Sequence[str],
    ) -> ClipTokenizer | None:
        """Returns the tokenizer of the second encoder; None if it reads the texts as the first.

        Args:
            tokenizer: The tokenizer of both encoders.
            words: The ids of the words of adapters, in each encoder.
            texts: The texts.
        """
        padding = tokenizer.text_of(self.padding)
        has_padding = self.padding != tokenizer.padding and any(padding in text for text in texts)
        if not has_padding and words[0] == words[1]:
            return None
        second = tokenizer.padded_with(self.padding) if has_padding else tokenizer
        return second.with_words(words[1])


class PublishedTokens(Layer):
    """Takes the tokens from `context["clip_g.tokens"]` where they differ from its input, and their
    windows from `context["clip_g.windows"]`.

    They do where a prompt has the padding of the second tokenizer, "!", or a word for which an
    adapter has other tokens in this encoder than in the first.
    """

    def run(self, context: Context, *inputs: Any) -> Int[Tensor, "rows tokens"]:
        windows: Windows | None = context.get(SECOND_WINDOWS)
        if windows is not None:
            context[WINDOWS] = windows
        tokens: Tensor | None = context.get(SECOND_TOKENS)
        return inputs[0] if tokens is None else tokens


def encoder_tokens(
    encoder: Chain,
    tokens: Int[Tensor, "rows tokens"],
    second: Int[Tensor, "rows tokens"] | None = None,
) -> tuple[Int[Tensor, "rows tokens"], ...]:
    """Returns the tokens that each encoder reads, in the order of their features.

    Args:
        encoder: A text encoder, or a pair.
        tokens: The tokens that it takes.
        second: The tokens that the second encoder takes, if they are others.
    """
    if not isinstance(encoder, TextEncoderPair):
        return (tokens,)
    pad = encoder.layer("clip_g.pad", PadAfterEnd)
    return tokens, pad(tokens if second is None else second)


class PadAfterEnd(nn.Module):
    """Replaces all tokens after the first end token of each text.

    OpenCLIP pads texts with zeros, CLIP with the end token.

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
