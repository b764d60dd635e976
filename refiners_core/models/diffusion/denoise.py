"""One step of denoising, as a tree that adapters can edit like any other."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core.errors import ContextError
from refiners_core.models.diffusion.inpaint import BESIDE, PutBack
from refiners_core.models.samplers import Sampler
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Concatenate, Identity, SetContext, UseContext
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer

UNCOND = "uncond"
"""The branch that is told nothing, or the negative prompt."""
COND = "cond"
"""The branch that is told everything; a branch without a value of its own takes this one's."""


class Branches(Layer):
    """Repeats the latents for each branch, branch by branch, and lays out what each is told.

    `context["branches"]` names them; `context["conditions"]` says for each key a tensor per
    branch, of one row or as many as there are latents; the rows for all branches are put into the
    context under that key.

    Raises:
        ContextError: A key has neither a value for a branch nor one for `cond`.
    """

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows channels height width"]:
        latents: Tensor = inputs[0]
        names: Sequence[str] = context["branches"]
        conditions: Mapping[str, Mapping[str, Tensor]] = context["conditions"]
        for key, told in conditions.items():
            context[key] = rows_of(key, told, names, len(latents))
        return latents if len(names) == 1 else torch.cat([latents] * len(names))


class Predict(Chain):
    """What the network says of the rows of all branches, at once or branch by branch.

    With `context["sequential"]` each branch runs alone: the same result in less memory.
    """

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows channels height width"]:
        names: Sequence[str] = context["branches"]
        if not context.get("sequential") or len(names) == 1:
            return super().run(context, *inputs)
        predictions: list[Tensor] = []
        for name, rows in zip(names, inputs[0].chunk(len(names)), strict=True):
            alone = context.scope()
            alone["branches"] = (name,)
            for key, told in context["conditions"].items():
                alone[key] = rows_of(key, told, (name,), len(rows))
            predictions.append(super().run(alone, rows))
        return torch.cat(predictions)


class Guidance(Layer):
    """Classifier-free guidance (arXiv:2207.12598), as released: `uncond + g (cond - uncond)`.

    Where there is no `uncond` branch, it returns what `cond` says. Branches that adapters add are
    theirs to use. With `context["guidance_rescale"]`, from 0 to 1, the result gets that share of
    the contrast that `cond` has (arXiv:2305.08891, equations 15 and 16).
    """

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "count channels height width"]:
        prediction: Tensor = inputs[0]
        names: Sequence[str] = context["branches"]
        says = dict(zip(names, prediction.chunk(len(names)), strict=True))
        if UNCOND not in says:
            return says[COND]
        guided = says[UNCOND] + context["guidance"] * (says[COND] - says[UNCOND])
        phi = context.get("guidance_rescale", 0.0)
        if phi == 0:
            return guided
        each = tuple(range(1, guided.ndim))
        contrast = says[COND].std(each, keepdim=True) / guided.std(each, keepdim=True)
        return guided * (phi * contrast + (1 - phi))


class SamplerStep(Layer):
    """Goes a step of `context["sampler"]` from `context["latents"]`, given a prediction.

    It reads `context["past"]`, the clean latents of the steps before, where the sampler looks back,
    and `context["noise"]` where it is stochastic. It writes the clean latents that the prediction
    implies under `clean`, and what the next step finds before it under `past`.
    """

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "count channels height width"]:
        sampler: Sampler = context["sampler"]
        past: tuple[Tensor, ...] = context.get("past", ())
        stepped = sampler.step(
            context["latents"],
            inputs[0],
            context["step"],
            past=past,
            noise=context["noise"] if sampler.is_stochastic else None,
        )
        context["clean"] = stepped.clean
        context["past"] = (stepped.clean, *past)[: sampler.memory]
        return stepped.latents


class Denoise(Chain):
    """One step: latents in, less noisy latents out.

    Args:
        unet: The network, which may be a component of a model as well.
        is_inpainting: Whether the network sees a mask and a masked picture beside the latents.
    """

    def __init__(self, unet: nn.Module, *, is_inpainting: bool = False) -> None:
        beside: dict[str, nn.Module] = {}
        if is_inpainting:
            beside["beside"] = Concatenate(latents=Identity(), picture=UseContext(BESIDE))
        super().__init__(
            latents=SetContext("latents"),
            branches=Branches(),
            predict=Predict(**beside, unet=unet),
            guidance=Guidance(),
            step=SamplerStep(),
            put_back=PutBack(),
        )


def rows_of(
    key: str, told: Mapping[str, Tensor], branches: Sequence[str], count: int
) -> Float[Tensor, "rows *shape"]:
    """Returns the rows of all branches, branch by branch, `count` for each."""
    rows: list[Tensor] = []
    for name in branches:
        value = told.get(name, told.get(COND))
        if value is None:
            raise ContextError(
                f"{key!r} says nothing to the branch {name!r}, nor to {COND!r}, which would do.",
                hint=f'Return {{"{key}": {{"{COND}": tensor}}}} from encode().',
            )
        if len(value) not in (1, count):
            raise ContextError(
                f"{key!r} has {len(value)} rows for the branch {name!r}, but there are {count}.",
                hint="A value has one row for all of them or a row for each.",
            )
        rows.append(value.expand(count, *value.shape[1:]))
    return rows[0] if len(rows) == 1 else torch.cat(rows)
