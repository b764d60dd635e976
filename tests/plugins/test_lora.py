"""A compiled model wears a LoRA. Shapes are not checked in this test: torch cannot compile that."""

import torch
from refiners_lora.adapter import Lora

from refiners_core import Condition
from refiners_core.testing import tiny_model


def test_a_compiled_model_wears_it():
    model = tiny_model()
    adapter = Lora(rank=2).inject(model)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.fill_(0.1)

    def latents(scale):
        conditions = {adapter: Condition(scale=scale)}
        return model.generate(
            "a", conditions=conditions, steps=1, seed=1, output="latents", progress=False
        )

    plain, bare = latents(0.5), latents(0)
    assert not torch.equal(plain, bare)
    model.compile(backend="eager")
    assert torch.equal(latents(0.5), plain)
