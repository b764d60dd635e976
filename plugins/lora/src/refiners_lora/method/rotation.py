"""OFT and BOFT: rotations of the outputs of a layer (arXiv:2306.07280, arXiv:2311.06243)."""

from typing import Any, ClassVar, Final, Self

import torch
from torch import Tensor

from refiners_core import Context, Seat
from refiners_lora.method.change import Dense, Operation, Tensors, operation

_TINY: Final = 1e-8


class Rotation(Dense):
    """Rotates blocks of output features: `rescale * R^T W - W` for each block (OFT).

    `oft_blocks`, (blocks, size, size), are rotations by Cayley's map of their skew part, whose norm
    over all blocks is limited to `alpha * out`, if alpha is positive. `oft_diag` holds the
    rotations themselves. The transpose is that of kohya's trainer and LyCORIS.
    """

    title = "an OFT"
    marks: ClassVar = frozenset({"oft_blocks", "oft_diag"})
    needs: ClassVar = (("oft_blocks", "oft_diag"),)
    may: ClassVar = frozenset({"rescale"})
    needs_base: ClassVar = True

    def __init__(self, apply: Operation, tensors: Tensors, alpha: float | None) -> None:
        super().__init__(apply, tensors, None, alpha or 0.0)
        self.limit: Final = self.alpha * apply.shape[0]

    @classmethod
    def of(cls, seat: Seat, tensors: Tensors, alpha: float | None) -> Self:
        return cls(operation(seat), tensors, alpha)

    @classmethod
    def fault(cls, tensors: Tensors) -> str:
        blocks, rescale = _blocks(tensors), tensors.get("rescale")
        if blocks.ndim not in (3, 4) or blocks.shape[-1] != blocks.shape[-2]:
            return f"are not square blocks: {[*blocks.shape]}"
        if rescale is not None and rescale.numel() != blocks.shape[-3] * blocks.shape[-1]:
            return f"differ in size: the blocks are {[*blocks.shape]}, rescale {[*rescale.shape]}"
        return ""

    @classmethod
    def sizes(cls, tensors: Tensors) -> tuple[list[int] | None, list[int] | None]:
        blocks = _blocks(tensors)
        return None, [blocks.shape[-3] * blocks.shape[-1]]

    def weight_delta(self, weight: Tensor) -> Tensor:
        return self.rotated(weight, 0) - weight

    def run(self, context: Context, *inputs: Any) -> Tensor:
        """Rotates what the weight alone makes of the features: the product with R is cheap."""
        x, weight = inputs[:2]
        axis = 1 if len(self.apply_weight.shape) == 4 else -1
        outputs = self.apply_weight(x, weight)
        return self.rotated(outputs, axis).to(x.dtype) - outputs

    def rotated(self, x: Tensor, axis: int) -> Tensor:
        """Returns features after rotation and rescaling along an axis, in float32."""
        rows = x.float().movedim(axis, -1)
        rotation = self.rotations()
        parts = rows.unflatten(-1, rotation.shape[:2])
        turned = torch.einsum("...kn,knm->...km", parts, rotation).flatten(-2)
        return self.rescaled(turned).movedim(-1, axis)

    def rescaled(self, rows: Tensor) -> Tensor:
        """Multiplies each of the features on the last axis by its published factor."""
        rescale = self.role("rescale")
        return rows if rescale is None else rows * rescale.flatten()

    def rotations(self) -> Tensor:
        """Returns a rotation for each block, (..., size, size), in float32."""
        whole = self.role("oft_diag")
        return cayley(self.known("oft_blocks"), self.limit) if whole is None else whole

    def extra_repr(self) -> str:
        return f"blocks={[*_blocks(dict(self.named_parameters())).shape[:-1]]}"


class Butterfly(Rotation):
    """Rotates output features in stages, each over blocks further apart (BOFT).

    `oft_blocks` is (stages, blocks, size, size). The strength moves each stage towards the
    identity, as in LyCORIS, so the effect is not proportional to it.
    """

    title = "a BOFT"
    marks: ClassVar = frozenset({"oft_blocks"})
    is_linear = False

    def run(self, context: Context, *inputs: Any) -> Tensor:
        x, weight, _, strength = inputs
        axis = 1 if len(self.apply_weight.shape) == 4 else -1
        outputs = self.apply_weight(x, weight)
        if isinstance(strength, Tensor) and strength.ndim:
            strength = strength.float().movedim(axis, -1)
        return self.staged(outputs, axis, strength).to(x.dtype) - outputs

    def rotated(self, x: Tensor, axis: int) -> Tensor:
        return self.staged(x, axis, 1.0)

    def staged(self, x: Tensor, axis: int, strength: Tensor | float) -> Tensor:
        """Returns features after all stages along an axis, in float32.

        Args:
            x: The features.
            axis: Their axis.
            strength: The share of each rotation: a number, or one that broadcasts to the features
                with the axis moved to the end.
        """
        rows = x.float().movedim(axis, -1)
        for stage, rotation in enumerate(self.rotations()):
            width = 2**stage * rotation.shape[-1] // 2
            turned = rows.unflatten(-1, (-1, 2, width)).transpose(-1, -2).flatten(-3)
            parts = turned.unflatten(-1, rotation.shape[:2])
            turned = torch.einsum("...kj,kij->...ki", parts, rotation).flatten(-2)
            turned = turned.unflatten(-1, (-1, width, 2)).transpose(-1, -2).flatten(-3)
            rows = rows + strength * (turned - rows)
        return self.rescaled(rows).movedim(-1, axis)

    def merged(self, weight: Tensor, bias: Tensor | None, strength: float) -> dict[str, Tensor]:
        return {"weight": self.staged(weight, 0, strength) - weight.float()}


def cayley(blocks: Tensor, limit: float) -> Tensor:
    """Returns the rotations `(I + Q)(I - Q)^-1` of the skew parts Q of square blocks.

    Args:
        blocks: (..., size, size), in float32.
        limit: The greatest norm of Q over all blocks together; 0 for none.
    """
    skew = blocks - blocks.transpose(-1, -2)
    if limit > 0:
        norm = skew.norm() + _TINY
        skew = skew * torch.clamp(limit / norm, max=1)
    identity = torch.eye(skew.shape[-1], device=skew.device)
    # (I + Q)(I - Q)^-1 = (I - Q)^-1 (I + Q): both are functions of Q.
    return torch.linalg.solve(identity - skew, identity + skew)


def _blocks(tensors: Tensors) -> Tensor:
    return tensors["oft_blocks"] if "oft_blocks" in tensors else tensors["oft_diag"]
