"""VeRA: random matrices that all layers share, scaled by learned vectors."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from refiners_core.errors import WeightsError
from refiners_peft.change import LayerChanges, Target, check_length
from refiners_peft.field import number_in
from refiners_peft.peft_file import PeftFile

_A, _B = "base_model.vera_A", "base_model.vera_B"


class Vera(LayerChanges):
    """Adds `b * B (d * A x)` to linear layers (arXiv:2310.11454, equation 2).

    `A` and `B` are random and shared by all layers, which take their first columns and rows; `d`
    and `b` are learned vectors of each layer. A file without the matrices has the seed from which
    they are drawn again.

    Args:
        options: The arguments of every adapter: `weights`, `name`, `key`.
    """

    method: ClassVar[str] = "VERA"
    slots: ClassVar[tuple[str, ...]] = ("decoder.linear", "decoder.head")
    roles: ClassVar[tuple[str, ...]] = ("vera_lambda_d", "vera_lambda_b")
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"(?P<layer>.+)\.(?P<role>vera_lambda_[bd])(\.[^.]+)?"
    )
    shared: ClassVar[frozenset[str]] = frozenset((_A, _B))

    def changes(self, file: PeftFile, layers: Mapping[Target, Mapping[str, Tensor]]) -> None:
        """Builds a change for each place, with the matrices that all share."""
        rank = len(next(iter(layers.values()))["vera_lambda_d"])
        inputs = max(target.inputs for target in layers)
        outputs = max(target.outputs for target in layers)
        matrices = _matrices(file, rank, inputs, outputs)
        for target, tensors in layers.items():
            d, b = (tensors[role] for role in self.roles)
            check_length(file, target, "vera_lambda_d", d, rank)
            check_length(file, target, "vera_lambda_b", b, target.outputs)
            vectors = nn.Parameter(d.clone()), nn.Parameter(b.clone())
            for seat, rows in target.shares:
                self.layer(seat, partial(VeraChange, matrices, *vectors, target.inputs, rows))

    def merged(self, change: Any, base: nn.Module) -> Mapping[str, Tensor]:
        return {"weight": change.weight()}

    def stored(self, change: Any) -> Mapping[str, Tensor]:
        return {"vera_lambda_d": change.d, "vera_lambda_b": change.b}

    def published(self) -> Mapping[str, Tensor]:
        """Returns the tensors under PEFT's names; the matrices if the file had them."""
        change: Any = next(iter(self.own_layers.children()), None)
        tensors = dict(super().published())
        if change is not None and (self.config or {}).get("save_projection", True):
            tensors |= {_A: change.matrices.a, _B: change.matrices.b}
        return tensors


class Matrices(nn.Module):
    """The random matrices of all layers.

    Args:
        a: (rank, inputs of the widest layer).
        b: (outputs of the widest layer, rank).
    """

    def __init__(self, a: Tensor, b: Tensor) -> None:
        super().__init__()
        self.register_buffer("a", a)
        self.register_buffer("b", b)

    def extra_repr(self) -> str:
        return f"rank={len(self.a)}"  # pyright: ignore[reportArgumentType]  a buffer


class VeraChange(nn.Module):
    """Computes `b * B (d * A x)`.

    Args:
        matrices: The random matrices, shared with other layers.
        d: The learned factors between the matrices, (rank).
        b: The learned factors of the outputs of the published layer, (outputs).
        inputs: The features that the layer takes.
        rows: The outputs of the published layer that this layer has.
    """

    def __init__(
        self, matrices: Matrices, d: nn.Parameter, b: nn.Parameter, inputs: int, rows: slice
    ) -> None:
        super().__init__()
        self.matrices, self.d, self.b = matrices, d, b
        self.inputs: Final = inputs
        self.rows: Final = rows

    def forward(self, x: Float[Tensor, "*any inputs"]) -> Float[Tensor, "*any outputs"]:
        """Returns the change of the outputs."""
        a, b = self._parts()
        return linear(linear(x, a) * self.d, b) * self.b[self.rows]

    def weight(self) -> Float[Tensor, "outputs inputs"]:
        """Returns the change of the weight."""
        a, b = (part.float() for part in self._parts())
        return (self.b[self.rows, None].float() * b) @ (self.d[:, None].float() * a)

    def _parts(self) -> tuple[Tensor, Tensor]:
        a: Any = self.matrices.a
        b: Any = self.matrices.b
        return a[:, : self.inputs], b[self.rows]


def _matrices(file: PeftFile, rank: int, inputs: int, outputs: int) -> Matrices:
    """Returns the matrices of a file, or draws them again as PEFT does."""
    is_stored = file.config.get("save_projection", True)
    present = [name for name in (_A, _B) if name in file.tensors]
    if is_stored and len(present) < 2:
        raise WeightsError(
            f"{file.name} has no {_B if _A in present else _A}, though its "
            "configuration has save_projection = true.",
            hint="Fetch it again, or save it again from PEFT.",
        )
    if not is_stored:
        generator = torch.Generator("cpu")
        generator.manual_seed(number_in(file.name, file.config, "projection_prng_key"))
        return Matrices(*(_drawn(size, generator) for size in ((rank, inputs), (outputs, rank))))
    a, b = file.tensors[_A], file.tensors[_B]
    is_fitting = a.ndim == b.ndim == 2 and len(a) == b.shape[1] == rank
    if not is_fitting or a.shape[1] < inputs or len(b) < outputs:
        raise WeightsError(
            f"{file.name} has vera_A {list(a.shape)} and vera_B {list(b.shape)}; rank {rank} in "
            f"this model needs [{rank}, {inputs}] and [{outputs}, {rank}].{file.origin}",
            hint="Give an adapter that was trained on this model.",
        )
    return Matrices(a.clone(), b.clone())


def _drawn(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draws a matrix by Kaiming's uniform rule (arXiv:1502.01852) with a gain of root 2."""
    matrix = torch.empty(size, dtype=torch.float32, device="cpu")
    bound = (6 / size[1]) ** 0.5
    return matrix.uniform_(-bound, bound, generator=generator)
