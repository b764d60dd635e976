"""A network beside the UNet that reads a picture: what all ControlNets have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import AdapterError
from refiners_core.models.control.control import Control, build_control
from refiners_core.models.control.edit import control_edits
from refiners_core.models.control.shared import SharedControl
from refiners_core.models.control.weighting import checked_weights, guess_weights
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.surgery.adapter import Adapter
from refiners_core.surgery.selection import Edit
from refiners_core.surgery.source import Source

ORDERS: Final = ("rgb", "bgr")
"""The channel orders that networks were trained with."""


class SideNetwork(Adapter, ABC):
    """A copy of the UNet's encoder that runs before the UNet and reads a control picture.

    The picture is encoded once per generation and shared by all guidance branches. The outputs of
    several side networks add up. A subclass defines `pixels`, which prepares the condition.

    `guess`, `layers` and `cond_only` may be changed between generations.

    Args:
        guess: Guess mode, by the formula `original` or `diffusers`: the picture steers the branch
            of the prompt alone, and the outputs are weighted from weak to strong.
        layers: A weight for each output: those of the skips in their order, then the middle's (13
            for Stable Diffusion 1.5, 10 for XL). An output of weight 0 is not computed.
        cond_only: Whether the picture steers the branch of the prompt alone.
        pooled: Whether only the mean of each output over all positions counts, as for `shuffle`;
            None reads the settings of the variant. A pooled network steers the branch of the prompt
            alone.
        channel_order: The channel order of pictures that the network was trained with, `rgb` or
            `bgr`; None reads the settings of the variant. Conditions are always RGB.
        channels: For an untrained adapter, the channels of each level of the picture's encoder;
            None reads the settings of the variant, and without them takes those of the released
            networks, for as many levels as the model's latents need.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: `guess` or `channel_order` is unknown, or `guess` and `layers` are both given.
    """

    takes_condition: ClassVar[bool] = True
    parts: Control | SharedControl
    """The encoder of pictures and the side network, once they are built."""

    def __init__(
        self,
        *,
        guess: str | None = None,
        layers: Sequence[float] | None = None,
        cond_only: bool = False,
        pooled: bool | None = None,
        channel_order: str | None = None,
        channels: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.guess = guess
        self.layers = layers
        self.cond_only = cond_only
        self.is_pooled = bool(pooled)
        self.channel_order = channel_order or ORDERS[0]
        self.channels: Final = channels
        self._given: Final = {"pooled": pooled, "channel-order": channel_order}
        self.features_key: Final = self.context_key("features")
        self.weights_key: Final = self.context_key("weights")
        self.prompted_key: Final = self.context_key("prompted")
        self._check_order()
        if guess is not None:
            self._weights(2)

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Builds the side network in the sizes of the model's UNet and loads its weights.

        Raises:
            WeightsError: The file is not a ControlNet for a UNet of these sizes.
            AdapterError: The variant names an unknown channel order.
        """
        self._follow_settings(source)
        self.parts = build_control(
            model,
            source.files.get("weights") if source else None,
            features=self.features_key,
            channels=self._channels(source),
            weights=self.weights_key,
            is_pooled=self.is_pooled,
        )

    def start(self, model: LatentDiffusion) -> None:
        """Copies the encoder of the UNet; the outputs stay zero (arXiv:2302.05543, section 3.1)."""
        self.parts.copy_encoder(model.unet)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Runs the side network before the UNet; adds its outputs to the skips and mid block."""
        return control_edits(
            model,
            self.parts.network,
            self.context_key,
            scale=self.scale_key,
            prompted=self.prompted_key,
        )

    @abstractmethod
    def pixels(self, value: Any, size: tuple[int, int]) -> Float[Tensor, "count 3 height width"]:
        """Returns the pixels that the encoder reads, in RGB.

        Args:
            value: The condition's value.
            size: Height and width of the generated pictures.

        Raises:
            ConditionError: The value is not a picture, or not what this adapter needs.
        """

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses options that contradict one another or the model.

        Raises:
            AdapterError: `guess` or `layers` is invalid, or both are given.
            ConditionError: This ControlNet was trained for latents of another size.
        """
        self._weights(len(request.model.unet.config.skip_channels) + 1)
        self.parts.check_size(request, self.key)

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Encodes a control picture.

        Args:
            value: The condition's value, as `pixels` takes it.
            request: The generation.

        Raises:
            ConditionError: The value is not a picture, or this ControlNet was trained for latents
                of another size.
        """
        self.parts.check_size(request, self.key)
        pixels = self._ordered(self.pixels(value, (request.height, request.width)))
        features = {self.features_key: {"cond": self.parts.features(pixels, request)}}
        return self._steered(features, request)

    def published(self) -> Mapping[str, Tensor]:
        """Returns the weights in the layout of diffusers, or in that of a file of differences."""
        return self.parts.published()

    def _steered(
        self, features: dict[str, dict[str, Tensor]], request: GenerationRequest
    ) -> dict[str, dict[str, Tensor]]:
        """Returns encoded features with the values that weight the outputs and choose branches.

        Without an output of another weight than 0 there is nothing to run.
        """
        weights = self._weights(len(request.model.unet.config.skip_channels) + 1)
        values, unit = dict(features), torch.ones(1, 1, 1, 1, dtype=torch.float32, device="cpu")
        if self.guess is not None or self.cond_only or self.is_pooled:
            values[self.prompted_key] = {"cond": unit}
        if weights is None:
            return values
        if not any(weights):
            return {}
        values[self.weights_key] = {"cond": unit}
        for i, weight in enumerate(weights):
            if weight:
                values[f"{self.weights_key}.{i}"] = {"cond": unit * weight}
        return values

    def _weights(self, count: int) -> tuple[float, ...] | None:
        """Returns the weight of each output; None where all count fully."""
        if self.guess is None:
            layers = self.layers
            return None if layers is None else checked_weights(layers, count, self.key)
        if self.layers is not None:
            raise AdapterError(
                f"{self.key} has guess={self.guess!r} and layers, which both weight the outputs.",
                hint="Pass one of them.",
            )
        weights = guess_weights(self.guess, count)
        return None if self.is_pooled else weights

    def _channels(self, source: Source | None) -> Sequence[int] | None:
        """Returns the channels of an untrained encoder; None for those of the released ones."""
        return self.channels or (source.settings.get("channels") if source else None)

    def _follow_settings(self, source: Source | None) -> None:
        """Takes what the caller left open from the settings of the variant."""
        settings = source.settings if source else {}
        if self._given["pooled"] is None:
            self.is_pooled = bool(settings.get("pooled", False))
        if self._given["channel-order"] is None:
            self.channel_order = settings.get("channel-order", ORDERS[0])
            self._check_order()

    def _check_order(self) -> None:
        if self.channel_order not in ORDERS:
            raise AdapterError(
                f"{self.key} has the channel order {self.channel_order!r}; networks read "
                f"{' or '.join(ORDERS)}.",
                hint=f'Try channel_order="{ORDERS[0]}".',
            )

    def _ordered(
        self, pixels: Float[Tensor, "count 3 height width"]
    ) -> Float[Tensor, "count 3 height width"]:
        """Returns RGB pixels in the order that the network was trained with."""
        return pixels.flip(1) if self.channel_order == "bgr" else pixels
