"""ELLA: tokens of a language model, made anew at each timestep, in place of the text's."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Passthrough, Seat, SetContext, Source, When
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.decoder import DecoderConfig
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.t5 import T5Config
from refiners_core.models.unet import UNet
from refiners_core.weights import load, published, read
from refiners_ella.connector import ELLA_KEYS, Connector, ConnectorConfig
from refiners_ella.language import Language, Tokenizer, language_config, language_tokenizer

HEADS: Final = 8
"""The attention heads of the released connector."""
TEXT: Final = "text"
"""The context key of the text's features, which the cross-attentions of the UNet read."""


class Ella(Adapter):
    """Lets a language model read the prompts (ELLA, arXiv:2403.05135).

    T5, or a decoder such as Llama (table 4 of the paper), encodes the prompts and the negative
    prompts, and a connector turns the features into 64 tokens at each timestep. They replace
    the features of CLIP for the cross-attentions of the UNet; the side networks of other
    adapters, which were trained with CLIP, still read those. It takes no condition:
    `Condition(start=..., end=...)` limits the steps, and None leaves it out. Its scale is 1 or
    0, as there is nothing between two texts. Weights of words in a prompt are read as text.

    Args:
        tokens: The tokens of the language model to which every prompt is padded or cut, such as the
            128 of the training; by default each prompt has as many as it needs.
        encoder: For an untrained adapter, the sizes of the language model.
        connector: For an untrained adapter, the sizes of the connector.
        tokenizer: For an untrained adapter, the tokenizer of the language model.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: The number of tokens is not a positive whole number.

    Example:
        >>> Ella(name="ella").takes_condition
        False
    """

    reads_prompts: ClassVar[bool] = True

    def __init__(
        self,
        *,
        tokens: int | None = None,
        encoder: T5Config | DecoderConfig | None = None,
        connector: ConnectorConfig | None = None,
        tokenizer: Tokenizer | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if tokens is not None and (not isinstance(tokens, int) or tokens < 2):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AdapterError(
                f"a prompt of {self.key} needs at least 2 tokens, not {tokens!r}.",
                hint="Try tokens=128, or leave tokens= out.",
            )
        self.tokens: Final = tokens
        self.tokenizer = tokenizer
        self._untrained: Final = encoder or T5Config(), connector
        self.features_key: Final = self.context_key("features")
        self.mask_key: Final = self.context_key("mask")
        self.tokens_key: Final = self.context_key("tokens")

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Builds the language model and the connector and loads their weights.

        Raises:
            WeightsError: A file is not one of ELLA, or of a language model of these sizes.
            ModelError: The configuration or the tokenizer cannot be read.
        """
        unet = model.unet
        width = unet.config.text_width
        if source is None:
            encoder, connector = self._untrained
            connector = connector or ConnectorConfig(encoder.width, width)
            with built_on(unet.device):
                self._wear(Language.untrained(encoder))
                self.encoder.to(unet.dtype)
                self.connector = self._connector(connector).to(unet.dtype)
            return
        if "weights" not in source.files:
            self._begin(source, unet, width)
            return
        files = source.files
        tensors = read(files["weights"])
        config = ConnectorConfig.of(tensors, width, source.settings.get("heads", HEADS))
        sizes = language_config(json.loads(files["config"].read_text("utf-8")))
        if sizes.width != config.features:
            raise AdapterError(
                f"this ELLA reads features of width {config.features}, and this language model "
                f"has {sizes.width}.",
                hint="Use the one that it was trained with, such as flan-t5-xl.",
            )
        self.tokenizer = language_tokenizer(sizes, files["tokenizer"])
        with built_on("meta"):
            self.connector = self._connector(config)
        placement: dict[str, Any] = {"dtype": unet.dtype, "device": unet.device}
        load(self.connector, tensors, ELLA_KEYS, **placement)
        self._wear(Language.loaded(sizes, files["encoder"], **placement))
        self.requires_grad_(False)

    def learners(self) -> Sequence[nn.Module]:
        """Returns the connector; the language model stays as it is."""
        return (self.connector,)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Makes the tokens before the UNet runs, and lets each cross-attention read them."""
        made = Passthrough(
            When(self.scale_key, connector=self.connector, keep=SetContext(self.tokens_key))
        )

        def reading(inner: nn.Module, seat: Seat) -> ReadsTokens:
            return ReadsTokens(inner, self.tokens_key)

        first = model.slot("unet.input").before("ella", lambda seat: made)
        return first + model.slot("unet.cross_attention").wrap(
            reading, stage="inputs", name="tokens"
        )

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses a scale between 0 and 1, and a generation without a tokenizer.

        Raises:
            ConditionError: The scale is neither 0 nor 1, or the adapter has no tokenizer.
        """
        scales = () if request.places is None else request.places.adapters
        for step in (step for item in scales if item.adapter is self for step in item.steps):
            numbers = {number for each in step.values() for number in each}
            if numbers not in ({0.0}, {1.0}):
                listed = " and ".join(f"{number:g}" for number in sorted(numbers))
                raise ConditionError(
                    f"{self.key} replaces the text, so its scale is 1 or 0 everywhere, not "
                    f"{listed}.",
                    hint="Try Condition(end=0.5): it then acts in the first half of the steps.",
                )
        if self.tokenizer is None:
            raise ConditionError(
                f"{self.key} was built without a tokenizer, so it cannot read.",
                hint='Build it with tokenizer=T5Tokenizer.load("tokenizer.json").',
            )

    @torch.no_grad()
    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Encodes the prompts of each branch of guidance by the language model.

        Args:
            value: None.
            request: The generation, with its prompts.
        """
        assert self.tokenizer is not None, "checked before any network runs"
        texts = [text for name in request.branches for text in request.prompts[name]]
        distinct = list(dict.fromkeys(texts))
        ids, mask = self.tokenizer.rows(distinct, self.tokens)
        ids, mask = ids.to(request.device), mask.to(request.device)
        features = self.language.read(ids, mask)
        rows = torch.tensor([distinct.index(text) for text in texts], device=request.device)
        parts = features[rows].split(request.count)
        values = {self.features_key: dict(zip(request.branches, parts, strict=True))}
        if self.tokens is None:  # of a fixed number of tokens, padding is read as in the training
            masks = mask[rows].split(request.count)
            values[self.mask_key] = dict(zip(request.branches, masks, strict=True))
        return values

    def published(self) -> Mapping[str, Tensor]:
        """Returns the connector under the keys of `QQGYLab/ELLA`, without the language model."""
        return published(self.connector, ELLA_KEYS)

    def _wear(self, language: Language) -> None:
        """Keeps a language model; its network is a part of the adapter."""
        self.language = language
        self.encoder = language.network

    def _begin(self, source: Source, unet: UNet, width: int) -> None:
        """Loads the language model, and builds a connector in the sizes that the settings state."""
        sizes = language_config(json.loads(source.files["config"].read_text("utf-8")))
        known = {"features": sizes.width, "width": width}
        config = self._untrained[1] or source.sizes("connector", ConnectorConfig, **known)
        self.tokenizer = language_tokenizer(sizes, source.files["tokenizer"])
        placement: dict[str, Any] = {"dtype": unet.dtype, "device": unet.device}
        with built_on(unet.device):
            if (file := source.files.get("encoder")) is not None:
                self._wear(Language.loaded(sizes, file, **placement))
            else:
                self._wear(Language.untrained(sizes))
            connector = self._connector(config or ConnectorConfig(**known))
        self.connector = connector.to(unet.dtype)

    def _connector(self, config: ConnectorConfig) -> Connector:
        return Connector(config, self.features_key, self.mask_key)


class ReadsTokens(Chain):
    """Runs a layer with other features of the text, if the context has them.

    Args:
        inner: The layer, with the edits of other adapters.
        tokens: The context key of the features.
    """

    def __init__(self, inner: nn.Module, tokens: str) -> None:
        super().__init__(base=inner)
        self.tokens: Final = tokens

    def run(self, context: Context, *inputs: Any) -> Any:
        tokens = context.get(self.tokens)
        if tokens is None:
            return super().run(context, *inputs)
        text = context[TEXT]
        context[TEXT] = tokens
        output = super().run(context, *inputs)
        context[TEXT] = text
        return output

    def extra_repr(self) -> str:
        return repr(self.tokens)
