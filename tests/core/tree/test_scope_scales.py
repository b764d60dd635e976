"""Inside a scope, adapters act at a share of their scale."""

from typing import Any

import pytest
import torch

from refiners_core import Adapter, Chain, Condition, Context, Multiply, Sum, When
from refiners_core.testing import tiny_model


class Twice(Adapter):
    """Adds the output of the middle to itself, as often as the scale says."""

    def edits(self, model: Any) -> Any:
        def more(inner: Any, seat: Any) -> Any:
            return Sum(inner, When(self.scale_key, inner, Multiply(self.scale_key)))

        return model.slot("unet.mid.output").wrap(more)


class Share(Adapter):
    """Runs the network in a scope in which another adapter acts at a share of its scale."""

    def __init__(self, other: str, share: float) -> None:
        super().__init__(key="share")
        self.other, self.share = other, share

    def edits(self, model: Any) -> Any:
        adapter = self

        class Scoped(Chain):
            def run(self, context: Context, *inputs: Any) -> Any:
                scales = {adapter.other: adapter.share}
                scope = context.scope(memory=context.memory.part("share"), scales=scales)
                return super().run(scope, *inputs)

        predict = model.slot("denoise.predict")
        return predict.wrap(lambda inner, seat: Scoped(inner), stage="output")


@pytest.mark.parametrize("scale", [0.8, {"unet.mid": 0.8}, [0.8, 0.4], {"unet.mid": [0.8, 0.4]}])
def test_a_scope_multiplies_scales_of_every_kind(scale: Any):
    model = tiny_model()
    options: Any = {"steps": 1, "count": 2, "seed": 1, "output": "latents", "progress": False}
    twice = Twice(key="twice").inject(model)

    def halved(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: halved(item) for name, item in value.items()}
        return [halved(item) for item in value] if isinstance(value, list) else value / 2

    expected = model.generate("a", conditions={twice: Condition(scale=halved(scale))}, **options)
    with Share("twice", 0.5).on(model):
        made = model.generate("a", conditions={twice: Condition(scale=scale)}, **options)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
    plain = model.generate("a", conditions={twice: None}, **options)
    assert not torch.allclose(made, plain, atol=1e-3)
