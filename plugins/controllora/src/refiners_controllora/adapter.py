"""Control-LoRA: a ControlNet whose weights are the base's own plus a low-rank change."""

from collections.abc import Mapping
from typing import Any, Final

from jaxtyping import Float
from torch import Tensor

from refiners_controllora.checkpoint import (
    MARKER,
    LowRankControl,
    read_changes,
    untrained_changes,
)
from refiners_core import Source
from refiners_core.errors import WeightsError
from refiners_core.models.control import (
    RELEASED_CHANNELS,
    SideNetwork,
    check_finite_weights,
    check_text_width,
    condition_channels,
    ldm_control_keys,
)
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.picture import to_pixels
from refiners_core.weights import load, read

RANK: Final = 128
"""The rank of the smaller ones of the released files."""


class ControlLora(SideNetwork):
    """Makes generated pictures follow a control picture, by a low-rank change of the base.

    As released by Stability AI: each weight of the UNet's way down is the base's plus a product of
    two small matrices; biases and norms are replaced. The condition is a picture with values in
    0...1, or one per generated picture, resized to their size.

    The side network runs around the base's own layers. It follows the weights that the base has at
    the time of the call: those of a fine-tuned or merged file, or ones changed in place. Adapters
    that the base wears, such as a LoRA, do not reach it, so that no adapter depends on another.

    Args:
        rank: For an untrained adapter, the rank of the changes; None reads the settings of the
            variant, and without them is 128.
        options: The arguments of every side network.

    Example:
        >>> ControlLora(name="control-lora-canny").takes_condition
        True
    """

    def __init__(self, *, rank: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.rank: Final = rank

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Builds the changes in the sizes of the model's UNet and loads them.

        Raises:
            WeightsError: The file is not a Control-LoRA for a UNet of these sizes.
        """
        self._follow_settings(source)
        unet = model.unet
        names: dict[str, Any] = {
            "features": self.features_key,
            "weights": self.weights_key,
            "is_pooled": self.is_pooled,
        }
        if source is None or "weights" not in source.files:
            levels = len(model.autoencoder.config.channels)
            channels = self._channels(source) or RELEASED_CHANNELS[:levels]
            stated = source.settings.get("rank") if source else None
            with built_on(unet.device):
                changes = untrained_changes(unet, self.rank or stated or RANK)
                parts = LowRankControl(unet.config, channels, changes, **names)
            self.parts = parts.to(unet.dtype)
            return
        tensors = read(source.files["weights"])
        self._check(tensors, unet.config)
        channels = condition_channels(tensors)
        keys = ldm_control_keys(unet.config, len(channels))
        with built_on("meta"):
            changes, rest = read_changes(unet, tensors, keys)
            control = LowRankControl(unet.config, channels, changes, **names)
        load(control.own_parts(), rest, keys, dtype=unet.dtype, device=unet.device)
        self.parts = control.requires_grad_(False)

    def pixels(self, value: Any, size: tuple[int, int]) -> Float[Tensor, "count 3 height width"]:
        """Returns the picture in 0...1, resized."""
        return to_pixels(value, size)

    def _check(self, tensors: Mapping[str, Tensor], config: Any) -> None:
        """Checks that tensors are those of a Control-LoRA for this family of models.

        Raises:
            WeightsError: The tensors are of another kind or family, or not finite.
        """
        if MARKER not in tensors:
            examples = ", ".join(sorted(tensors)[:3]) or "nothing"
            raise WeightsError(
                f"these are not the weights of a Control-LoRA: no {MARKER!r}, but {examples}, for "
                "example.",
                hint="Give a file such as control-lora-canny-rank256.safetensors.",
            )
        check_text_width(tensors, config)
        check_finite_weights(tensors)
