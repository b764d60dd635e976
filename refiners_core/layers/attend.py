"""Attention itself, between the projections to queries, keys and values and that of the output."""

from functools import reduce
from typing import Any, Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from refiners_core.errors import ModelError
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer

Mask = Float[Tensor, "..."] | Bool[Tensor, "..."]
"""A mask of attention: values that are added, or True where a query attends to a key."""


class Attend(Layer):
    """Computes `softmax(q k^T / sqrt(d)) v`, without projections.

    Scaled dot-product attention with several heads (arXiv:1706.03762, section 3.2), which may share
    keys and values in groups (arXiv:2305.13245). Adapters of attention edit this layer, whatever
    the projections around it. An adapter that edits its inputs may add a mask as the fourth input;
    an adapter that reads them passes further inputs on. An adapter that adds keys puts them before
    those of the tokens: every query attends to them, causal or under a mask of the context.

    Args:
        heads: Number of attention heads; divides the width.
        is_causal: Whether a token attends only to itself and to earlier tokens.
        kv_heads: Number of heads of keys and values; divides `heads`, which is the default.
        scale: The factor of `q k^T`; `1 / sqrt(d)` by default.
        cap: The bound to which `cap tanh(x / cap)` limits the scaled `q k^T` (arXiv:2408.00118,
            section 2); unlimited by default.
        mask: The context key of a further mask, of the last keys; without a value there, or without
            a key, queries attend to all keys.

    Raises:
        ModelError: `kv_heads` does not divide `heads`; or in a call, the shapes of queries, keys
            and values contradict each other or the numbers of heads.
    """

    def __init__(
        self,
        heads: int,
        is_causal: bool = False,
        *,
        kv_heads: int | None = None,
        scale: float | None = None,
        cap: float | None = None,
        mask: str | None = None,
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if min(heads, kv_heads) < 1 or heads % kv_heads:
            raise ModelError(
                f"{heads} heads cannot share {kv_heads} heads of keys and values.",
                hint="Choose kv_heads= that divides heads.",
            )
        self.heads: Final = heads
        self.kv_heads: Final = kv_heads
        self.is_causal: Final = is_causal
        self.scale: Final = scale
        self.cap: Final = cap
        self.mask: Final = mask

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows queries inner"]:
        """Takes queries, keys, values and optionally a mask; see `attended`."""
        known = None if self.mask is None else context.get(self.mask)
        return self.attended(*inputs, known=known)

    def attended(
        self,
        q: Float[Tensor, "rows queries inner"],
        k: Float[Tensor, "rows tokens shared"],
        v: Float[Tensor, "rows tokens shared"],
        mask: Mask | None = None,
        *,
        known: Mask | None = None,
    ) -> Float[Tensor, "rows queries inner"]:
        """Computes attention of queries over the tokens of keys and values.

        Args:
            q: The queries.
            k: The keys, of `kv_heads` heads.
            v: The values, one for each key.
            mask: Values added to `q k^T / sqrt(d)`, `(rows, queries, keys)` for all heads or
                `(rows, heads, queries, keys)`; or, as bool, True for the keys that a query attends
                to. A single row, head or query stands for all. Causal attention stays causal under
                a mask.
            known: The mask of the context. With fewer keys it is of the last ones.

        Raises:
            ModelError: The shapes contradict each other or the numbers of heads.
        """
        self._check(q, k, v, mask)
        queries, keys = q.shape[1], k.shape[1]
        is_square = mask is None and known is None and keys == queries
        needs_earlier = self.is_causal and not is_square
        joined = None
        if mask is not None or known is not None or needs_earlier:
            masks = (mask, known, self._earlier(q, keys) if needs_earlier else None)
            joined = reduce(_joined, [_aligned(item, keys) for item in masks if item is not None])
        q = _by_head(q, self.heads)
        k, v = _by_head(k, self.kv_heads), _by_head(v, self.kv_heads)
        if self.cap is None:
            x = scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=joined,
                is_causal=self.is_causal and is_square,
                scale=self.scale,
                enable_gqa=self.heads != self.kv_heads,
            )
        else:
            if joined is None and self.is_causal:
                joined = self._earlier(q[:, 0], keys)
            x = self._capped(q, k, v, self.cap, joined)
        return x.transpose(1, 2).flatten(2)

    def _capped(
        self, q: Tensor, k: Tensor, v: Tensor, cap: float, mask: Tensor | None
    ) -> Float[Tensor, "rows heads queries features"]:
        groups = self.heads // self.kv_heads
        k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        scale = q.shape[-1] ** -0.5 if self.scale is None else self.scale
        logits = torch.tanh(q @ k.transpose(-1, -2) * scale / cap) * cap
        if mask is not None:
            logits = logits + (_added(mask, logits.dtype) if mask.dtype == torch.bool else mask)
        return logits.softmax(-1, dtype=torch.float32).to(q.dtype) @ v

    def _earlier(self, q: Tensor, keys: int) -> Bool[Tensor, "queries keys"]:
        """Returns True for the keys up to that of each query; queries are of the last keys."""
        queries = q.shape[1]
        return q.new_ones((queries, keys), dtype=torch.bool).tril(keys - queries)

    def _check(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> None:
        rows, queries, inner = q.shape
        width = inner // self.heads * self.kv_heads
        is_fitting = k.shape == v.shape == (rows, k.shape[1], width) and not inner % self.heads
        if not is_fitting:
            raise ModelError(
                f"attention of {self.heads} heads over {self.kv_heads} heads of keys and values "
                f"got queries {_listed(q)}, keys {_listed(k)} and values {_listed(v)}.",
                hint=f"Queries of {inner} features attend to keys and values (rows, tokens, "
                f"{width}); Attend(heads, kv_heads=...) shares heads.",
            )
        if self.is_causal and k.shape[1] < queries:
            raise ModelError(
                f"causal attention of {queries} tokens got only {k.shape[1]} keys.",
                hint="Pass the keys of all tokens, and those that an adapter adds before them.",
            )
        if mask is not None and (mask.ndim not in (3, 4) or mask.shape[-1] != k.shape[1]):
            raise ModelError(
                f"attention over {k.shape[1]} keys got a mask {_listed(mask)}.",
                hint="A mask is (rows, queries, keys) or (rows, heads, queries, keys).",
            )

    def extra_repr(self) -> str:
        facts = {
            "is_causal": self.is_causal or None,
            "kv_heads": None if self.kv_heads == self.heads else self.kv_heads,
            "scale": self.scale,
            "cap": self.cap,
            "mask": self.mask,
        }
        named = [f"{name}={value!r}" for name, value in facts.items() if value is not None]
        return ", ".join([str(self.heads), *named])


def _by_head(x: Tensor, heads: int) -> Float[Tensor, "rows heads tokens features"]:
    rows, tokens, width = x.shape
    return x.view(rows, tokens, heads, width // heads).transpose(1, 2)


def _aligned(mask: Tensor, keys: int) -> Tensor:
    """Returns a mask of the last keys as one of all keys; those before are attended to."""
    missing = keys - mask.shape[-1]
    if missing < 0:
        raise ModelError(
            f"a mask of {mask.shape[-1]} keys came to attention over {keys}.",
            hint="An adapter adds keys before those of the tokens and removes none.",
        )
    if missing:
        mask = pad(mask, (missing, 0), value=mask.dtype == torch.bool)
    return mask if mask.ndim != 3 else mask[:, None]


def _joined(a: Tensor, b: Tensor) -> Tensor:
    """Returns one mask for two."""
    if a.dtype == b.dtype == torch.bool:
        return a & b
    if a.dtype == torch.bool:
        a, b = b, a
    return a + (_added(b, a.dtype) if b.dtype == torch.bool else b)


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a mask of what is attended to as values that are added."""
    zeros = torch.zeros((), dtype=dtype, device=mask.device)
    return zeros.masked_fill(~mask, float("-inf"))


def _listed(x: Tensor) -> list[int]:
    return list(x.shape)
