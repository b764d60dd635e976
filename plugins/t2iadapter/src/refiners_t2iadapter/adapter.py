"""Feature maps of a control picture, added to those of the UNet's encoder."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Edit, Multiply, Seat, Source, Sum, UseContext, When
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.picture import to_pixels
from refiners_core.weights import AS_IS, load, published, read
from refiners_t2iadapter.checkpoint import as_diffusers, config_of, halving, is_xl, map_widths
from refiners_t2iadapter.feature_network import FeatureConfig, FeatureNetwork

GREY: Final = 1 / 255
"""The largest difference between the channels of a picture that counts as grey."""
ORDERS: Final = ("rgb", "bgr")
"""The channel orders that networks were trained with."""


class T2iAdapter(Adapter):
    """Makes generated pictures follow a control picture, by a small network that runs once.

    Paper: arXiv:2302.08453. The condition is a picture with values in 0...1, or one per generated
    picture, resized to their size. The network's feature maps, times the scale, are added at every
    step, alike in all guidance branches: after each level of the encoder, where the skip
    connections read them; on Stable Diffusion XL after the first downsampling and the mid block.

    A variant's setting `channel-order = "bgr"` passes the channels in the order with which the
    network was trained.

    Args:
        picture_channels: For an untrained adapter, the channels of the picture: 3 or 1.
        is_light: Whether an untrained adapter computes in a quarter of the channels.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Example:
        >>> T2iAdapter(name="t2i-canny").takes_condition
        True
    """

    takes_condition: ClassVar[bool] = True

    def __init__(
        self, *, picture_channels: int = 3, is_light: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self.config = FeatureConfig(
            picture_channels=picture_channels,
            residuals=4 if is_light else 2,
            is_light=is_light,
        )
        self.channel_order = ORDERS[0]

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Builds the network in the sizes of the model's UNet and loads its weights.

        Raises:
            WeightsError: The file is not a T2I-Adapter for this model.
            AdapterError: The variant names an unknown channel order.
        """
        unet, reduction = model.unet, model.autoencoder.config.reduction
        maps = map_widths(unet.config)
        if source is not None:
            self._follow_settings(source)
        if source is None or "weights" not in source.files:
            block = reduction * 2 if is_xl(unet.config) else reduction
            self.config = replace(
                self.config, block=block, widths=maps, halving=halving(unet.config)
            )
            with built_on(unet.device):
                self.parts = Chain(adapter=FeatureNetwork(self.config)).to(unet.dtype)
            return
        tensors = as_diffusers(read(source.files["weights"]), len(maps))
        self.config = config_of(tensors, unet.config, reduction)
        with built_on("meta"):
            self.parts = Chain(adapter=FeatureNetwork(self.config))
        load(self.parts, tensors, AS_IS, dtype=unet.dtype, device=unet.device)
        self.parts.requires_grad_(False)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Adds a feature map after each level of the encoder, and on SDXL after the mid block."""
        outputs = model.slot("unet.down.output")
        places = [outputs]
        if is_xl(model.unet.config):
            first = outputs[0].path
            places = [
                model.slot("unet.down.downsample").first(),
                outputs.where(lambda seat: seat.path != first),
                model.slot("unet.mid.output"),
            ]
        seats = [seat.path for place in places for seat in place]
        keys = {path: self._key(i) for i, path in enumerate(seats)}

        def with_map(inner: nn.Module, seat: Seat) -> Sum:
            key = keys[seat.path]
            return Sum(inner, When(key, map=UseContext(key), scale=Multiply(self.scale_key)))

        return tuple(edit for place in places for edit in place.wrap(with_map, name="map"))

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses a picture that the network cannot read.

        Raises:
            ConditionError: The value is not a picture, its channels do not match the network's, the
                generated size is not a multiple of the network's, or the count does not match.
        """
        self._pixels(value, request)

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Encodes a picture as feature maps.

        Args:
            value: A picture in 0...1, or a list with one per generated picture.
            request: The generation.

        Raises:
            ConditionError: The value is refused by `check`.
        """
        pixels = self._pixels(value, request).to(request.device, request.dtype)
        maps: tuple[Tensor, ...] = self.parts(pixels)
        return {self._key(i): {"cond": features} for i, features in enumerate(maps)}

    def published(self) -> Mapping[str, Tensor]:
        """Returns the weights under the keys of diffusers' folders."""
        return published(self.parts, AS_IS)

    def _follow_settings(self, source: Source) -> None:
        """Takes the channel order from the settings of the variant."""
        self.channel_order = source.settings.get("channel-order", ORDERS[0])
        if self.channel_order not in ORDERS:
            raise AdapterError(
                f"the variant {source.variant} has the channel order {self.channel_order!r}.",
                hint=f"Its settings.channel-order may be {' or '.join(ORDERS)}.",
            )

    def _key(self, index: int) -> str:
        return self.context_key(f"map.{index}")

    def _pixels(
        self, value: Any, request: GenerationRequest
    ) -> Float[Tensor, "count channels height width"]:
        block, sides = self.config.block, (request.width, request.height)
        if any(side % block for side in sides):
            near = tuple(max(1, round(side / block)) * block for side in sides)
            raise ConditionError(
                f"{self.key} reads a picture in squares of {block} x {block} pixels; "
                f"{sides[0]} x {sides[1]} cannot be divided into them.",
                hint=f"Try size={near}.",
            )
        self._check_channels(value)
        pixels = to_pixels(value, (request.height, request.width))
        if len(pixels) not in (1, request.count):
            raise ConditionError(
                f"{self.key} is given {len(pixels)} pictures to generate {request.count}.",
                hint="Pass one, or one per generated picture.",
            )
        if self.config.picture_channels == 3:
            return pixels if self.channel_order == "rgb" else pixels.flip(1)
        if bool(((pixels - pixels[:, :1]).abs() > GREY).any()):
            raise ConditionError(
                f"{self.key} reads grey pictures; the channels of this one differ.",
                hint='Pass picture.convert("L"), or a tensor of one channel.',
            )
        return pixels[:, :1]

    def _check_channels(self, value: Any) -> None:
        count = self.config.picture_channels
        for picture in value if isinstance(value, list | tuple) else [value]:
            if isinstance(picture, Tensor) and picture.ndim in (3, 4):
                channels = picture.shape[-3]
                if channels not in (1, 3):
                    raise ConditionError(
                        f"{self.key} reads pictures of {count} channel{'s'[: count - 1]}; this one "
                        f"has {channels}.",
                        hint=f"Pass a PIL image, or a tensor ({count}, height, width) in 0...1.",
                    )
