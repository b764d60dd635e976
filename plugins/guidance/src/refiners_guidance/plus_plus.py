"""CFG++: guidance on the manifold, which renews noise from the unguided prediction."""

from collections.abc import Iterable
from typing import Any, Final

from torch import Tensor, nn

from refiners_core import Chain, Context, Edit, Seat
from refiners_core.errors import ConditionError
from refiners_core.models.diffusion import UNCOND, GenerationRequest, LatentDiffusion, by_branch
from refiners_core.models.samplers import DDIM, Euler
from refiners_core.option import number
from refiners_guidance.clean import noise_after, to_noise
from refiners_guidance.rule import Rule, scale_of_rows


class PlusPlus(Rule):
    """Guides clean latents with a scale below 1, and adds the noise of the unguided prediction.

    A DDIM step adds the noise that its prediction implies. CFG++ (arXiv:2406.08070, algorithm 2)
    takes that of the unguided prediction, so that latents stay where the network knows them, and
    needs guidance of 0...1 only. It is defined for DDIM and for Euler's method, with and without
    fresh noise.

    Args:
        strength: The scale of guidance in 0...1 (`lambda`), in place of `generate(guidance=...)`,
            which must be above 1 for the pass of the negative prompt to run.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: `strength` is not a number in 0...1.
    """

    def __init__(self, *, strength: float = 0.6, **options: Any) -> None:
        super().__init__(**options)
        self.strength: Final = number("strength", strength, 0.6, high=1.0, low=0)

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses a generation without guidance, and other samplers.

        Raises:
            ConditionError: The scale of guidance is at most 1, or the sampler is another one.
        """
        super().check(value, request)
        sampler = request.sampler
        if sampler is not None and not isinstance(sampler, DDIM | Euler):
            raise ConditionError(
                f"{self.key} is defined for DDIM and for Euler's method, not for "
                f"{type(sampler).__name__}.",
                hint='Pass sampler="ddim" or sampler="euler".',
            )

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Lowers the scale of guidance, and exchanges the noise that a step adds."""
        noise = self.context_key("noise")

        def lowered(inner: nn.Module, seat: Seat) -> nn.Module:
            return LowerGuidance(self.scale_key, noise, self.strength, inner)

        def renewed(inner: nn.Module, seat: Seat) -> nn.Module:
            return RenewNoise(self.scale_key, noise, inner)

        return (
            *model.slot("denoise.guidance").wrap(lowered, stage="output"),
            *model.slot("denoise.step").wrap(renewed, stage="output"),
        )


class LowerGuidance(Chain):
    """Runs guidance with a scale below 1, and keeps the noise of the unguided prediction.

    Args:
        scale: The context key of the scale of the adapter.
        noise: The context key of the noise.
        strength: The scale of guidance.
        inner: Guidance.
    """

    inner: nn.Module

    def __init__(self, scale: str, noise: str, strength: float, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.scale, self.noise, self.strength = scale, noise, strength

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        scale = context.get(self.scale)
        passes = by_branch(context["branches"], inputs[0])
        if scale is None or UNCOND not in passes:
            return self.call(self.inner, context, *inputs)
        scope, guidance = context.scope(memory=context.memory), context["guidance"]
        weight = scale_of_rows(scale, len(passes[UNCOND]))
        scope["guidance"] = guidance + weight * (self.strength - guidance)
        context[self.noise] = to_noise(context, passes[UNCOND].float())
        return self.call(self.inner, scope, *inputs)


class RenewNoise(Chain):
    """Exchanges the noise that a first-order step adds.

    Args:
        scale: The context key of the scale of the adapter.
        noise: The context key of the noise that it adds instead.
        inner: The step of the sampler.
    """

    inner: nn.Module

    def __init__(self, scale: str, noise: str, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.scale, self.noise = scale, noise

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        stepped: Tensor = self.call(self.inner, context, *inputs)
        scale, noise = context.get(self.scale), context.get(self.noise)
        if scale is None or noise is None:
            return stepped
        exchanged = noise_after(context, noise - to_noise(context, inputs[0].float()))
        weight = scale_of_rows(scale, len(stepped))
        return (stepped.float() + weight * exchanged).to(stepped.dtype)
