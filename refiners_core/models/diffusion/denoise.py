"""One step of denoising, as a tree that adapters can edit like any other."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from refiners_core.errors import ContextError
from refiners_core.models.diffusion.inpaint import MASKED_IMAGE, PutBack
from refiners_core.models.samplers import Sampler
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Concatenate, Identity, SetContext, UseContext
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer
from refiners_core.tree.memory import Memory

_MEMORY_IN_USE = "predict.memory"
UNCOND = "uncond"
"""The branch without the prompt: it reads the negative prompt."""
COND = "cond"
"""The branch with the prompt; its tensors serve every branch that has no others."""


class Branches(Layer):
    """Repeats the latents for each branch and puts the rows of the conditioning into the context.

    `context["branches"]` names the branches. `context["conditions"]` maps each key to a tensor per
    branch, with one row or one for each image; the rows of all branches, branch by branch, become
    `context[key]`. From here on `context.memory` keeps rows by branch.

    Raises:
        ContextError: A key has a tensor neither for a branch nor for `cond`.
    """

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows channels height width"]:
        latents: Tensor = inputs[0]
        names: Sequence[str] = context["branches"]
        conditions: Mapping[str, Mapping[str, Tensor]] = context["conditions"]
        for key, tensors in conditions.items():
            context[key] = branch_rows(key, tensors, names, len(latents))
        context.memory.lay(names, len(latents) * len(names))
        return latents if len(names) == 1 else torch.cat([latents] * len(names))


class Predict(Chain):
    """Runs the network on the rows of all branches, at once or branch by branch.

    With `context["sequential"]` each branch runs alone: the same prediction in less memory.
    """

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows channels height width"]:
        memory = context.memory
        is_again = context.get(_MEMORY_IN_USE) is memory
        context[_MEMORY_IN_USE] = memory
        if is_again:  # an adapter runs the network once more; the values of two passes never mix
            context.memory = Memory()
        try:
            return self._predicted(context, *inputs)
        finally:
            context.memory = memory

    def _predicted(self, context: Context, *inputs: Any) -> Tensor:
        names: Sequence[str] = context["branches"]
        if not context.get("sequential") or len(names) == 1:
            return super().run(context, *inputs)
        predictions: list[Tensor] = []
        memory = context.memory
        memory.lay(names, len(inputs[0]))
        for name, rows in zip(names, inputs[0].chunk(len(names)), strict=True):
            memory.lay((name,), len(rows), is_alone=True)
            scope = context.scope(memory=memory)
            scope["branches"] = (name,)
            for key, tensors in context["conditions"].items():
                scope[key] = branch_rows(key, tensors, (name,), len(rows))
            predictions.append(super().run(scope, rows))
        memory.lay(names, len(inputs[0]))
        return torch.cat(predictions)


class Guidance(Layer):
    """Classifier-free guidance (arXiv:2207.12598), as released: `uncond + g (cond - uncond)`.

    Without an `uncond` branch it returns the prediction of `cond`. Branches that adapters add are
    for these adapters to use. With `context["guidance_rescale"]`, in 0...1, the standard deviation
    of the result moves that far towards that of `cond` (arXiv:2305.08891, equations 15 and 16).
    """

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "count channels height width"]:
        prediction: Tensor = inputs[0]
        names: Sequence[str] = context["branches"]
        predictions = by_branch(names, prediction)
        cond, uncond = predictions[COND], predictions.get(UNCOND)
        if uncond is None:
            return cond
        guided = uncond + context["guidance"] * (cond - uncond)
        phi = context.get("guidance_rescale", 0.0)
        if phi == 0:
            return guided
        dims = tuple(range(1, guided.ndim))
        contrast = cond.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
        return guided * (phi * contrast + (1 - phi))


class SamplerStep(Layer):
    """Runs a step of `context["sampler"]` from `context["latents"]`, given a prediction.

    `context["step"]` is the position in the path of the sampler: one that runs the network twice in
    a step of the caller has two of them. Reads `context["past"]`, what the sampler kept of earlier
    steps, and `context["noise"]` if it adds noise in this one. Writes the clean latents that the
    prediction implies under `clean`, and what the next step reads under `past`.
    """

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "count channels height width"]:
        sampler: Sampler = context["sampler"]
        past: tuple[Tensor, ...] = context.get("past", ())
        stepped = sampler.step(
            context["latents"],
            inputs[0],
            context["step"],
            past=past,
            noise=context["noise"] if sampler.draws(context["step"]) else None,
        )
        context["clean"] = stepped.clean
        context["past"] = stepped.past
        return stepped.latents


class Denoise(Chain):
    """One step of denoising: latents at one noise level to latents at the next.

    Args:
        unet: The network, which may be a component of a model as well.
        is_inpainting: Whether the network reads a mask and a masked image beside the latents.
    """

    def __init__(self, unet: nn.Module, *, is_inpainting: bool = False) -> None:
        channels: dict[str, nn.Module] = {}
        if is_inpainting:
            channels["channels"] = Concatenate(
                latents=Identity(), masked_image=UseContext(MASKED_IMAGE)
            )
        super().__init__(
            latents=SetContext("latents"),
            branches=Branches(),
            predict=Predict(**channels, unet=unet),
            guidance=Guidance(),
            step=SamplerStep(),
            put_back=PutBack(),
        )


def by_branch(
    branches: Sequence[str], rows: Shaped[Tensor, "rows *shape"]
) -> dict[str, Shaped[Tensor, "count *shape"]]:
    """Returns the rows of each branch, as views.

    Args:
        branches: The names of the branches that run together, `context["branches"]`.
        rows: As many rows for each branch, branch by branch.

    Example:
        >>> by_branch(("uncond", "cond"), torch.tensor([1, 2, 3, 4]))["cond"]
        tensor([3, 4])
    """
    return dict(zip(branches, rows.chunk(len(branches)), strict=True))


def branch_rows(
    key: str, tensors: Mapping[str, Tensor], branches: Sequence[str], count: int
) -> Shaped[Tensor, "rows *shape"]:
    """Returns the rows of all branches, branch by branch, `count` for each.

    Args:
        key: The context key, for messages.
        tensors: A tensor per branch; a branch without one takes that of `cond`.
        branches: The names of the branches.
        count: The number of rows of a branch.

    Raises:
        ContextError: A branch has no tensor, or one with neither 1 nor `count` rows.
    """
    rows: list[Tensor] = []
    for name in branches:
        value = tensors.get(name, tensors.get(COND))
        if value is None:
            raise ContextError(
                f"{key!r} has a tensor neither for the branch {name!r} nor for {COND!r}.",
                hint=f'Return {{"{key}": {{"{COND}": tensor}}}} from encode().',
            )
        if len(value) not in (1, count):
            raise ContextError(
                f"{key!r} has {len(value)} rows for the branch {name!r}, but there are {count}.",
                hint="A value has one row for all of them or a row for each.",
            )
        rows.append(value.expand(count, *value.shape[1:]))
    return rows[0] if len(rows) == 1 else torch.cat(rows)
