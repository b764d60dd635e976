"""The convolution of the playground's readers."""

from torch import nn


class Convolution(nn.Sequential):
    """A convolution of 3 x 3, normalised over the batch and rectified."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
