"""A ControlNet for several control types at once: ControlNet Union, and Union ProMax."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar, Final, cast

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_controlnet.adapter import masked
from refiners_controlnet.union_network import (
    UNION_KEYS,
    ControlTypeEmbedding,
    UnionCondition,
)
from refiners_core import Chain, Condition, Edit, Source
from refiners_core.errors import ConditionError, WeightsError
from refiners_core.models.control import (
    ConditionEncoder,
    Control,
    ControlFile,
    ControlNetwork,
    SideNetwork,
    control_edits,
    control_trunk,
)
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.unet import UNetConfig
from refiners_core.picture import to_pixels
from refiners_core.weights import load, published

TYPES: Final[Mapping[str, int]] = {
    "openpose": 0,
    "depth": 1,
    "hed": 2,
    "pidi": 2,
    "scribble": 2,
    "softedge": 2,
    "ted": 2,
    "canny": 3,
    "lineart": 3,
    "anime": 3,
    "mlsd": 3,
    "normal": 4,
    "segmentation": 5,
    "tile": 6,
    "inpaint": 7,
}
"""The number of each control type by its names; a file has the first 6, or all 8."""
UNION_CHANNELS: Final = (48, 96, 192, 384)
"""The channels of the picture encoder in the released unions."""
HIDDEN: Final = 0.0
"""The value that `inpaint` reads for pixels under the mask: black."""


class UnionControl(Control):
    """The encoder of control pictures and the side network of a union.

    Args:
        config: The sizes of the UNet.
        channels: The channels of each level of the encoder.
        condition: Fuses the features of the pictures.
        types: The embedding of the control types in use.
        scale: The context key of the scale of the outputs.
        weights: The context key of the weights of outputs.
    """

    def __init__(
        self,
        config: UNetConfig,
        channels: Sequence[int],
        condition: UnionCondition,
        types: ControlTypeEmbedding,
        scale: str,
        weights: str,
    ) -> None:
        trunk = control_trunk(config)
        time = trunk["time"]
        assert isinstance(time, Chain), "the trunk is new"
        time.insert(list(dict(time.children_by_name())).index("act"), types, "types")
        network = ControlNetwork(
            config, "", scale, weights=weights, trunk=trunk, condition=condition
        )
        Chain.__init__(
            self, encoder=ConditionEncoder(channels, config.channels[0]), network=network
        )

    def published(self) -> Mapping[str, Tensor]:
        """Returns the weights in the layout of diffusers."""
        return published(self, UNION_KEYS)


class UnionControlNet(SideNetwork):
    """Makes generated pictures follow one or several control pictures of different types.

    The condition is a mapping from names of control types (`TYPES`) to pictures, as ControlNet
    takes them: `{"canny": edges, "depth": depth}`. `Condition(edges, scale=0.5)` gives a picture a
    scale of its own, which the scale of the whole condition multiplies. `inpaint` also takes a
    mapping of `picture` and `mask`. ControlNet Union knows 6 types, Union ProMax also `tile` and
    `inpaint`.

    Of a single picture, the outputs are multiplied by the scale; of several, each picture's
    features, as the released code does, so that half the scale is not half the effect. A scale that
    differs between places or generated pictures multiplies the outputs in both cases.

    Args:
        types: For an untrained adapter, the number of control types: 6 or 8.
        options: The arguments of every ControlNet.

    Example:
        >>> UnionControlNet(name="controlnet-union").takes_condition
        True
    """

    optional_inputs: ClassVar[tuple[str, ...]] = tuple(TYPES)

    def __init__(self, *, types: int = 6, **options: Any) -> None:
        super().__init__(**options)
        self.types = types
        self.types_key: Final = self.context_key("types")
        self.outer_key: Final = self.context_key("outer")

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Builds the side network in the sizes of the model's UNet and loads its weights.

        Raises:
            WeightsError: The file is not a union for a UNet of these sizes.
        """
        self._follow_settings(source)
        unet = model.unet
        if source is None or "weights" not in source.files:
            levels = len(model.autoencoder.config.channels)
            with built_on(unet.device):
                channels = self._channels(source) or UNION_CHANNELS[:levels]
                parts = self._parts(unet.config, channels, 1)
            self.parts = parts.to(unet.dtype)
            return
        file = ControlFile.read(source.files["weights"], unet.config)
        task = file.tensors.get("task_embedding")
        if task is None:
            raise WeightsError(
                f"this file is a ControlNet for one control type; {self.key} reads unions.",
                hint='Try load_adapter("controlnet", model, file=...).',
            )
        self.types = len(task)
        blocks = {key.split(".")[1] for key in file.tensors if key.startswith("transformer_layes")}
        with built_on("meta"):
            self.parts = self._parts(file.config, file.channels, len(blocks))
        load(self.parts, file.tensors, UNION_KEYS, dtype=unet.dtype, device=unet.device)
        self.parts.requires_grad_(False)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Runs the side network before the UNet; adds its outputs to the skips and mid block."""
        return control_edits(
            model,
            self.parts.network,
            self.context_key,
            scale=self.scale_key,
            prompted=self.prompted_key,
            when="types",
        )

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses control types that the file lacks, and pictures that cannot be read.

        Raises:
            ConditionError: The value is not a mapping of control types to pictures, or a type is
                unknown to this file.
            AdapterError: `guess` or `layers` is invalid, or both are given.
        """
        super().check(value, request)
        for name, (picture, _) in self._pictures(value).items():
            self._typed_pixels(name, picture, (request.height, request.width))

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Encodes the control pictures.

        Args:
            value: Pictures by the names of their control types.
            request: The generation.

        Raises:
            ConditionError: The value is refused by `check`.
        """
        size = request.height, request.width
        values: dict[str, dict[str, Tensor]] = {}
        types = torch.zeros(1, self.types)
        for name, (picture, scale) in self._pictures(value).items():
            pixels = self._ordered(self._typed_pixels(name, picture, size))
            values[f"{self.features_key}.{name}"] = {"cond": self.parts.features(pixels, request)}
            if scale != 1:
                values[self._scale_key(name)] = {"cond": torch.full((1, 1, 1, 1), scale)}
            types[0, TYPES[name]] = 1
        if not values:
            return {}
        return self._steered({self.types_key: {"cond": types}, **values}, request)

    def pixels(self, value: Any, size: tuple[int, int]) -> Float[Tensor, "count 3 height width"]:
        """Returns the picture in 0...1, resized."""
        return to_pixels(value, size)

    def _typed_pixels(
        self, name: str, value: Any, size: tuple[int, int]
    ) -> Float[Tensor, "count 3 height width"]:
        """Returns the pixels of a control type.

        Raises:
            ConditionError: The value is not a picture.
        """
        if name == "inpaint" and isinstance(value, Mapping):
            return masked(value, size, HIDDEN, self.key)
        return self.pixels(value, size)

    def _pictures(self, value: Any) -> dict[str, tuple[Any, float]]:
        """Returns the picture and the scale of each control type that acts.

        Raises:
            ConditionError: The value is not a mapping, or a type is unknown to this file.
        """
        known = [name for name, number in TYPES.items() if number < self.types]
        if not isinstance(value, Mapping) or not value:
            raise ConditionError(
                f"{self.key} takes pictures by control type, not {_named(value)}.",
                hint='Pass conditions={union: {"canny": edges}}.',
            )
        if unknown := [str(name) for name in value if name not in known]:
            near = get_close_matches(unknown[0], known, 1) or known[:1]
            raise ConditionError(
                f"{self.key} has no control type {unknown[0]!r}; its types are {', '.join(known)}.",
                hint='Try load_adapter("controlnet-union-promax").'
                if unknown[0] in TYPES
                else f'Pass {{"{near[0]}": picture}}.',
            )
        given = {name: _scaled(self.key, name, item) for name, item in value.items()}
        return {
            n: (item, scale) for n, (item, scale) in given.items() if scale and item is not None
        }

    def _scale_key(self, name: str) -> str:
        return self.context_key(f"scale.{name}")

    def _parts(self, config: UNetConfig, channels: Sequence[int], depth: int) -> UnionControl:
        width = config.channels[0]
        pictures = {
            name: (f"{self.features_key}.{name}", self._scale_key(name), number)
            for name, number in TYPES.items()
            if number < self.types
        }
        condition = UnionCondition(
            width, self.types, depth, pictures, self.scale_key, self.outer_key
        )
        types = ControlTypeEmbedding(
            self.types_key, self.types, config.time_id_channels, config.time_width
        )
        return UnionControl(config, channels, condition, types, self.outer_key, self.weights_key)


def _scaled(adapter: str, name: str, item: Any) -> tuple[Any, float]:
    """Returns the picture of a control type and its scale.

    Raises:
        ConditionError: The picture has a span, a mask, or a scale that is not one number.
    """
    if not isinstance(item, Condition):
        return item, 1.0
    if (item.start, item.end) != (0, 1) or item.mask is not None:
        raise ConditionError(
            f"{adapter} runs all control types together: {name} has a scale of its own, but no "
            "span and no mask.",
            hint="Pass Condition({...}, start=..., end=...), or load the adapter twice.",
        )
    try:
        return item.value, float(cast("Any", item.scale))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConditionError(
            f"{adapter} runs all control types together: the scale of {name} is one number for all "
            "places, steps and pictures.",
            hint="Pass Condition({...}, scale=...) for all types, or load the adapter twice.",
        ) from error


def _named(value: Any) -> str:
    return "nothing" if isinstance(value, Mapping) else f"a {type(value).__name__}"
