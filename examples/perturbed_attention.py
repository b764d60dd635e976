"""
Perturbed-attention guidance
============================

A third pass of the UNet in which each token sees itself alone, and guidance away from it
(arXiv:2403.17377).
"""

# %%
# One denoising step is a tree, and its slots are places like any other: a layer before
# ``denoise.branches`` adds a branch, an edit of attention perturbs its rows, and a sum around
# ``denoise.guidance`` leads away from it.

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Layer, Multiply, Passthrough, Sum, When


def by_branch(branches: Sequence[str], prediction: Tensor) -> dict[str, Tensor]:
    """Returns the rows of each branch."""
    return dict(zip(branches, prediction.chunk(len(branches)), strict=True))


class AddBranch(Layer):
    """Adds a branch to the step."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def run(self, context: Context, *inputs: Any) -> None:
        context["branches"] = (*context["branches"], self.name)


class LooksNowhere(Chain):
    """In the rows of one branch each token sees itself alone (arXiv:2403.17377, equation 14)."""

    def __init__(self, inner: nn.Module, branch: str) -> None:
        super().__init__(inner=inner)
        self.branch = branch

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        names = context["branches"]
        seen = self.call(self.inner, context, *inputs)
        if self.branch not in names:
            return seen
        parts, values = list(seen.chunk(len(names))), inputs[2].chunk(len(names))
        parts[names.index(self.branch)] = values[names.index(self.branch)]
        return torch.cat(parts)


class AwayFrom(Layer):
    """Returns the difference between `cond` and another branch."""

    def __init__(self, branch: str) -> None:
        super().__init__()
        self.branch = branch

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        rows = by_branch(context["branches"], inputs[0])
        return rows["cond"] - rows[self.branch]


class PerturbedAttention(Adapter):
    """Adds a pass with perturbed self-attention, and guidance away from it (arXiv:2403.17377)."""

    def edits(self, model: Any) -> tuple[Edit, ...]:
        branch, scale = self.key, self.scale_key
        add = Passthrough(When(scale, AddBranch(branch)))
        away = When(scale, AwayFrom(branch), Multiply(scale))
        attention = model.slot("unet.self_attention.attend").where(lambda s: ".mid." in s.path)
        return (
            *model.slot("denoise.branches").before("pag", lambda seat: add),
            *attention.wrap(lambda inner, seat: LooksNowhere(inner, branch), stage="output"),
            *model.slot("denoise.guidance").wrap(lambda inner, seat: Sum(inner, away)),
        )


# %%
# On the playground
# -----------------
# At scale 0 the third branch is absent, and the result equals the base's, bit for bit.

if __name__ == "__main__":
    import refiners

    from refiners_core import Condition

    model = refiners.load_model("playground")
    options = {"steps": 4, "seed": 1, "output": "latents", "progress": False}
    base = model.generate("a star", **options)
    pag = PerturbedAttention(key="pag").inject(model)
    print(model.denoise.layer("guidance+branch@pag", Chain))
    for scale in (0.0, 3.0):
        changed = model.generate("a star", conditions={pag: Condition(scale=scale)}, **options)
        print(f"scale {scale}: {(changed - base).abs().mean():.4f} away from the base")
