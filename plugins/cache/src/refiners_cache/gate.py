"""T-GATE: attention to the text is kept from a step on, and the unguided pass is left out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from refiners_cache.idle import keys_of
from refiners_cache.situation import Situation
from refiners_core import Adapter, Chain, Context, Edit, Layer, Memory, Seat
from refiners_core.models.diffusion import COND, UNCOND, LatentDiffusion
from refiners_core.models.samplers import Sampler
from refiners_core.option import whole

Act = Literal["run", "keep", "share", "reuse"]
"""The work of attentions at a step: run; run and keep their outputs; keep the mean of the passes
with and without the prompt for both; or return what they kept."""


class TGate(Adapter):
    """Reuses outputs of attention once a picture has taken shape (T-GATE, arXiv:2404.02747).

    Before the gate, self-attention runs at some steps and is reused at others. At the last step
    before the gate every cross-attention keeps the mean of its outputs in the passes with and
    without the prompt. After it these are reused, and the pass without the prompt is left out. As
    soon as anything that they depend on changes (an adapter begins, ends or changes its scale, the
    prompts or the size are others), a step runs with both passes again.

    Args:
        gate_step: The first step after the gate, counted from 0. A sampler that runs the network
            twice in a step does not change the count.
        sp_interval: Before the gate, self-attention runs at steps that this number divides.
        fi_interval: The same after the gate.
        warm_up: The first step at which self-attention is kept.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: An option is out of range.

    Example:
        >>> TGate(name="t-gate").gate_step
        10
    """

    def __init__(
        self,
        *,
        gate_step: int = 10,
        sp_interval: int = 5,
        fi_interval: int = 1,
        warm_up: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.gate_step: Final = whole("gate_step", gate_step, 10)
        self.sp_interval: Final = whole("sp_interval", sp_interval, 5)
        self.fi_interval: Final = whole("fi_interval", fi_interval, 1)
        self.warm_up: Final = whole("warm_up", warm_up, 2, low=0)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Decides before the passes of a step, and keeps or reuses the outputs of attentions."""
        gate = Gate(self.key, self.gate_step, self.sp_interval, self.fi_interval, self.warm_up)

        def gated(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(gate, inner)

        edits = [*model.slot("denoise.branches").wrap(gated, stage="inputs", name="gate")]
        for kind in ("cross", "self"):
            seats = model.slot(f"unet.{kind}_attention")
            edits += self._reused(seats, self.context_key(kind))
        return edits

    def _reused(self, seats: Any, act: str) -> Iterable[Edit]:
        keys = keys_of(seats, act)

        def reused(inner: nn.Module, seat: Seat) -> nn.Module:
            return KeepOutput(keys[seat.path], act, self.context_key("unguided"), inner)

        return seats.wrap(reused, stage="around", name="reuse")


@dataclass(frozen=True)
class Kept:
    """The record of the steps so far."""

    situation: Situation
    """The situation at the last step."""
    has_self: bool
    """Whether the outputs of self-attention are kept."""
    has_cross: bool
    """Whether those of cross-attention are."""


class Gate(Layer):
    """Decides what attentions do at a step, leaves out a pass after the gate, and returns its
    input.

    Args:
        key: The key of the adapter.
        gate_step: The first step after the gate.
        sp_interval: Before the gate, the interval of steps at which self-attention runs.
        fi_interval: The same after the gate.
        warm_up: The first step at which self-attention is kept.
    """

    def __init__(
        self, key: str, gate_step: int, sp_interval: int, fi_interval: int, warm_up: int
    ) -> None:
        super().__init__()
        self.key: Final = key
        self.gate_step: Final = gate_step
        self.sp_interval: Final = sp_interval
        self.fi_interval: Final = fi_interval
        self.warm_up: Final = warm_up

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        (latents,) = inputs
        if context.get(f"{self.key}.scale") is None:
            return latents
        sampler: Sampler = context["sampler"]
        step = sampler.step_numbers[context["step"]]
        now, memory = Situation.of(context, latents), context.memory
        kept: Kept | None = memory.get(f"{self.key}.kept")
        if kept is not None and not kept.situation.is_same(now):
            kept = None
        is_gated = step >= self.gate_step and kept is not None and kept.has_cross
        is_last = step >= self.gate_step - 1 and not is_gated
        cross: Act = "reuse" if is_gated else "share" if is_last else "run"
        among: Act = "share" if is_last else self._self_act(step, is_gated, kept)
        context[f"{self.key}.cross"], context[f"{self.key}.self"] = cross, among
        context[f"{self.key}.unguided"] = Memory()
        has_self = among != "run" or (kept is not None and kept.has_self)
        memory[f"{self.key}.kept"] = Kept(now, has_self, is_gated or is_last)
        if is_gated:
            names: Sequence[str] = context["branches"]
            context["branches"] = tuple(name for name in names if name != UNCOND)
        return latents

    def _self_act(self, step: int, is_gated: bool, kept: Kept | None) -> Act:
        """Returns what self-attentions do, at any step but the last one before the gate."""
        interval = self.fi_interval if is_gated else self.sp_interval
        if not is_gated and step < self.warm_up:
            return "run"
        is_due = kept is None or not kept.has_self or step % interval == 0
        return "keep" if is_due or (not is_gated and step == self.warm_up) else "reuse"

    def extra_repr(self) -> str:
        return f"{self.key!r}, gate_step={self.gate_step}"


class KeepOutput(Chain):
    """Runs an attention, or returns what it returned at an earlier step for as many tokens.

    Args:
        value: The key of `context.memory` for the output.
        act: The context key that says which.
        unguided: The context key of the outputs of the pass without the prompt at this step, for a
            pass with the prompt that runs apart.
        inner: The attention.
    """

    inner: nn.Module

    def __init__(self, value: str, act: str, unguided: str, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.value: Final = value
        self.act: Final = act
        self.unguided: Final = unguided

    def run(self, context: Context, *inputs: Any) -> Tensor:
        act: Act | None = context.get(self.act)
        if act == "reuse":
            value = context.memory.get(self.value)
            if value is not None and value.shape[1] == inputs[0].shape[1]:
                return value
        output: Tensor = self.call(self.inner, context, *inputs)
        if act == "share":
            context.memory[self.value] = self._shared(context, output)
        elif act == "keep" or act == "reuse":
            context.memory[self.value] = output
        return output

    def _shared(self, context: Context, output: Tensor) -> Tensor:
        """Returns an output in which the passes with and without the prompt have their mean."""
        names: Sequence[str] = context["branches"]
        rows = dict(zip(names, output.chunk(len(names)), strict=True))
        apart: Memory = context[self.unguided]
        if UNCOND in rows and COND not in rows:
            apart[self.value] = rows[UNCOND]
        without = rows.get(UNCOND, apart.get(self.value))
        if COND not in rows or without is None:
            return output
        mean = (without + rows[COND]) / 2
        shared: Mapping[str, Tensor] = {UNCOND: mean, COND: mean}
        return torch.cat([shared.get(name, rows[name]) for name in names])

    def extra_repr(self) -> str:
        return f"{self.value!r}, {self.act!r}"
