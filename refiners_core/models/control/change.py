"""Changes of single layers, which run around the base's own weights."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as f

from refiners_core.errors import AdapterError
from refiners_core.tree.chain import Chain


class LayerChange(nn.Module):
    """The changes of one layer: replaced tensors, added tensors, and a low-rank term.

    Args:
        replaced: Tensors that replace the layer's, by name, such as `bias`.
        added: Tensors that are added to the layer's, by name.
        low_rank: The layers down to the rank and up again; their output is added to the layer's.
    """

    def __init__(
        self,
        replaced: Mapping[str, Tensor] | None = None,
        added: Mapping[str, Tensor] | None = None,
        low_rank: Chain | None = None,
    ) -> None:
        super().__init__()
        self.replaced = _parameters(replaced or {})
        self.added = _parameters(added or {})
        self.low_rank = low_rank


class ChangedLayer(nn.Module):
    """Runs a layer of the base with changes, from its weights at the time of the call.

    The layer itself is neither copied nor altered. A convolution of more input channels than the
    changes have, such as an inpainting UNet's first, is read on its first channels.

    Args:
        layer: The layer of the base: linear, a convolution, a group norm or a layer norm.
        change: The changes, which the adapter owns.

    Raises:
        AdapterError: The layer is of another kind, such as a quantised one.
    """

    def __init__(self, layer: nn.Module, change: LayerChange) -> None:
        super().__init__()
        if not isinstance(layer, nn.Linear | nn.Conv2d | nn.GroupNorm | nn.LayerNorm):
            raise AdapterError(
                f"the base has a {type(layer).__name__} where a side network changes weights.",
                hint="Load the base with its plain weights.",
            )
        self.layer = layer
        self.change = change

    def forward(self, x: Float[Tensor, "rows *shape"]) -> Float[Tensor, "rows *other_shape"]:
        """Returns the output of the changed layer."""
        layer, change = self.layer, self.change
        weight, bias = (self._tensor(name) for name in ("weight", "bias"))
        if isinstance(layer, nn.GroupNorm):
            return f.group_norm(x, layer.num_groups, weight, bias, layer.eps)
        if isinstance(layer, nn.LayerNorm):
            return f.layer_norm(x, layer.normalized_shape, weight, bias, layer.eps)
        assert weight is not None, "linear layers and convolutions have weights"
        if isinstance(layer, nn.Linear):
            y = f.linear(x, weight, bias)
        else:
            weight = weight[:, : x.shape[1]]
            y = f.conv2d(
                x,
                weight,
                bias,
                layer.stride,
                layer.padding,
                layer.dilation,
                layer.groups,  # pyright: ignore[reportArgumentType]
            )
        return y if change.low_rank is None else y + change.low_rank(x)

    def _tensor(self, name: str) -> Tensor | None:
        if name in self.change.replaced:
            return self.change.replaced[name]
        tensor: Tensor | None = getattr(self.layer, name)
        if tensor is None or name not in self.change.added:
            return tensor
        change = self.change.added[name]
        return tensor[:, : change.shape[1]] + change if tensor.ndim > 1 else tensor + change


def _parameters(tensors: Mapping[str, Tensor]) -> nn.ParameterDict:
    return nn.ParameterDict(
        {name: nn.Parameter(tensor, requires_grad=False) for name, tensor in tensors.items()}
    )
