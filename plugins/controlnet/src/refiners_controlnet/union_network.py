"""The parts of a union ControlNet that other ControlNets lack: one network, several types."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Chain, Context, Identity, Lambda, Parallel, Residual, UseContext
from refiners_core.layers import EachEmbedding, FeedForward, QuickGelu, SelfAttention
from refiners_core.models.control import CONTROL_KEYS
from refiners_core.weights import KeyMap, stacked

HEADS: Final = 8
"""The attention heads of the released unions."""

_BLOCK: Final = "network.stem.condition.blocks.{i}"
_ATTENTION: Final = f"{_BLOCK}.attention.among_rows"
_THEIRS: Final = "transformer_layes.{i}"  # misspelt as published

UNION_KEYS: Final = CONTROL_KEYS | KeyMap(
    {
        "network.time.types.linear_1": "control_add_embedding.linear_1",
        "network.time.types.linear_2": "control_add_embedding.linear_2",
        "network.stem.condition.task.weight": "task_embedding",
        "network.stem.condition.project": "spatial_ch_projs",
        f"{_BLOCK}.attention.norm": f"{_THEIRS}.ln_1",
        f"{_ATTENTION}.to_out": f"{_THEIRS}.attn.out_proj",
        **{
            f"{_ATTENTION}.project.to_{letter}.{kind}": f"{_THEIRS}.attn.in_proj_{kind}"
            for letter in "qkv"
            for kind in ("weight", "bias")
        },
        f"{_BLOCK}.feed_forward.norm": f"{_THEIRS}.ln_2",
        f"{_BLOCK}.feed_forward.network.expand": f"{_THEIRS}.mlp.c_fc",
        f"{_BLOCK}.feed_forward.network.contract": f"{_THEIRS}.mlp.c_proj",
    },
    transforms={
        f"{_ATTENTION}.project.to_{letter}": stacked(share, 3) for share, letter in enumerate("qkv")
    },
)
"""The layout of a `ControlNetUnionModel` of diffusers, in which unions are published."""


class UnionCondition(Chain):
    """Fuses the features of all control pictures of a generation.

    For each picture, a token, the mean of its features plus the embedding of its control type,
    passes a small transformer; its projection is added to the features at every position. The
    released code adds them all. A single picture is fused as it is, and the outputs of the network
    are multiplied by its scale. Of several, features, token and projection are each multiplied by
    the scale of the picture, and the outputs are not: `outer` receives the number that undoes the
    adapter's scale, by which outputs are multiplied where they are added.

    Args:
        width: The channels of the features.
        types: The number of control types.
        depth: The blocks of the transformer.
        pictures: For each name of a control type, the context keys of its features and of its
            scale beside the adapter's, which may be absent, and the number of the type.
        scale: The context key of the adapter's scale.
        outer: The context key under which the factor of the outputs is written.
    """

    def __init__(
        self,
        width: int,
        types: int,
        depth: int,
        pictures: Mapping[str, tuple[str, str, int]],
        scale: str,
        outer: str,
    ) -> None:
        super().__init__(
            task=TaskEmbedding(types, width),
            blocks=Chain(**{str(i): union_block(width) for i in range(depth)}),
            project=nn.Linear(width, width),
        )
        self.pictures: Final = dict(pictures)
        # In a mapping, as it is not the scale of this place: the outputs are scaled elsewhere.
        self.keys: Final = {"scale": scale, "outer": outer}

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows width height width_"]:
        present = [keys for keys in self.pictures.values() if context.get(keys[0]) is not None]
        task, blocks, project = self
        scale, outer = context[self.keys["scale"]], self.keys["outer"]
        fused: Any = 0
        for features_key, scale_key, number in present:
            features, factor = context[features_key], context.get(scale_key)
            token = features.mean((2, 3)) + self.call(task, context)[number]
            if len(present) == 1:
                context[outer] = torch.ones_like(scale) if factor is None else factor
                return features + self._added(blocks, project, context, token)
            weight = scale if factor is None else scale * factor
            added = self._added(blocks, project, context, token * weight.reshape(-1, 1))
            fused = fused + features * weight + added * weight
        context[outer] = 1 / scale
        return fused

    def _added(
        self, blocks: nn.Module, project: nn.Module, context: Context, token: Tensor
    ) -> Float[Tensor, "rows width 1 1"]:
        return self.call(project, context, self.call(blocks, context, token))[:, :, None, None]


class TaskEmbedding(nn.Module):
    """A learned vector for each control type.

    Args:
        types: The number of control types.
        width: The features of a vector.
    """

    def __init__(self, types: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(types, width))

    def forward(self) -> Float[Tensor, "types width"]:
        """Returns the vectors of all types."""
        return self.weight


def union_block(width: int) -> Chain:
    """Builds a block of the transformer, whose tokens are the rows of the batch.

    As released, attention runs among the rows, not among the tokens of one row: the published code
    passes rows first to a layer that expects tokens first, and the weights were trained with that.
    A generation of one picture is not affected, since its rows have equal tokens.
    """
    return Chain(
        attention=Residual(
            norm=nn.LayerNorm(width),
            together=Lambda(as_one_row),
            among_rows=SelfAttention(width, HEADS, has_bias=True),
            apart=Lambda(as_rows),
        ),
        feed_forward=Residual(
            norm=nn.LayerNorm(width), network=FeedForward(width, 4 * width, QuickGelu())
        ),
    )


def as_one_row(tokens: Float[Tensor, "rows width"]) -> Float[Tensor, "1 rows width"]:
    """Returns the tokens of all rows as those of one."""
    return tokens[None]


def as_rows(tokens: Float[Tensor, "1 rows width"]) -> Float[Tensor, "rows width"]:
    """Returns the tokens of one row as rows."""
    return tokens[0]


class ControlTypeEmbedding(Residual):
    """Adds the embedding of the control types in use to the embedded timestep.

    Args:
        key: The context key of the types, (rows, types), 1 for a type in use and else 0.
        types: The number of control types.
        waves: The features of each embedded number.
        width: The features of the embedded timestep.
    """

    def __init__(self, key: str, types: int, waves: int, width: int) -> None:
        super().__init__(
            sources=Parallel(types=UseContext(key), like=Identity()),
            waves=EachEmbedding(waves),
            linear_1=nn.Linear(waves * types, width),
            act=nn.SiLU(),
            linear_2=nn.Linear(width, width),
        )
