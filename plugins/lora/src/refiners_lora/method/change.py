"""The change of one layer: what all methods have in common."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple, Self

from torch import Tensor, nn
from torch.nn import functional as F

from refiners_core import Context, Layer, Seat

Tensors = Mapping[str, Tensor]
"""The weights that a file holds for one layer, by their roles, such as `down`."""
Sizes = tuple[int, ...]
"""The features of a layer: out, in, and a convolution's kernel unless it is 1x1."""


class Operation(NamedTuple):
    """The way in which a linear layer or a convolution applies a weight."""

    shape: Sizes
    """The shape of the weight."""
    options: Mapping[str, Any]
    """Stride, padding and so on of a convolution; empty for a linear layer."""
    mode: str = "zeros"
    """The values around the feature map, as `padding_mode` names them."""

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """Applies a weight of this shape to features, without a bias.

        A convolution reads the first channels of the feature map if the weight has fewer.
        """
        if len(self.shape) == 2:
            return F.linear(x, weight)
        x = x[:, : self.shape[1]]
        options = dict(self.options)
        if self.mode != "zeros":
            height, width = options.pop("padding")
            x = F.pad(x, (width, width, height, height), mode=self.mode)
        return F.conv2d(x, weight, **options)


def operation(seat: Seat, channels: int | None = None) -> Operation:
    """Returns the way in which the layer of a seat applies its weight.

    Args:
        seat: The place of a linear layer or a convolution.
        channels: The number of input channels that a change reads, from the first; all by default.
    """
    facts = seat.facts
    if not seat.is_a(nn.Conv2d):
        return Operation((facts["out_features"], facts["in_features"]), {})
    options = {name: facts[name] for name in ("stride", "padding", "dilation", "groups")}
    inputs = facts["in_channels"] // facts["groups"] if channels is None else channels
    shape = (facts["out_channels"], inputs, *facts["kernel_size"])
    return Operation(shape, options, facts["padding_mode"])


def plain(shape: Sizes) -> Sizes:
    """Returns the shape of a weight without a kernel of 1x1."""
    return shape[:2] if shape[2:] == (1, 1) else tuple(shape)


class Change(Layer):
    """The change of one layer, in the form in which a method publishes it.

    A subclass is one method. Its parameters have the roles of the published weights. `run` returns
    what is added to the output of the layer.
    """

    title: ClassVar[str] = ""
    """The method in words, such as `a LoHa`."""
    marks: ClassVar[frozenset[str]] = frozenset()
    """The roles by which a file of the method is known."""
    needs: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """The roles that a file must have: of each tuple one, the first of which errors name."""
    may: ClassVar[frozenset[str]] = frozenset()
    """The roles that a file may have beside those of `marks`."""
    kinds: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear, nn.Conv2d)
    """The layers that the method changes."""
    needs_base: ClassVar[bool] = False
    """Whether `run` and `delta` read the weight and the bias of the base layer."""
    has_rows_first: ClassVar[bool] = False
    """Whether the sizes of an embedding are its rows, then its features, as its weight has them."""
    reads_base: ClassVar[bool] = False
    """Whether `of` reads the weights of the base layer, as a stored value becomes a difference."""
    is_linear: bool = True
    """Whether the strength multiplies the output of `run`; otherwise `run` reads it itself."""
    rank: int | None = None
    """The rank; None for a method without one."""
    alpha: float = 0.0
    """The strength that the file gives, as it is saved."""

    @classmethod
    def fault(cls, tensors: Tensors) -> str:
        """Returns why the weights do not belong together, in words; empty if they do."""
        del tensors
        return ""

    @classmethod
    def sizes(cls, tensors: Tensors) -> tuple[list[int] | None, list[int] | None]:
        """Returns the input and output sizes of the layers that the weights are for.

        Returns:
            Channels with the kernel unless it is 1x1, or their product if the weights do not tell
            them apart; and the output features. None where the weights do not say.
        """
        raise NotImplementedError

    @classmethod
    def fits(cls, tensors: Tensors, sizes: Sizes) -> bool:
        """Whether the weights are for a layer of these sizes."""
        inputs, outputs = cls.sizes(tensors)
        product = [*sizes[1:2]]
        for side in sizes[2:]:
            product[0] *= side
        return inputs in (None, [*sizes[1:]], product) and outputs in (None, [sizes[0]])

    @classmethod
    def rank_of(cls, tensors: Tensors) -> int | None:
        """Returns the rank; None if the method has none, or if it cannot be known."""
        del tensors
        return None

    @classmethod
    def of(cls, seat: Seat, tensors: Tensors, alpha: float | None) -> Self:
        """Builds the change of a layer.

        Args:
            seat: The place of the layer.
            tensors: The weights, which fit it.
            alpha: The strength before division by the rank; None if the file does not give one.
        """
        raise NotImplementedError

    def delta(self, weight: Tensor, bias: Tensor | None = None) -> Mapping[str, Tensor]:
        """Returns the change of each parameter of the layer at full strength, in float32.

        Args:
            weight: The weight of the base layer.
            bias: Its bias.
        """
        raise NotImplementedError

    def merged(self, weight: Tensor, bias: Tensor | None, strength: float) -> Mapping[str, Tensor]:
        """Returns the change of each parameter of the layer at a strength, new and in float32."""
        return {name: part * strength for name, part in self.delta(weight, bias).items()}

    def fused(self, weight: Tensor, strength: float) -> Tensor | None:
        """Returns a weight with the change added, where that is faster than adding the result of
        `merged`; None elsewhere.

        Args:
            weight: The weight of the layer, with the changes of other adapters.
            strength: The strength.
        """
        del weight, strength
        return None

    def published(self) -> Mapping[str, Tensor]:
        """Returns the weights by their published roles, without a change of the bias beside."""
        return {role: part for role, part in self.named_parameters() if role != "offset"}

    @property
    def offset(self) -> Tensor | None:
        """The change of the bias that a file holds beside that of the weight, (out,)."""
        return self._parameters.get("offset")

    def with_offset(self, offset: Tensor | None) -> Self:
        """Adds a change of the bias and returns the change."""
        if offset is not None:
            self._parameters["offset"] = nn.Parameter(offset)
        return self

    def extra_repr(self) -> str:
        return f"rank={self.rank}, alpha={self.alpha:g}" if self.rank else ""


class Dense(Change):
    """A change whose weight is built in the shape of the layer's weight at every call.

    Args:
        apply: The way in which the layer applies its weight.
        tensors: The published weights by their roles.
        rank: The rank.
        alpha: The strength in the file; it is divided by the rank.
    """

    def __init__(
        self, apply: Operation, tensors: Tensors, rank: int | None, alpha: float | None
    ) -> None:
        super().__init__()
        self.apply_weight: Final = apply
        self.rank = rank
        self.alpha = float((rank or 1) if alpha is None else alpha)
        self.factor: Final = self.alpha / (rank or 1)
        for role, tensor in tensors.items():
            is_trainable = tensor.is_floating_point()
            self.register_parameter(role, nn.Parameter(tensor, is_trainable))

    @classmethod
    def of(cls, seat: Seat, tensors: Tensors, alpha: float | None) -> Self:
        inputs, _ = cls.sizes(tensors)
        whole = operation(seat)
        channels = changed_channels(inputs, whole.shape)
        return cls(operation(seat, channels), tensors, cls.rank_of(tensors), alpha)

    def weight_delta(self, weight: Tensor) -> Tensor:
        """Returns the change of the weight at full strength, in the dtype of the parameters.

        Args:
            weight: The weight of the base layer, as many input channels of it as are changed.
        """
        raise NotImplementedError

    def delta(self, weight: Tensor, bias: Tensor | None = None) -> Mapping[str, Tensor]:
        whole, channels = weight.float(), self.apply_weight.shape[1]
        change = self.weight_delta(whole[:, :channels]).float()
        return {"weight": widened(change, whole)}

    def run(self, context: Context, *inputs: Any) -> Tensor:
        weight = inputs[1][:, : self.apply_weight.shape[1]] if self.needs_base else inputs[0]
        return self.apply_weight(inputs[0], self.weight_delta(weight).to(inputs[0].dtype))

    def role(self, name: str) -> Tensor | None:
        """Returns the weight of a role in float32; None if the file does not have it."""
        weight = self._parameters.get(name)
        return None if weight is None else weight.float()

    def known(self, name: str) -> Tensor:
        """Returns the weight of a role that the file has, in float32."""
        return self._parameters[name].float()  # pyright: ignore[reportOptionalMemberAccess]


def widened(change: Tensor, weight: Tensor) -> Tensor:
    """Returns a change with zeros for the input channels that it does not read."""
    missing = weight.shape[1] - change.shape[1] if weight.ndim > 1 else 0
    return F.pad(change, (*(0, 0) * (change.ndim - 2), 0, missing)) if missing else change


def changed_channels(inputs: list[int] | None, shape: Sizes) -> int | None:
    """Returns the number of channels that a change reads, if it is less than the layer has.

    Args:
        inputs: The input sizes of the change, as `Change.sizes` returns them.
        shape: The shape of the layer's weight.
    """
    if inputs is None or len(shape) == 2:
        return None
    kernel = 1
    for side in shape[2:]:
        kernel *= side
    channels = inputs[0] // (kernel if len(inputs) == 1 and len(shape) == 4 else 1)
    return channels if channels < shape[1] else None
