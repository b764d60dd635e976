"""ControlNets that are published as differences from the UNet that they were trained beside."""

from collections.abc import Mapping

from torch import Tensor

from refiners_core.models.control.change import LayerChange
from refiners_core.models.control.checkpoint import DIFFERENCE, ControlFile
from refiners_core.models.control.shared import (
    SharedControl,
    network_path,
    shape_of_change,
    shared_layers,
)
from refiners_core.models.device import built_on
from refiners_core.models.unet import UNet
from refiners_core.weights import MisfitError, load


class DifferenceControl(SharedControl):
    """A side network that adds a published difference to each weight of the UNet's way down."""

    file: ControlFile
    """The file without its tensors."""

    def published(self) -> Mapping[str, Tensor]:
        """Returns the differences, encoder and outputs in the layout of the file."""
        keys = self.file.keys
        tensors = self.published_parts(keys)
        for path, change in self.changed_layers():
            for name, tensor in change.added.items():
                tensors[keys.published(f"{network_path(path)}.{name}")] = tensor.detach()
        return {**tensors, DIFFERENCE: next(iter(tensors.values())).new_zeros(0)}


def build_difference(
    unet: UNet,
    file: ControlFile,
    *,
    features: str,
    scale: str | None = None,
    text: str,
    weights: str,
    is_pooled: bool,
) -> DifferenceControl:
    """Builds the side network of a file of differences.

    Args:
        unet: The UNet to whose weights the differences are added.
        file: The file.
        features: The context key of the encoded image.
        scale: The context key by which the network multiplies its outputs, if it does.
        text: The context key of the tokens to which the network attends instead of `text`.
        weights: The context key of the weights of outputs.
        is_pooled: Whether each output is the mean over all positions.

    Raises:
        MisfitError: Names or shapes of the tensors are not those of the UNet.
    """
    rest, missing = dict(file.tensors), list[str]()
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    changes: dict[str, LayerChange] = {}
    for path, layer in shared_layers(unet):
        added: dict[str, Tensor] = {}
        for name, tensor in layer.named_parameters(recurse=False):
            key = file.keys.published(f"{network_path(path)}.{name}")
            shape = shape_of_change(tensor, path, unet)
            if key not in rest:
                missing.append(key)
            elif (difference := rest.pop(key)).shape != shape:
                misshapen[key] = tuple(difference.shape), shape
            else:
                added[name] = difference.to(unet.device, unet.dtype)
        changes[path] = LayerChange(added=added)
    if missing or misshapen:
        title = f"{len(file.tensors)} differences for {type(unet).__name__}"
        raise MisfitError(title, tuple(missing), (), misshapen)
    with built_on("meta"):
        control = DifferenceControl(
            unet.config,
            file.channels,
            changes,
            features=features,
            scale=scale,
            text=text,
            weights=weights,
            is_pooled=is_pooled,
        )
    load(control.own_parts(), rest, file.keys, dtype=unet.dtype, device=unet.device)
    control.file = file.without_tensors()
    return control.requires_grad_(False)
