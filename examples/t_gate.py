"""
T-GATE
======

Once a picture has taken shape, attention to the text hardly changes: after a gate step its outputs
are reused, and the pass without the prompt is left out (arXiv:2404.02747).
"""

# %%
# ``context.memory`` keeps rows by branch. So what both passes remembered up to the gate is there
# for ``cond`` alone after it.

from typing import Any

from torch import nn

from refiners_core import Adapter, Context, Edit, Layer, Passthrough, Reuse, Seat, When


class Gate(Layer):
    """From the gate on, sets a flag and keeps the pass with the prompt alone."""

    def __init__(self, on: str, after: float) -> None:
        super().__init__()
        self.on, self.after = on, after

    def run(self, context: Context, *inputs: Any) -> None:
        is_after = context["step"] >= self.after * context["steps"]
        context[self.on] = is_after
        if is_after:
            context["branches"] = tuple(name for name in context["branches"] if name != "uncond")


class TGate(Adapter):
    """Reuses the outputs of cross-attention after a share of the steps (arXiv:2404.02747)."""

    def __init__(self, after: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        self.after = after

    def edits(self, model: Any) -> tuple[Edit, ...]:
        on = self.context_key("on")
        attention = model.slot("unet.cross_attention")
        keys = {seat.path: self.context_key(f"seen.{i}") for i, seat in enumerate(attention)}

        def reused(inner: nn.Module, seat: Seat) -> nn.Module:
            return Reuse(keys[seat.path], inner, on=on)

        gate = Passthrough(When(self.scale_key, Gate(on, self.after)))
        return (
            *model.slot("denoise.branches").before("gate", lambda seat: gate),
            *attention.wrap(reused, stage="output", name="reuse"),
        )


# %%
# On the playground
# -----------------

if __name__ == "__main__":
    import refiners

    model = refiners.load_model("playground")
    options = {"steps": 12, "seed": 3, "progress": False}
    pictures = [model.generate("a yellow star on a blue background", **options)]
    with TGate(after=0.6, key="gate").on(model):
        print(model.slot("unet.cross_attention")[0].chain)
        pictures.append(model.generate("a yellow star on a blue background", **options))
