"""Trained tokens: other rows of an embedding, or of the head of a language model."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refiners_core import Context, Seat
from refiners_lora.method.change import Change, Tensors


class TokenRows(Change):
    """Replaces the rows of some tokens, as PEFT's trainable tokens do.

    Args:
        ids: The ids of the tokens, (tokens,).
        rows: The difference of each row from that of the base, (tokens, width).
        is_head: Whether the layer computes the logits of the tokens, rather than their features.
        vocabulary: The number of all tokens.
    """

    title = "a set of trained tokens"
    marks: ClassVar = frozenset({"tokens"})
    may: ClassVar = frozenset({"token_ids"})
    needs: ClassVar = (("token_ids",),)
    kinds: ClassVar = (nn.Embedding, nn.Linear)
    has_rows_first: ClassVar = True
    reads_base: ClassVar = True

    def __init__(self, ids: Tensor, rows: Tensor, vocabulary: int, *, is_head: bool) -> None:
        super().__init__()
        self.is_head = is_head
        self.vocabulary = vocabulary
        order = ids.argsort()
        self.register_buffer("ids", ids[order])
        self.tokens = nn.Parameter(rows[order])

    @classmethod
    def of(cls, seat: Seat, tensors: Tensors, alpha: float | None) -> Self:
        layer: Any = seat.layer
        ids = tensors["token_ids"]
        weight: Tensor = layer.weight.detach()
        rows = tensors["tokens"].float()
        if not weight.is_meta:
            rows = rows.to(weight.device) - weight[ids.to(weight.device)].float()
        return cls(ids.to(rows.device), rows, len(weight), is_head=seat.is_a(nn.Linear))

    @classmethod
    def sizes(cls, tensors: Tensors) -> tuple[list[int] | None, list[int] | None]:
        return [tensors["tokens"].shape[1]], None

    @classmethod
    def fits(cls, tensors: Tensors, sizes: tuple[int, ...]) -> bool:
        last = int(tensors["token_ids"].max())
        return tensors["tokens"].shape[1] == sizes[1] and last < sizes[0]

    def delta(self, weight: Tensor, bias: Tensor | None = None) -> Mapping[str, Tensor]:
        change = torch.zeros_like(weight, dtype=torch.float32)
        ids: Tensor = self.ids  # pyright: ignore[reportAssignmentType]
        change[ids] = self.tokens.float()
        return {"weight": change}

    def run(self, context: Context, *inputs: Any) -> Tensor:
        x: Tensor = inputs[0]
        ids: Tensor = self.ids  # pyright: ignore[reportAssignmentType]
        if self.is_head:
            logits = x.new_zeros(*x.shape[:-1], self.vocabulary)
            return logits.index_copy(-1, ids, F.linear(x, self.tokens))
        place = torch.searchsorted(ids, x).clamp(max=len(ids) - 1)
        is_trained = (ids[place] == x).to(self.tokens.dtype)
        return F.embedding(place, self.tokens) * is_trained[..., None]

    def extra_repr(self) -> str:
        return f"{len(self.tokens)} of {self.vocabulary} tokens"
