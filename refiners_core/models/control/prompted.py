"""A side network that steers only the branches of guidance that read the prompt."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from refiners_core.models.diffusion.denoise import COND, UNCOND, branch_rows
from refiners_core.tree.chain import Chain
from refiners_core.tree.context import Context


class PromptedRows(Chain):
    """Runs its children on the rows of all branches but `uncond`; the others get zeros.

    It acts while the context has a value for `on`. The rows of every conditioning value are chosen
    alike, so that the children see one consistent, smaller batch. In a pass that has the rows of
    `uncond` alone nothing runs, and every output is None.

    Args:
        on: The context key that switches it on; a value of None counts as absent.
        count: The number of outputs of the children.
        named: The children, which return a tuple of tensors, or of None.
    """

    def __init__(self, on: str, count: int, **named: nn.Module) -> None:
        super().__init__(**named)
        self.on: Final = on
        self.count: Final = count

    def run(self, context: Context, *inputs: Any) -> tuple[Tensor | None, ...]:
        names: Sequence[str] = context.get("branches", (COND,))
        prompted = tuple(name for name in names if name != UNCOND)
        if context.get(self.on) is None or len(prompted) == len(names):
            return super().run(context, *inputs)
        if not prompted:
            return (None,) * self.count
        rows = dict(zip(names, inputs[0].chunk(len(names)), strict=True))
        scope = context.scope()
        scope["branches"] = prompted
        for key, tensors in context["conditions"].items():
            scope[key] = branch_rows(key, tensors, prompted, len(rows[prompted[0]]))
        outputs = super().run(scope, torch.cat([rows[name] for name in prompted]))
        return tuple([_padded(output, names, prompted) for output in outputs])

    def extra_repr(self) -> str:
        return repr(self.on)


def _padded(output: Tensor | None, names: Sequence[str], prompted: Sequence[str]) -> Tensor | None:
    """Returns an output with the rows of all branches, zeros for those left out."""
    if output is None:
        return None
    parts = dict(zip(prompted, output.chunk(len(prompted)), strict=True))
    nothing = torch.zeros_like(parts[prompted[0]])
    return torch.cat([parts.get(name, nothing) for name in names])
