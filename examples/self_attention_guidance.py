"""
Self-attention guidance
=======================

The unguided pass runs again on latents that are blurred where it looks most, and guidance leads
away from what it returns (arXiv:2210.00939).
"""

import math
from typing import Any

import torch
from perturbed_attention import by_branch
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Context,
    Edit,
    Layer,
    Multiply,
    Passthrough,
    Seat,
    Sum,
    When,
)
from refiners_core.models.diffusion import Branches


class Together(Layer):
    """Asks for all passes at once, for edits that look across branches."""

    def run(self, context: Context, *inputs: Any) -> None:
        context["sequential"] = False


class Record(Layer):
    """Keeps how much each position is looked at."""

    def __init__(self, key: str, heads: int) -> None:
        super().__init__()
        self.key, self.heads = key, heads

    def run(self, context: Context, *inputs: Tensor) -> tuple[Tensor, ...]:
        q, k = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in inputs[:2])
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        context[self.key] = weights.mean(1).sum(1)
        return inputs


class Degraded(Chain):
    """Returns how the unguided prediction changes when latents are blurred where it looks most
    (arXiv:2210.00939, algorithm 1)."""

    def __init__(self, looks: str, unet: nn.Module) -> None:
        super().__init__(branches=Branches(), unet=unet)
        self.looks = looks

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        names, latents, sampler = context["branches"], context["latents"], context["sampler"]
        name = "uncond" if "uncond" in names else "cond"
        uncond = by_branch(names, inputs[0])[name]
        level = sampler.path[context["step"]]
        clean, noise = sampler.schedule.split(latents.float(), uncond.float(), level)
        looked = context[self.looks].unflatten(0, (len(names), -1))[names.index(name)]
        side = math.isqrt(looked.shape[-1])
        is_looked = (looked > looked.mean()).to(latents.dtype).view(-1, 1, side, side)
        mask = nn.functional.interpolate(is_looked, latents.shape[-2:])
        blurred = nn.functional.avg_pool2d(clean, 3, stride=1, padding=1)
        degraded = level.add_noise(clean * (1 - mask) + blurred * mask, noise).to(latents.dtype)
        alone = context.scope()
        alone["branches"] = (name,)
        rows = self.call(self.branches, alone, degraded)
        return uncond - self.call(self.unet, alone, rows)


class SelfAttentionGuidance(Adapter):
    """Leads away from what the UNet predicts for degraded latents (arXiv:2210.00939)."""

    def edits(self, model: Any) -> tuple[Edit, ...]:
        scale, looks = self.scale_key, self.context_key("looks")
        middle = model.slot("unet.self_attention.attend").where(lambda s: ".mid." in s.path)

        def recorded(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(Record(looks, seat.layer.heads), inner)

        def guided(inner: nn.Module, seat: Seat) -> nn.Module:
            unet = seat.chain.layer("predict.unet")
            return Sum(inner, When(scale, Degraded(looks, unet), Multiply(scale)))

        together = Passthrough(When(scale, Together()))
        return (
            *middle.first().wrap(recorded, stage="inputs"),
            *model.slot("denoise.predict").before("together", lambda seat: together),
            *model.slot("denoise.guidance").wrap(guided),
        )


# %%
# On a tiny model
# ---------------

if __name__ == "__main__":
    from refiners_core.testing import tiny_model

    torch.manual_seed(0)
    model = tiny_model()
    calls: list[int] = []
    model.unet.register_forward_hook(lambda unet, inputs, output: calls.append(len(output)))
    with SelfAttentionGuidance(key="sag").on(model):
        model.generate("a red circle", steps=2, seed=7, progress=False)
    print(f"rows of each call of the UNet: {calls}")
