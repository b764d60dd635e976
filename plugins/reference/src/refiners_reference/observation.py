"""The pass over the reference, and what its layers record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Context, Layer, Memory
from refiners_core.models.diffusion import UNCOND
from refiners_core.models.samplers import Sampler


class Observe(Layer):
    """Runs the network on the reference, as noisy as the latents are now, and returns what layers
    record of it.

    Args:
        key: The key of the adapter.
        predict: The network with all its branches, `denoise.predict`.
    """

    def __init__(self, key: str, predict: nn.Module) -> None:
        super().__init__()
        self.key: Final = key
        self.predict: Final = (predict,)  # not a child: it stays where it is in the tree

    def run(self, context: Context, *inputs: Any) -> Memory:
        sampler: Sampler = context["sampler"]
        conditions: Mapping[str, Any] = context["conditions"]
        names = dict.fromkeys(key.partition(".")[0] for key in conditions)
        others = [name for name in names if name != self.key and f"{name}.scale" in context]
        memory = context.memory.part(self.key)
        scope = context.scope(memory=memory, without=others)
        scope["conditions"] = {
            key: value for key, value in conditions.items() if key.partition(".")[0] not in others
        }
        traces = scope[f"{self.key}.records"] = Memory()
        level = sampler.path[context["step"]]
        reference = level.add_noise(scope[f"{self.key}.latents"], scope[f"{self.key}.noise"])
        self.call(self.predict[0], scope, reference)
        return traces

    def extra_repr(self) -> str:
        return repr(self.key)


@dataclass(frozen=True)
class Trace:
    """Records what layers at one place make of the reference, by guidance branch."""

    key: str
    """The key of the adapter."""
    place: int
    """The number of the place."""
    style_fidelity: float
    """How far the branch without a prompt stays as it is, in 0...1."""

    @property
    def scale_key(self) -> str:
        """The context key of the adapter's scale."""
        return f"{self.key}.scale"

    def is_written(self, context: Context) -> bool:
        """Whether the pass over the reference runs now."""
        return context.get(f"{self.key}.records") is not None

    def write(self, context: Context, *values: Float[Tensor, "rows *shape"]) -> None:
        """Records values, unless the place has recorded some in this pass."""
        names: Sequence[str] = context["branches"]
        traces: Memory = context[f"{self.key}.records"]
        for value_index, value in enumerate(values):
            for name, rows in zip(names, value.chunk(len(names)), strict=True):
                key = self._name(name, value_index)
                if key not in traces:
                    traces[key] = rows

    def read(self, context: Context, count: int) -> tuple[Float[Tensor, "rows *shape"], ...] | None:
        """Returns so many values for the branches that run now; None if the place has none."""
        names: Sequence[str] = context["branches"]
        traces: Memory | None = context.get(f"{self.key}.traces")
        if traces is None or self._name(names[0], 0) not in traces:
            return None
        return tuple(
            [torch.cat([traces[self._name(name, i)] for name in names]) for i in range(count)]
        )

    def mixed(
        self,
        plain: Float[Tensor, "rows *shape"],
        changed: Float[Tensor, "rows *shape"],
        context: Context,
    ) -> Float[Tensor, "rows *shape"]:
        """Interpolates features from plain to changed ones by the scale of the adapter; in the
        branch without a prompt, style fidelity takes the change back."""
        names: Sequence[str] = context["branches"]
        if self.style_fidelity > 0 and UNCOND in names:
            pairs = zip(names, plain.chunk(len(names)), changed.chunk(len(names)), strict=True)
            changed = torch.cat(
                [
                    torch.lerp(rows, plain_rows, self.style_fidelity) if name == UNCOND else rows
                    for name, plain_rows, rows in pairs
                ]
            )
        return torch.lerp(plain, changed, context[self.scale_key])

    def _name(self, branch: str, value: int) -> str:
        return f"{branch}/{self.place}/{value}"
