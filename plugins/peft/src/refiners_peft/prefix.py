"""Prefix tuning: learned keys and values in every layer."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from refiners_core import Context, Layer, Seat, Source
from refiners_core.errors import WeightsError
from refiners_peft.peft_file import PROMPT, PeftFile
from refiners_peft.saved import Saved
from refiners_peft.virtual import VirtualTokens, language_model


class PrefixTuning(Saved, VirtualTokens):
    """Lets every token attend to learned keys and values (arXiv:2101.00190, section 4.2).

    The keys are not rotated, as PEFT reads them. A file of a network that made the prefix while it
    was trained has the prefix itself.

    Args:
        options: The arguments of every adapter: `weights`, `name`, `key`.
    """

    def build(self, model: Any, source: Source | None) -> None:
        """Reads the keys and values of each layer.

        Raises:
            AdapterError: `model` is not a language model, or no file is given.
            WeightsError: The file is not a prefix, is damaged, or is for another model.
        """
        model = language_model(model, self.key)
        file = self.read(source, model, "PREFIX_TUNING")
        prefix = file.prompt()
        attends, width = model.slot("decoder.attend"), model.facts["key_width"]
        _check(file, prefix.shape[1], len(attends), width)
        parts = prefix.split(width, dim=1)
        for seat, keys, values in zip(attends, parts[::2], parts[1::2], strict=True):
            self.layer(seat, partial(LearnedKeys, keys, values))
        self.tokens_before = len(prefix)
        self.requires_grad_(False)

    def learned(self, seat: Seat) -> Layer:
        return self.layer(seat, self.missing)

    def published(self) -> Mapping[str, Tensor]:
        """Returns the prefix as PEFT stores it, (tokens, 2 layers features)."""
        layers = list(self.own_layers.children())
        parts = [part.detach() for layer in layers for part in layer.parameters()]
        return {PROMPT: torch.cat(parts, dim=1)}


class LearnedKeys(Layer):
    """Returns learned keys and values.

    Args:
        keys: The keys, (tokens, shared).
        values: The values, (tokens, shared).
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = nn.Parameter(keys.clone()), nn.Parameter(values.clone())

    def run(self, context: Context, *inputs: Any) -> tuple[Tensor, Tensor, None]:
        return self.keys[None], self.values[None], None

    def extra_repr(self) -> str:
        return f"tokens={len(self.keys)}"


def _check(file: PeftFile, columns: int, layers: int, width: int) -> None:
    stated = file.config.get("num_layers")
    if stated not in (None, layers):
        raise WeightsError(
            f"{file.name} has a prefix for {stated} layers; this model has {layers}.{file.origin}",
            hint="Give a prefix that was trained on this model.",
        )
    if columns != 2 * layers * width:
        count = f"{columns / (2 * layers):g}"
        raise WeightsError(
            f"{file.name} has keys of {count} features in each of {layers} layers; those of this "
            f"model have {width}.{file.origin}",
            hint="Give a prefix that was trained on this model.",
        )
