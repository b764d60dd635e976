"""
Adapters of language models
===========================

The same doors on a decoder-only transformer: LoRA, prefix tuning (arXiv:2101.00190), IA3
(arXiv:2205.05638) and bottleneck adapters (arXiv:1902.00751).
"""

# %%
# A decoder
# ---------
# A model without slots is a chain like any other: ``select`` finds places by kind, name and
# surroundings.

import torch
from lora import LoraChange
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Edit, Residual, Seat, Sum, select
from refiners_core.layers import Attend, PositionEmbedding, SelfAttention

WIDTH, HEADS, WORDS = 8, 2, 20


class Decoder(Chain):
    """Maps tokens to scores of the next one (arXiv:2005.14165, section 2.1), tiny."""

    def __init__(self) -> None:
        blocks = [
            Chain(
                attention=Residual(
                    norm=nn.LayerNorm(WIDTH), attention=SelfAttention(WIDTH, HEADS, is_causal=True)
                ),
                feed_forward=Residual(
                    norm=nn.LayerNorm(WIDTH),
                    up=nn.Linear(WIDTH, 4 * WIDTH),
                    act=nn.GELU(),
                    down=nn.Linear(4 * WIDTH, WIDTH),
                ),
            )
            for _ in range(2)
        ]
        super().__init__(
            embed=Sum(token=nn.Embedding(WORDS, WIDTH), place=PositionEmbedding(16, WIDTH)),
            blocks=Chain(*blocks),
            norm=nn.LayerNorm(WIDTH),
            head=nn.Linear(WIDTH, WORDS, bias=False),
        )


def decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder().eval()


# %%
# Four adapters
# -------------


class LanguageLora(Adapter):
    """Puts a low-rank change beside the linear layers of attention."""

    def edits(self, model: Chain) -> tuple[Edit, ...]:
        def beside(inner: nn.Module, seat: Seat) -> nn.Module:
            return Sum(inner, self.layer(seat, lambda: LoraChange(seat.layer)))

        return select(model).of(nn.Linear).within(SelfAttention).wrap(beside, name="lora")


class PrefixAttend(nn.Module):
    """Attends to learnt keys and values as well (arXiv:2101.00190, section 4.2)."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.attend = Attend(heads)
        self.heads = heads
        self.k, self.v = (nn.Parameter(torch.randn(1, 2, width)) for _ in range(2))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, tokens, _ = q.shape
        k = torch.cat([self.k.expand(rows, -1, -1), k], dim=1)
        v = torch.cat([self.v.expand(rows, -1, -1), v], dim=1)
        seen = torch.ones(tokens, k.shape[1], dtype=torch.bool).tril(k.shape[1] - tokens)
        shape = (rows, -1, self.heads, q.shape[-1] // self.heads)
        q, k, v = (x.view(shape).transpose(1, 2) for x in (q, k, v))
        x = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return x.transpose(1, 2).flatten(2)


class Prefix(Adapter):
    """Replaces each attention by one with a prefix."""

    def edits(self, model: Chain) -> tuple[Edit, ...]:
        def seen(seat: Seat) -> nn.Module:
            return self.layer(seat, lambda: PrefixAttend(seat.layer.heads, WIDTH))

        return select(model).of(Attend).replace(seen)


class Stretch(nn.Module):
    """Multiplies each feature by a learnt number."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.linspace(0.5, 1.5, width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.by


class Ia3(Adapter):
    """Stretches keys, values and what feeds forward (arXiv:2205.05638, section 3.3)."""

    def edits(self, model: Chain) -> tuple[Edit, ...]:
        def stretched(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(inner, self.layer(seat, lambda: Stretch(seat.layer.out_features)))

        places = select(model).of(nn.Linear).named("to_k", "to_v", "up")
        return places.wrap(stretched, stage="output", name="stretch")


class Bottleneck(Adapter):
    """Adds small networks after attention and feed-forward (arXiv:1902.00751, section 2.1)."""

    def edits(self, model: Chain) -> tuple[Edit, ...]:
        def small(seat: Seat) -> nn.Module:
            return self.layer(
                seat, lambda: Residual(nn.Linear(WIDTH, 2), nn.GELU(), nn.Linear(2, WIDTH))
            )

        places = select(model).named("attention", "down")
        return places.where(lambda seat: isinstance(seat.chain, Residual)).after("small", small)


# %%
# All four at once
# ----------------

if __name__ == "__main__":
    tree, words = decoder(), torch.arange(8)[None]
    bare = tree(words)
    adapters = [
        kind(key=kind.__name__.lower()).inject(tree) for kind in (LanguageLora, Ia3, Bottleneck)
    ]
    print(tree.layer("blocks.Chain_0", Chain))
    for adapter in adapters:
        adapter.eject()
    print(torch.equal(tree(words), bare))
