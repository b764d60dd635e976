"""The advice of a publisher about generation, from `generation_config.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from refiners_core.models.config_reader import Published
from refiners_core.models.decoder.config import DecoderConfig


@dataclass(frozen=True)
class GenerationDefaults:
    """The values of `generation_config.json` that `generate` follows unless told otherwise."""

    ends: tuple[int, ...] = ()
    """The tokens that end a text."""
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any], config: DecoderConfig) -> Self:
        """Reads a published file; keys that it lacks follow the configuration of the network.

        Args:
            data: The content of the file; empty if there is none.
            config: The sizes of the decoder, with its special tokens.

        Raises:
            ModelError: A value has another type.
        """
        read = Published(data, "a language model", file="generation_config.json")
        end = data.get("eos_token_id")
        ends = config.ends if end is None else (end,) if type(end) is int else tuple(end)
        is_all = read.value("top_p", 1.0) >= 1
        return cls(
            ends=ends,
            top_k=read.value("top_k", 0) or None,
            top_p=None if is_all else read.value("top_p", 1.0),
            min_p=read.value("min_p", 0.0) or None,
            repetition_penalty=read.value("repetition_penalty", 1.0),
        )
