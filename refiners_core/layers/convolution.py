"""Convolutions that stay quick on small maps."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, pad

_MANY_FILTERS = 200_000


class Convolution(nn.Conv2d):
    """A 3x3 convolution; on the CPU, where a map is small, one product of matrices.

    The backend of convolutions (oneDNN) writes the weights out in another order at every call. At
    the small end of a UNet the weights are many and the positions few, and this takes longer than
    the convolution itself. The windows of a small map as columns are a small matrix, which the
    weights multiply as they lie. Both ways compute the same sums, in another order. What is
    compiled or exported is always the plain convolution.

    Args:
        in_channels: Channels of the map that comes in.
        out_channels: Channels of the map that goes out.
        stride: Every how many positions of the map a window lies.
        padding: How many zeros surround the map on each side.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, padding: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, 3, stride, padding)

    def forward(
        self, input: Float[Tensor, "rows in_channels height width"]
    ) -> Float[Tensor, "rows out_channels new_height new_width"]:
        """Convolves the map."""
        filters = self.in_channels * self.out_channels
        # What `benchmarks/forward.py` finds: there must be many filters, of 9 weights each, and at
        # most half as many positions as channels that go out.
        if (
            filters >= _MANY_FILTERS
            and not torch.compiler.is_compiling()  # first: no graph depends on the size
            and 2 * input.numel() <= filters
            and input.is_cpu
            and input.dtype is torch.float32
            and input.ndim == 4
            and input.shape[1] == self.in_channels  # of anything else, torch tells what is wrong
        ):
            return self._product(input)
        return super().forward(input)

    def _product(self, x: Tensor) -> Tensor:
        padding, stride = self.padding[0], self.stride[0]
        assert isinstance(padding, int)  # torch takes words as well
        windows = pad(x, (padding,) * 4).unfold(2, 3, stride).unfold(3, 3, stride)
        rows, _, height, width, _, _ = windows.shape
        columns = windows.permute(1, 4, 5, 0, 2, 3).reshape(9 * x.shape[1], -1)
        y = linear(columns.T, self.weight.flatten(1), self.bias)
        return y.T.unflatten(1, (rows, height, width)).transpose(0, 1).contiguous()
