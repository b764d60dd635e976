"""PEFT's OFT and BOFT: rotations of the inputs of a layer (arXiv:2306.07280, arXiv:2311.06243)."""

from typing import Any, ClassVar, Final, Self

import torch
from torch import Tensor

from refiners_core import Context, Seat
from refiners_lora.method.change import Dense, Operation, Sizes, Tensors, operation


class InputRotation(Dense):
    """Rotates blocks of input features, in stages: the weight becomes `rescale * W R^T`.

    `input_rotation` is (stages, blocks, size, size): the rotations R_0, R_1, ... whose product is
    R = ... R_1 R_0, and which multiply features from the right. A single block stands for as many
    as the layer has. From the second stage on, the features are put in another order before the
    rotation and back afterwards: in each group of `2**(stage + 1)` halves of blocks, those of the
    first half of the group alternate with those of the second. `rescale`, (out,), multiplies
    outputs without their bias. The strength multiplies the change. The inputs of a convolution are
    its channels with the kernel.
    """

    title = "a rotation of inputs"
    marks: ClassVar = frozenset({"input_rotation", "oft_R", "boft_R", "boft_s"})
    needs: ClassVar = (("boft_R", "input_rotation"),)
    may: ClassVar = frozenset({"rescale"})
    needs_base: ClassVar = True

    def __init__(self, apply: Operation, tensors: Tensors) -> None:
        super().__init__(apply, tensors, None, None)
        self.is_matrix: Final = len(apply.shape) == 2

    @classmethod
    def of(cls, seat: Seat, tensors: Tensors, alpha: float | None) -> Self:
        return cls(operation(seat), tensors)

    @classmethod
    def fault(cls, tensors: Tensors) -> str:
        rotation = tensors["input_rotation"]
        stages, blocks, size = rotation.shape[:3]
        if stages > 1 and (size % 2 or blocks % 2 ** (stages - 1)):
            return f"are {stages} stages, which {blocks} blocks of {size} cannot have"
        return ""

    @classmethod
    def sizes(cls, tensors: Tensors) -> tuple[list[int] | None, list[int] | None]:
        _, blocks, size, _ = tensors["input_rotation"].shape
        rescale = tensors.get("rescale")
        inputs = None if blocks == 1 else [blocks * size]
        return inputs, None if rescale is None else [rescale.numel()]

    @classmethod
    def fits(cls, tensors: Tensors, sizes: Sizes) -> bool:
        _, blocks, size, _ = tensors["input_rotation"].shape
        inputs = torch.Size(sizes[1:]).numel()
        count = inputs // size if blocks == 1 else blocks
        rescale = tensors.get("rescale")
        return count * size == inputs and (rescale is None or rescale.numel() == sizes[0])

    def weight_delta(self, weight: Tensor) -> Tensor:
        rows = weight.float().flatten(1)
        rotated = self.rotated(rows, backwards=True)
        rescale = self.role("rescale")
        if rescale is not None:
            rotated = rotated * rescale.view(-1, 1)
        return (rotated - rows).view_as(weight)

    def run(self, context: Context, *inputs: Any) -> Tensor:
        """Rotates the features of a linear layer; a convolution gets the changed weight."""
        if not self.is_matrix:
            return super().run(context, *inputs)
        x, weight = inputs[:2]
        rotated = self.apply_weight(self.rotated(x.float()).to(x.dtype), weight)
        rescale = self.role("rescale")
        if rescale is not None:
            rotated = rotated * rescale.to(x.dtype)
        return rotated - self.apply_weight(x, weight)

    def rotated(self, rows: Tensor, *, backwards: bool = False) -> Tensor:
        """Returns features times R, or times its transpose.

        Args:
            rows: Features on the last axis, in float32.
            backwards: Whether they are multiplied by the transpose.
        """
        stages = [*enumerate(self.known("input_rotation"))]
        for stage, blocks in stages if backwards else reversed(stages):
            size = blocks.shape[-1]
            blocks = blocks.mT if backwards else blocks
            parts = _mixed(rows, stage, size).unflatten(-1, (-1, size)).movedim(-2, 0)
            turned = torch.einsum("n...k,nkm->n...m", parts, blocks.expand(len(parts), -1, -1))
            rows = _unmixed(turned.movedim(0, -2).flatten(-2), stage, size)
        return rows

    def extra_repr(self) -> str:
        return f"blocks={[*self.known('input_rotation').shape[:-1]]}"


def _mixed(rows: Tensor, stage: int, size: int) -> Tensor:
    """Alternates the halves of blocks of the first and the second half of each group."""
    if stage == 0:
        return rows
    halves = rows.unflatten(-1, (-1, 2, 2**stage, size // 2))
    return halves.transpose(-2, -3).flatten(-4)


def _unmixed(rows: Tensor, stage: int, size: int) -> Tensor:
    """Puts the halves of blocks back where `_mixed` took them from."""
    if stage == 0:
        return rows
    halves = rows.unflatten(-1, (-1, 2**stage, 2, size // 2))
    return halves.transpose(-2, -3).flatten(-4)
