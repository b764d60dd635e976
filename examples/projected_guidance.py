"""
Projected guidance
==================

Guidance without its part along the prediction, which saturates colours, and with a momentum over
the steps (APG, arXiv:2410.02416).
"""

# %%
# The momentum is a value of one generation: ``Remember`` keeps it for the next step, where
# ``Recall`` adds it. At the first step there is nothing to add.

from typing import Any

from perturbed_attention import by_branch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Lambda, Recall, Remember, Residual, Seat


class Projected(Chain):
    """Projected guidance, while the adapter acts (arXiv:2410.02416, algorithm 1)."""

    def __init__(self, adapter: "ProjectedGuidance", inner: nn.Module) -> None:
        key = adapter.context_key("momentum")
        super().__init__(
            inner=inner,
            momentum=Chain(Residual(Recall(key, Lambda(adapter.slowed))), Remember(key)),
        )
        self.scale, self.eta = adapter.scale_key, adapter.eta

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        rows = by_branch(context["branches"], inputs[0])
        if self.scale not in context or "uncond" not in rows:
            return self.call(self.inner, context, *inputs)
        cond = rows["cond"]
        update = self.call(self.momentum, context, cond - rows["uncond"])
        along, across = split(update, cond)
        return cond + (context["guidance"] - 1) * (across + self.eta * along)


def split(update: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the parts of an update along the prediction and across it."""
    dims = tuple(range(1, cond.ndim))
    unit = cond / cond.square().sum(dims, keepdim=True).sqrt()
    along = (update * unit).sum(dims, keepdim=True) * unit
    return along, update - along


class ProjectedGuidance(Adapter):
    """Guides across the prediction, with momentum (arXiv:2410.02416)."""

    def __init__(self, momentum: float = -0.5, eta: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.momentum, self.eta = momentum, eta

    def slowed(self, update: Tensor) -> Tensor:
        return self.momentum * update

    def edits(self, model: Any) -> tuple[Edit, ...]:
        def projected(inner: nn.Module, seat: Seat) -> nn.Module:
            return Projected(self, inner)

        return model.slot("denoise.guidance").wrap(projected, stage="output", name="projected")


# %%
# On the playground
# -----------------

if __name__ == "__main__":
    import refiners

    model = refiners.load_model("playground")
    options = {"steps": 12, "seed": 3, "guidance": 14.0, "progress": False}
    pictures = [model.generate("a yellow star on a blue background", **options)]
    with ProjectedGuidance(key="apg").on(model):
        print(model.denoise.layer("guidance+projected@apg", Chain))
        pictures.append(model.generate("a yellow star on a blue background", **options))
