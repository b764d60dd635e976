"""Compiled blocks of a language model serve texts with adapters of their own."""

from typing import Any

import torch
from refiners_lora.adapter import Lora

from refiners_core import RowScale
from refiners_core.testing import tiny_language_model

IDS = torch.tensor([[3, 7, 12, 40], [7, 9, 3, 200], [1, 2, 3, 4], [90, 91, 92, 93]])


@torch.no_grad()
def test_a_compiled_block_serves_rows_as_well():
    model = tiny_language_model(ends=())
    a, b = (Lora(rank=2, name="tenant").inject(model) for _ in range(2))
    for adapter in (a, b):
        adapter.requires_grad_(False)
        for weight in adapter.parameters():
            weight.normal_(std=0.3)
    graphs: list[Any] = []

    def counted(graph: Any, inputs: Any) -> Any:
        graphs.append(inputs)
        return graph.forward

    def logits(*scales: list[float]) -> torch.Tensor:
        pairs = zip((a, b), scales, strict=False)
        context = {adapter.scale_key: RowScale.of(scale) for adapter, scale in pairs}
        return model.decoder(IDS, context=context)

    scales = [1.0, 0.0, 0.0, 0.5], [0.0, 1.0, 0.0, 0.0]
    expected, bare = logits(*scales), logits()
    model.compile(backend=counted)
    rows = logits(*scales)
    assert torch.allclose(rows, expected, atol=1e-4)
    assert torch.allclose(rows[2], bare[2], atol=1e-5)
    assert not torch.allclose(rows[0], bare[0], atol=1e-2)
    count = len(graphs)
    logits([0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0])
    assert len(graphs) == count, "other rows need no other graph"
