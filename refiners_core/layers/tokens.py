"""Between maps, which convolutions see, and tokens, which attention sees."""

from jaxtyping import Float
from torch import Tensor

from refiners_core.tree.chain import Chain
from refiners_core.tree.context import Context


class AsTokens(Chain):
    """Runs its children on a map's positions as tokens, row by row, and returns a map again."""

    def run(
        self, context: Context, *inputs: Float[Tensor, "rows channels height width"]
    ) -> Float[Tensor, "rows channels height width"]:
        x = inputs[0]
        # Contiguous on both ways: sums would hand the strides of a map on to all tokens, which
        # every normalisation then copies; and those of tokens, on a map, make the convolutions that
        # follow reorder their weights at every call.
        tokens = super().run(context, x.flatten(2).transpose(1, 2).contiguous())
        return tokens.transpose(1, 2).reshape(x.shape).contiguous()
