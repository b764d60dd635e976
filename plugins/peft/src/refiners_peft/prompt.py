"""Prompt tuning and P-tuning: learned tokens before every text."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from refiners_core import Chain, Edit, Layer, Seat, Source
from refiners_core.errors import WeightsError
from refiners_core.models.decoder import BeginText, BegunKeys, LanguageModel
from refiners_peft.peft_file import PROMPT
from refiners_peft.saved import Saved
from refiners_peft.virtual import VirtualTokens, language_model


class PromptTuning(Saved, VirtualTokens):
    """Begins every text with learned features (arXiv:2104.08691, section 2).

    P-tuning (arXiv:2103.10385) makes them by a network while it trains; its files have the features
    themselves.

    Args:
        options: The arguments of every adapter: `weights`, `name`, `key`.
    """

    def build(self, model: Any, source: Source | None) -> None:
        """Reads the features.

        Raises:
            AdapterError: `model` is not a language model, or no file is given.
            WeightsError: The file is not a prompt, is damaged, or is for another model.
        """
        model = language_model(model, self.key)
        file = self.read(source, model, "PROMPT_TUNING", "P_TUNING")
        prompt, width = file.prompt(), model.facts["width"]
        if prompt.shape[1] != width:
            raise WeightsError(
                f"{file.name} has tokens of {prompt.shape[1]} features; those of this model have "
                f"{width}.{file.origin}",
                hint="Give a prompt that was trained on this model.",
            )
        for seat in model.slot("decoder.embed"):
            self.layer(seat, lambda: BeginText(self.key, prompt.clone()))
        self.tokens_before = len(prompt)
        self.requires_grad_(False)

    def edits(self, model: LanguageModel) -> Iterable[Edit]:
        """Reads the features before the text, and lets the text attend to them."""

        def begun(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(self.layer(seat, self.missing), inner)

        first = model.slot("decoder.embed").wrap(begun, stage="inputs", name="prompt")
        return (*first, *super().edits(model))

    def learned(self, seat: Seat) -> Layer:
        return BegunKeys(self.key)

    def published(self) -> Mapping[str, Tensor]:
        """Returns the features as PEFT stores them, (tokens, width)."""
        (features,) = self.parameters()
        return {PROMPT: features.detach()}

    def _begun(self) -> str:
        return self.key
