"""
DeepCache
=========

The deep levels of the UNet change little from step to step: they run at every third step, and the
steps between reuse what they returned (arXiv:2312.00858).
"""

# %%
# A layer before the step decides whether the deep levels run, and writes the decision to the
# context. The last deep level is wrapped in ``Reuse``, which returns the remembered output while
# the flag is set; the levels before it need not run then.

from typing import Any

from torch import nn

from refiners_core import (
    Adapter,
    Chain,
    Context,
    Edit,
    Layer,
    Passthrough,
    Reuse,
    Seat,
    When,
    select,
)
from refiners_core.models.unet import DownBlock, MidBlock, UpBlock


class Between(Layer):
    """Sets a flag at all steps but every n-th."""

    def __init__(self, on: str, every: int) -> None:
        super().__init__()
        self.on, self.every = on, every

    def run(self, context: Context, *inputs: Any) -> None:
        context[self.on] = context["step"] % self.every != 0


class Idle(Chain):
    """Passes its input on while a flag is set, and runs its child otherwise."""

    def __init__(self, on: str, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.on = on

    def run(self, context: Context, *inputs: Any) -> Any:
        return inputs[0] if context.get(self.on) else super().run(context, *inputs)


class DeepCache(Adapter):
    """Runs the deep levels of the UNet at every n-th step alone (arXiv:2312.00858, section 3.3)."""

    def __init__(self, every: int = 3, **options: Any) -> None:
        super().__init__(**options)
        self.every = every

    def edits(self, model: Any) -> tuple[Edit, ...]:
        on, key = self.context_key("on"), self.context_key("deep")
        blocks = select(model).of(DownBlock, MidBlock, UpBlock)
        *deep, last = [seat.path for seat in blocks][1:-1]

        def idle(inner: nn.Module, seat: Seat) -> nn.Module:
            return Idle(on, inner)

        def reused(inner: nn.Module, seat: Seat) -> nn.Module:
            return Reuse(key, inner, on=on)

        flag = Passthrough(When(self.scale_key, Between(on, self.every)))
        return (
            *model.slot("denoise.branches").before("between", lambda seat: flag),
            *blocks.where(lambda seat: seat.path in deep).wrap(idle, stage="output", name="idle"),
            *blocks.where(lambda seat: seat.path == last).wrap(reused, stage="output"),
        )


# %%
# On the playground
# -----------------

if __name__ == "__main__":
    import refiners

    model = refiners.load_model("playground")
    options = {"steps": 12, "seed": 3, "progress": False}
    middle: list[int] = []
    model.unet.mid.register_forward_hook(lambda *_: middle.append(1))
    pictures = [model.generate("a yellow star on a blue background", **options)]
    with DeepCache(every=3, key="deep").on(model):
        pictures.append(model.generate("a yellow star on a blue background", **options))
    print(f"the middle ran {len(middle) - 12} times in place of 12")
