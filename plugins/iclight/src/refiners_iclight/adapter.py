"""IC-Light: offsets of all weights of a UNet that reads a foreground, and perhaps a background."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Concatenate,
    Edit,
    Identity,
    Multiply,
    Seat,
    Source,
    Sum,
    UseContext,
    When,
)
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.device import built_on, moved
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.unet import UNET_KEYS, UNet
from refiners_core.picture import to_pixels
from refiners_core.weights import load, published, read
from refiners_iclight.checkpoint import check_offsets
from refiners_iclight.merge import with_offsets

GREY: Final = 127 / 255
"""The level that the authors scale to 0; the foreground was cut out and laid on it."""
Pixels = Float[Tensor, "rows 3 height width"]
SLOTS: Final = ("unet.linear", "unet.conv", "unet.norm")
"""The places of all weights of the UNet."""


class Relight(Adapter):
    """Relights a foreground: the base of both forms of IC-Light.

    As released by the authors of IC-Light (ICLR 2025): every tensor of the UNet gets an offset, and
    the first convolution reads the latents of pictures beside those that are denoised. Each layer
    runs beside a layer of its offsets, so the base stays as it is and other adapters act on both.
    The scale multiplies every offset, those of the new channels included; the released weights are
    meant for scale 1, and at 0 nothing runs. `merge` makes one layer of each pair.

    Args:
        options: The arguments of every adapter: `weights`, `name`, `key`.
    """

    takes_condition: ClassVar[bool] = True
    pictures: ClassVar[int]
    """The number of pictures that the first convolution reads."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.light_key: Final = self.context_key("light")

    def shown(self, value: Any, size: tuple[int, int]) -> list[Pixels]:
        """Returns the pictures of a condition, in the order in which the network reads them."""
        raise NotImplementedError

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Loads an offset for every tensor of the UNet.

        Raises:
            AdapterError: The UNet reads a mask and a masked picture beside the latents.
            WeightsError: The file is not one of IC-Light for a UNet of these sizes.
        """
        unet, latents = model.unet, model.autoencoder.config.latent_channels
        if unet.config.in_channels != latents:
            raise AdapterError(
                f"{self.key} reads pictures beside {latents} channels of latents, but the UNet of "
                f"this model has {unet.config.in_channels}: it is an inpainting model.",
                hint='Load a model that begins with noise alone, such as "sd15".',
            )
        config = replace(unet.config, in_channels=latents * (1 + self.pictures))
        if source is None or "weights" not in source.files:
            with built_on(unet.device):
                self.offsets = UNet(config).to(unet.dtype)
            with torch.no_grad():
                for weight in self.offsets.parameters():
                    weight.zero_()
            return
        tensors = read(source.files["weights"])
        check_offsets(tensors, unet.config, self.pictures)
        with built_on("meta"):
            self.offsets = UNet(config)
        load(self.offsets, tensors, UNET_KEYS, dtype=unet.dtype, device=unet.device)
        self.offsets.requires_grad_(False)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Adds to each layer with weights one with their offsets, which reads the same."""

        def beside(inner: nn.Module, seat: Seat) -> Sum:
            return Sum(inner, When(self.scale_key, self._offset(seat), Multiply(self.scale_key)))

        def first(inner: nn.Module, seat: Seat) -> Sum:
            offset = When(
                self.scale_key, self._joined(), self._offset(seat), Multiply(self.scale_key)
            )
            return Sum(inner, offset)

        return self._wrapped(model, first, beside, {"name": "offset"})

    def merged_edits(self, model: LatentDiffusion, scale: float) -> Iterable[Edit]:
        """Puts the offsets into copies of the layers, inside the wraps of other adapters."""

        def copied(inner: nn.Module, seat: Seat) -> nn.Module:
            return with_offsets(inner, self._offset(seat), scale, seat.layer, seat.path, self.key)

        def first(inner: nn.Module, seat: Seat) -> Chain:
            return Chain(self._joined(), copied(inner, seat))

        return self._wrapped(model, first, copied, {"name": "merged", "stage": "inputs"})

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses values that are not pictures.

        Raises:
            ConditionError: A value is not a picture, or the count does not match.
        """
        self._pixels(value, request)

    @torch.no_grad()
    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Encodes the pictures as mean latents, the same for all branches of guidance.

        Args:
            value: The pictures, as the form of IC-Light takes them.
            request: The generation.

        Raises:
            ConditionError: The value is refused by `check`.
        """
        model: LatentDiffusion = request.model
        with moved(model.autoencoder, request.offload):
            latents = [model.encode(pixels) for pixels in self._pixels(value, request)]
        rows = max(map(len, latents))
        joined = torch.cat([x.expand(rows, -1, -1, -1) for x in latents], dim=1)
        return {self.light_key: {"cond": joined}}

    def published(self) -> Mapping[str, Tensor]:
        """Returns the offsets under the keys of diffusers' UNets, as they are released."""
        return published(self.offsets, UNET_KEYS)

    def _offset(self, seat: Seat) -> nn.Module:
        return self.offsets.layer(seat.path.removeprefix("unet."))

    def _joined(self) -> Concatenate:
        return Concatenate(latents=Identity(), light=UseContext(self.light_key))

    def _wrapped(
        self, model: LatentDiffusion, first: Any, others: Any, options: Mapping[str, Any]
    ) -> tuple[Edit, ...]:
        seats = model.slot("unet.conv_in")
        places = [model.slot(slot).where(lambda s: s.path != seats[0].path) for slot in SLOTS]
        edits = [place.wrap(others, **options) for place in places]
        return sum(edits, seats.wrap(first, **options))

    def _pixels(self, value: Any, request: GenerationRequest) -> list[Tensor]:
        """Returns pixels that the autoencoder's scaling turns into the authors': 127 becomes 0."""
        pictures = self.shown(value, (request.height, request.width))
        for rows in pictures:
            if len(rows) not in (1, request.count):
                raise ConditionError(
                    f"{self.key} is given {len(rows)} pictures to generate {request.count}.",
                    hint="Pass one, or one per generated picture.",
                )
        return [rows * (255 / 254) for rows in pictures]


class ForegroundLight(Relight):
    """Relights a foreground as the prompt describes (`fc` and `fcon` of IC-Light).

    The condition is a picture whose background is transparent, or grey of level 127; or one per
    generated picture. It is resized to the generated size. `image=` with a gradient of light and
    `strength=` begins from that light.

    Example:
        >>> ForegroundLight(name="ic-light-fc").pictures
        1
    """

    pictures: ClassVar[int] = 1

    def shown(self, value: Any, size: tuple[int, int]) -> list[Pixels]:
        """Returns the foreground, transparent parts laid on grey."""
        return [to_pixels(value, size, background=GREY)]


class BackgroundLight(Relight):
    """Relights a foreground by the light of a background (`fbc` of IC-Light).

    The condition is `{"foreground": ..., "background": ...}`: a picture whose background is
    transparent, or grey of level 127, and the picture to put it into.

    Example:
        >>> BackgroundLight(name="ic-light-fbc").inputs
        ('foreground', 'background')
    """

    pictures: ClassVar[int] = 2
    inputs: ClassVar[tuple[str, ...]] = ("foreground", "background")

    def shown(self, value: Any, size: tuple[int, int]) -> list[Pixels]:
        """Returns the foreground, transparent parts laid on grey, and the background."""
        foreground, background = (value[name] for name in self.inputs)
        return [to_pixels(foreground, size, background=GREY), to_pixels(background, size)]
