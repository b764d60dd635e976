"""
Latent consistency models
=========================

A model that was distilled with its guidance takes the guidance as an input and runs one pass
(arXiv:2310.04378, section 4.2).
"""

# %%
# One edit removes the unguided branch, another adds features of the guidance to the time embedding.

from typing import Any

from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Context,
    Edit,
    Layer,
    Passthrough,
    Seat,
    Sum,
    UseContext,
    When,
    select,
)
from refiners_core.layers import SinusoidalEmbedding, TimestepEncoder


class OneBranch(Layer):
    """Runs the conditioned pass alone: the guidance is in the weights."""

    def run(self, context: Context, *inputs: Any) -> None:
        context["branches"] = ("cond",)


def thousandfold(guidance: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    return (guidance - 1) * 1000, like


class Distilled(Adapter):
    """Passes the guidance to the UNet, which runs one pass (arXiv:2310.04378, section 4.2)."""

    def edits(self, model: Any) -> tuple[Edit, ...]:
        alone = Passthrough(When(self.scale_key, OneBranch()))

        def guided(inner: nn.Module, seat: Seat) -> nn.Module:
            width = seat.layer.width
            project = self.layer(seat, lambda: nn.Linear(width, width, bias=False))
            guidance = GuidanceEmbedding(width, project)
            return Sum(inner, When(self.scale_key, guidance))

        embedding = select(model).of(SinusoidalEmbedding).within(TimestepEncoder)
        in_time = embedding.where(lambda seat: seat.path.startswith("unet.time."))
        return (
            *model.slot("denoise.branches").before("alone", lambda seat: alone),
            *in_time.wrap(guided, name="guidance"),
        )


class GuidanceEmbedding(Chain):
    """Embeds the guidance as the timestep is embedded, in the dtype of that."""

    def __init__(self, width: int, project: nn.Module) -> None:
        super().__init__(
            guidance=UseContext("guidance"), waves=SinusoidalEmbedding(width), project=project
        )

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        guidance = self.call(self.guidance, context)
        waves = self.call(self.waves, context, *thousandfold(guidance, inputs[1]))
        return self.call(self.project, context, waves)


# %%
# On a tiny model
# ---------------

if __name__ == "__main__":
    from refiners_core.testing import tiny_model

    model = tiny_model()
    calls: list[int] = []
    model.unet.register_forward_hook(lambda unet, inputs, output: calls.append(len(output)))
    with Distilled(key="distilled").on(model):
        model.generate("a red circle", sampler="lcm", steps=2, seed=7, progress=False)
    print(f"rows of each call of the UNet: {calls}")
