"""
TeaCache
========

The network is skipped while its input has moved little since it last ran (arXiv:2411.19108).
"""

# %%
# Whether it is skipped depends on numbers, so a Python branch decides, around ``denoise.predict``
# and therefore outside the blocks that ``model.compile()`` compiles.

from typing import Any

from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Seat


class Lazy(Chain):
    """Runs its child when the changes of the input add up to a threshold (arXiv:2411.19108,
    equation 6), and at the first and the last step."""

    def __init__(self, adapter: Adapter, threshold: float, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.scale, self.threshold = adapter.scale_key, threshold
        self.seen, self.moved = adapter.context_key("seen"), adapter.context_key("moved")
        self.prediction = adapter.context_key("prediction")

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        if self.scale not in context:
            return self.call(self.inner, context, *inputs)
        memory, x = context.memory, inputs[0]
        seen, prediction = memory.get(self.seen), memory.get(self.prediction)
        moved = memory.get(self.moved, 0.0)
        if seen is not None:
            moved += float((x - seen).abs().mean() / seen.abs().mean())
        is_due = context["is_last_step"] or moved >= self.threshold
        if prediction is None or is_due:
            prediction, moved = self.call(self.inner, context, x), 0.0
        memory[self.seen], memory[self.moved], memory[self.prediction] = x, moved, prediction
        return prediction


class TeaCache(Adapter):
    """Skips the network where its input moved little (arXiv:2411.19108)."""

    def __init__(self, threshold: float = 0.2, **options: Any) -> None:
        super().__init__(**options)
        self.threshold = threshold

    def edits(self, model: Any) -> tuple[Edit, ...]:
        def lazy(inner: nn.Module, seat: Seat) -> nn.Module:
            return Lazy(self, self.threshold, inner)

        return model.slot("denoise.predict").wrap(lazy, stage="output", name="lazy")


# %%
# On the playground
# -----------------

if __name__ == "__main__":
    import refiners

    model = refiners.load_model("playground")
    options = {"steps": 24, "seed": 3, "progress": False}
    calls: list[int] = []
    model.unet.register_forward_hook(lambda *_: calls.append(1))
    pictures = [model.generate("a yellow star on a blue background", **options)]
    with TeaCache(key="tea").on(model):
        pictures.append(model.generate("a yellow star on a blue background", **options))
    print(f"the UNet ran {len(calls) - 24} times in 24 steps")
