"""Self-attention guidance (SAG): a pass over latents that are blurred where the network looks."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from refiners_core import Adapter, Chain, Context, Edit, Layer, Seat, Sum, When
from refiners_core.layers import Attend
from refiners_core.models.diffusion import COND, UNCOND, Branches, LatentDiffusion, by_branch
from refiners_core.models.samplers import Level
from refiners_core.option import number, whole
from refiners_guidance.blur import blurred
from refiners_guidance.clean import to_clean, to_noise
from refiners_guidance.grid import grid_of
from refiners_guidance.rule import scale_of_rows


class SelfAttentionGuidance(Adapter):
    """Leads away from a pass over latents that are blurred where the network looks most.

    The clean latents of the unguided prediction are blurred at the positions to which the first
    self-attention of the middle pays more attention than on average, get their noise back, and run
    through the network again (arXiv:2210.00939, algorithm 1). Guidance gets `strength (uncond -
    blurred)`; without an `uncond` branch that of `cond`.

    Args:
        strength: The strength of guidance at scale 1 (`s`).
        threshold: The attention of a position above which it is blurred; 1 is the average (`psi`).
        sigma: The width of the blur in latents.
        size: The side of the blur's kernel, odd.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: A number is out of range.
    """

    def __init__(
        self,
        *,
        strength: float = 0.75,
        threshold: float = 1.0,
        sigma: float = 1.0,
        size: int = 9,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.strength: Final = number("strength", strength, 0.75, low=0)
        self.threshold: Final = number("threshold", threshold, 1.0, low=0)
        self.sigma: Final = number("sigma", sigma, 1.0, low=0.1)
        self.size: Final = whole("size", size, 9) // 2 * 2 + 1

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Records attention, and adds the pass over blurred latents."""
        attention = self.context_key("attention")
        middle = model.slot("unet.self_attention.attend").where(lambda seat: ".mid." in seat.path)

        def recorded(inner: nn.Module, seat: Seat) -> nn.Module:
            layer = seat.layer
            assert isinstance(layer, Attend), "the slot is of attentions"
            return Chain(RecordAttention(self.key, attention, layer.heads), inner)

        def guided(inner: nn.Module, seat: Seat) -> nn.Module:
            predict = seat.chain.layer("predict")
            away = AwayFromBlurred(self, attention, predict)
            return Sum(inner, When(self.scale_key, away))

        return (
            *middle.first().wrap(recorded, stage="output"),  # before others add keys
            *model.slot("denoise.guidance").wrap(guided),
        )


class RecordAttention(Layer):
    """Keeps how much attention each position gets, and passes queries, keys and values on.

    Args:
        adapter: The key of the adapter; while it does not act, nothing is kept.
        key: The key of `context.memory`, by row: `(rows, tokens)`, 1 on average.
        heads: The number of attention heads.
    """

    def __init__(self, adapter: str, key: str, heads: int) -> None:
        super().__init__()
        self.adapter: Final = adapter  # not the key of its scale: it does not act at this place
        self.attention: Final = key
        self.heads: Final = heads

    def run(self, context: Context, *inputs: Tensor) -> tuple[Tensor, ...]:
        if context.get(f"{self.adapter}.scale") is None:
            return inputs
        q, k = (x.float().unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in inputs[:2])
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        context.memory[self.attention] = weights.mean(1).sum(1)
        return inputs

    def extra_repr(self) -> str:
        return repr(self.attention)


class AwayFromBlurred(Chain):
    """Returns how the unguided prediction changes where latents are blurred (arXiv:2210.00939).

    Args:
        adapter: The adapter with the numbers.
        attention: The key of the recorded attention.
        predict: The network.
    """

    branches: nn.Module
    predict: nn.Module

    def __init__(self, adapter: SelfAttentionGuidance, attention: str, predict: nn.Module) -> None:
        super().__init__(branches=Branches(), predict=predict)
        self.scale, self.attention = adapter.scale_key, attention
        self.strength, self.threshold = adapter.strength, adapter.threshold
        self.sigma, self.size = adapter.sigma, adapter.size

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        names: Sequence[str] = context["branches"]
        name = UNCOND if UNCOND in names else COND
        prediction = by_branch(names, inputs[0])[name]
        attention = by_branch(names, context.memory[self.attention])[name]
        latents = self._blurred(context, prediction.float(), attention).to(prediction.dtype)
        scope = context.scope()
        scope["branches"] = (name,)
        rows = self.call(self.branches, scope, latents)
        weight = self.strength * scale_of_rows(context[self.scale], len(prediction))
        return weight * (prediction - self.call(self.predict, scope, rows))

    def _blurred(self, context: Context, prediction: Tensor, attention: Tensor) -> Tensor:
        """Returns the latents of the step, blurred where attention exceeds the threshold."""
        clean, sampler = to_clean(context, prediction), context["sampler"]
        level: Level = sampler.path[context["step"]]
        height, width = grid_of(context, attention.shape[1])
        is_seen = (attention > self.threshold).float().view(-1, 1, height, width)
        mask = interpolate(is_seen, clean.shape[-2:])
        mixed = torch.lerp(clean, blurred(clean, self.sigma, self.size), mask)
        return level.add_noise(mixed, to_noise(context, prediction))
