"""A convolution that stays fast on small feature maps."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, pad

_MANY_FILTERS = 200_000


class Convolution(nn.Conv2d):
    """A 3x3 convolution; for a small feature map on the CPU, one matrix product.

    The convolution backend (oneDNN) reorders the weights at every call. At the small end of a UNet,
    with many weights and few positions, this takes longer than the convolution itself. The windows
    of a small map form the columns of a small matrix, which the weights multiply without being
    reordered. Both ways compute the same sums in another order. Compiled and exported programs
    always contain the plain convolution.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: The distance between windows, in positions of the input.
        padding: The number of zeros added on each side of the input.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, padding: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, 3, stride, padding)

    def forward(
        self, input: Float[Tensor, "rows in_channels height width"]
    ) -> Float[Tensor, "rows out_channels new_height new_width"]:
        """Convolves a feature map."""
        filters = self.in_channels * self.out_channels
        # Measured by `benchmarks/forward.py`: the product wins with many filters, of 9 weights
        # each, and at most half as many positions as output channels.
        if (
            filters >= _MANY_FILTERS
            and not torch.compiler.is_compiling()  # first: no graph depends on the size
            and 2 * input.numel() <= filters
            and input.is_cpu
            and input.dtype is torch.float32
            and input.ndim == 4
            and input.shape[1] == self.in_channels  # otherwise torch raises its error
        ):
            return self._product(input)
        return super().forward(input)

    def _product(self, x: Tensor) -> Tensor:
        padding, stride = self.padding[0], self.stride[0]
        assert isinstance(padding, int)  # torch also accepts strings
        windows = pad(x, (padding,) * 4).unfold(2, 3, stride).unfold(3, 3, stride)
        rows, _, height, width, _, _ = windows.shape
        columns = windows.permute(1, 4, 5, 0, 2, 3).reshape(9 * x.shape[1], -1)
        y = linear(columns.T, self.weight.flatten(1), self.bias)
        return y.T.unflatten(1, (rows, height, width)).transpose(0, 1).contiguous()
