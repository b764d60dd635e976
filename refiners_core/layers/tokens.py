"""Feature maps as sequences of tokens."""

from jaxtyping import Float
from torch import Tensor

from refiners_core.tree.chain import Chain
from refiners_core.tree.context import Context


class AsTokens(Chain):
    """Runs its children on the positions of a feature map as tokens, in row-major order, and
    returns a map again."""

    def run(
        self, context: Context, *inputs: Float[Tensor, "rows channels height width"]
    ) -> Float[Tensor, "rows channels height width"]:
        x = inputs[0]
        # Contiguous both ways: otherwise sums keep the strides of a map on all tokens, which every
        # normalisation then copies; and a map with the strides of tokens makes later convolutions
        # reorder their weights at every call.
        tokens = super().run(context, x.flatten(2).transpose(1, 2).contiguous())
        return tokens.transpose(1, 2).reshape(x.shape).contiguous()
