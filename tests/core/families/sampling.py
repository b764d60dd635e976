"""PAG, SAG, MultiDiffusion, restart, LCM: another way to take a step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
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
    UseContext,
    When,
    select,
)
from refiners_core.layers.timestep import SinusoidalEmbedding, TimestepEncoder
from refiners_core.models.diffusion import Branches
from refiners_core.models.samplers import DDIM, Level, Stepped


def said_by(branches: Sequence[str], prediction: Tensor) -> dict[str, Tensor]:
    return dict(zip(branches, prediction.chunk(len(branches)), strict=True))


# --- perturbed-attention guidance ------------------------------------------------------------


class AddBranch(Layer):
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
    """What `cond` says more than another branch."""

    def __init__(self, branch: str) -> None:
        super().__init__()
        self.branch = branch

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        says = said_by(context["branches"], inputs[0])
        return says["cond"] - says[self.branch]


class PerturbedAttention(Adapter):
    """A third pass whose self-attention is perturbed, and guidance away from it."""

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


# --- self-attention guidance -----------------------------------------------------------------


class Together(Layer):
    """Asks for all passes at once: for edits that look across branches."""

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
    """What the unguided pass says of latents that are blurred where it looks most
    (arXiv:2210.00939, algorithm 1)."""

    def __init__(self, looks: str, unet: nn.Module) -> None:
        super().__init__(branches=Branches(), unet=unet)
        self.looks = looks

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        names, latents, sampler = context["branches"], context["latents"], context["sampler"]
        name = "uncond" if "uncond" in names else "cond"
        uncond = said_by(names, inputs[0])[name]
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


# --- MultiDiffusion --------------------------------------------------------------------------


class Tiled(Chain):
    """Runs its child on overlapping tiles and takes means (arXiv:2302.08113, equation 5)."""

    def __init__(self, inner: nn.Module, scale: str, side: int, stride: int) -> None:
        super().__init__(inner=inner)
        self.scale, self.side, self.stride = scale, side, stride

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        if self.scale not in context:
            return self.call(self.inner, context, x)
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        for top in self.starts(x.shape[-2]):
            for left in self.starts(x.shape[-1]):
                here = (..., slice(top, top + self.side), slice(left, left + self.side))
                total[here] += self.call(self.inner, context.scope(), x[here])
                count[here] += 1
        return total / count

    def starts(self, length: int) -> list[int]:
        last = max(length - self.side, 0)
        return sorted({*range(0, last, self.stride), last})


class MultiDiffusion(Adapter):
    def __init__(self, side: int = 4, stride: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.side, self.stride = side, stride

    def edits(self, model: Any) -> tuple[Edit, ...]:
        def tiled(inner: nn.Module, seat: Seat) -> nn.Module:
            return Tiled(inner, self.scale_key, self.side, self.stride)

        return model.slot("denoise.predict").wrap(tiled, stage="output", name="tiles")


# --- restart ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Restart(DDIM):
    """Goes back once to more noise and comes down again (arXiv:2306.14878, section 3.1)."""

    at: int = 2
    """After how many steps it goes back, and over how many."""

    @property
    def is_stochastic(self) -> bool:
        return True

    def with_steps(self, steps: int) -> Self:
        return replace(self, steps=steps, skipped=0)

    @cached_property
    def path(self) -> tuple[Level, ...]:
        way = (*self.schedule.visit(self.steps), self.schedule.end)
        return (*way[: self.at], *way[self.at - 2 :])

    def step(self, latents: Tensor, prediction: Tensor, index: int, **given: Any) -> Stepped:
        if index != self.at - 1:
            return super().step(latents, prediction, index, **given)
        there, above = self.path[self.at + 2], self.path[self.at]
        clean, eps = self.schedule.split(latents.float(), prediction.float(), self.path[index])
        down = there.add_noise(clean, eps)
        signal = above.signal / there.signal
        noise = math.sqrt(above.noise**2 - (signal * there.noise) ** 2)
        up = signal * down + noise * given["noise"].float()
        return Stepped(up.to(latents.dtype), clean)


# --- latent consistency models ---------------------------------------------------------------


class OneBranch(Layer):
    """Lets the conditioned pass run alone: the guidance is in the weights."""

    def run(self, context: Context, *inputs: Any) -> None:
        context["branches"] = ("cond",)


def thousandfold(guidance: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    return (guidance - 1) * 1000, like


class Distilled(Adapter):
    """A model that was distilled with its guidance, which it is told (arXiv:2310.04378, 4.2)."""

    def edits(self, model: Any) -> tuple[Edit, ...]:
        alone = Passthrough(When(self.scale_key, OneBranch()))

        def told(inner: nn.Module, seat: Seat) -> nn.Module:
            width = seat.layer.width
            project = self.layer(seat, lambda: nn.Linear(width, width, bias=False))
            guidance = GuidanceWaves(width, project)
            return Sum(inner, When(self.scale_key, guidance))

        waves = select(model).of(SinusoidalEmbedding).within(TimestepEncoder)
        return (
            *model.slot("denoise.branches").before("alone", lambda seat: alone),
            *waves.where(lambda s: s.path.startswith("unet.time.")).wrap(told, name="guidance"),
        )


class GuidanceWaves(Chain):
    """The guidance as features of the time, in the dtype of what the timestep is read for."""

    def __init__(self, width: int, project: nn.Module) -> None:
        super().__init__(
            guidance=UseContext("guidance"), waves=SinusoidalEmbedding(width), project=project
        )

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        guidance = self.call(self.guidance, context)
        waves = self.call(self.waves, context, *thousandfold(guidance, inputs[1]))
        return self.call(self.project, context, waves)
