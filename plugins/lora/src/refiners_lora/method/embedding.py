"""LoRA of an embedding: a low-rank update of each token's row."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import Tensor, nn
from torch.nn import functional as F

from refiners_core import Context, Seat
from refiners_lora.method.change import Change, Tensors


class EmbeddingRank(Change):
    """Computes `alpha / rank * up(down[token])` for each token.

    `lora_embedding_A` is (rank, tokens) and `lora_embedding_B` (width, rank), as in PEFT.

    Args:
        tensors: The published weights by their roles.
        alpha: The strength in the file; it is divided by the rank.
    """

    title = "a LoRA of token embeddings"
    marks: ClassVar = frozenset({"embedding_a", "embedding_b"})
    needs: ClassVar = (("embedding_a",), ("embedding_b",))
    kinds: ClassVar = (nn.Embedding,)

    def __init__(self, tensors: Tensors, alpha: float | None) -> None:
        super().__init__()
        self.rank = tensors["embedding_a"].shape[0]
        self.alpha = float(self.rank if alpha is None else alpha)
        self.embedding_a = nn.Parameter(tensors["embedding_a"])
        self.embedding_b = nn.Parameter(tensors["embedding_b"])

    @classmethod
    def of(cls, seat: Seat, tensors: Tensors, alpha: float | None) -> Self:
        return cls(tensors, alpha)

    @classmethod
    def fault(cls, tensors: Tensors) -> str:
        a, b = tensors["embedding_a"], tensors["embedding_b"]
        if a.ndim == b.ndim == 2 and a.shape[0] == b.shape[1]:
            return ""
        return f"do not share a rank: A is {[*a.shape]}, B is {[*b.shape]}"

    @classmethod
    def sizes(cls, tensors: Tensors) -> tuple[list[int] | None, list[int] | None]:
        return [tensors["embedding_a"].shape[1]], [tensors["embedding_b"].shape[0]]

    @classmethod
    def rank_of(cls, tensors: Tensors) -> int | None:
        return tensors["embedding_a"].shape[0]

    def delta(self, weight: Tensor, bias: Tensor | None = None) -> Mapping[str, Tensor]:
        product = self.embedding_b.float() @ self.embedding_a.float()
        return {"weight": product.T * (self.alpha / (self.rank or 1))}

    def run(self, context: Context, *inputs: Any) -> Tensor:
        rows = F.embedding(inputs[0], self.embedding_a.T)
        return F.linear(rows, self.embedding_b) * (self.alpha / (self.rank or 1))
