"""A compiled model wears LoRAs. Shapes are not checked here: torch cannot compile that."""

import pytest
import torch
from refiners_lora.adapter import Lora

from refiners_core import Condition
from refiners_core.testing import tiny_model


@pytest.mark.slow
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


@pytest.mark.slow
def test_loras_of_other_layers_and_ranks_swap_without_compiling():
    model, graphs = tiny_model(), []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    def latents(adapter):
        conditions = {adapter: Condition(scale=0.8)}
        return model.generate(
            "a", conditions=conditions, steps=1, seed=1, output="latents", progress=False
        )

    def random(rank, *names):
        def where(model):
            slots = (model.slot(slot) for slot in ("unet.linear", "text_encoder.linear"))
            return [seat for seats in slots for seat in seats if seat.name in names]

        adapter = Lora(rank=rank, where=where).inject(model)
        for weight in adapter.parameters():
            weight.data = torch.randn(weight.shape, generator=generator) * 0.3
        return adapter

    generator = torch.Generator().manual_seed(0)
    ink = random(2, "to_q", "contract").eject()
    wash = random(5, "to_v", "expand")
    expected = latents(wash)
    ink.reserve(wash.eject()).inject(model)
    model.compile(backend=backend)
    first, count = latents(ink), len(graphs)
    assert count > 0
    second = latents(ink.hotswap(wash))
    assert float((second - expected).norm() / expected.norm()) <= 1e-5
    assert torch.equal(latents(ink.hotswap(wash)), first)
    assert not torch.equal(first, second)
    assert len(graphs) == count
