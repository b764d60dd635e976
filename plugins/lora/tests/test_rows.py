"""Each text of a batch has the adapters of its own; texts without one keep all bits."""

import json
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import refiners
import torch
from refiners_lora import joint
from refiners_lora.adapter import Lora

from refiners_core import Condition, RowScale
from refiners_core.errors import ConditionError
from refiners_core.models.decoder import LanguageModel
from refiners_core.testing import tiny_language_model
from refiners_core.weights import write

PREFIX = "base_model.model."
IDS = torch.tensor([[3, 7, 12, 40], [7, 9, 3, 200], [1, 2, 3, 4], [90, 91, 92, 93]])
model_of = partial(tiny_language_model, ends=())
LAYERS = {"self_attn.q_proj": (16, 16), "self_attn.v_proj": (16, 8), "mlp.down_proj": (24, 16)}


@cache
def saved(kind: str, seed: int = 0) -> Path:
    """Writes a folder of a kind with random weights."""
    noise = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=noise) * 0.3

    tensors: dict[str, torch.Tensor] = {}
    rank = 2 + seed
    for i in (0, 1):
        for layer, (inputs, outputs) in LAYERS.items():
            name = f"{PREFIX}model.layers.{i}.{layer}"
            if kind == "IA3":
                tensors[f"{name}.ia3_l"] = 1 + random(outputs, 1)
                continue
            tensors[f"{name}.lora_A.weight"] = random(rank, inputs)
            tensors[f"{name}.lora_B.weight"] = random(outputs, rank)
            if kind == "DoRA":
                tensors[f"{name}.lora_magnitude_vector"] = 1 + random(outputs)
    if kind == "head":
        tensors[f"{PREFIX}lm_head.weight"] = random(258, 16)
        tensors[f"{PREFIX}model.norm.weight"] = random(16)
        tensors[f"{PREFIX}model.embed_tokens.lora_embedding_A"] = random(rank, 258)
        tensors[f"{PREFIX}model.embed_tokens.lora_embedding_B"] = random(16, rank)
    folder = Path(mkdtemp())
    write(tensors, folder / "adapter_model.safetensors")
    fields: Mapping[str, Any] = {"peft_type": "LORA", "r": rank, "lora_alpha": 5}
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "IA3"} if kind == "IA3" else fields)
    )
    return folder


def logits(model: LanguageModel, scales: Mapping[Lora, Any]) -> torch.Tensor:
    context = {
        adapter.scale_key: RowScale.of(scale) if isinstance(scale, list) else torch.tensor(scale)
        for adapter, scale in scales.items()
    }
    with torch.no_grad():
        return model.decoder(IDS, context=context)


KINDS = [("LoRA", "LoRA"), ("LoRA", "head"), ("DoRA", "LoRA"), ("IA3", "DoRA"), ("head", "IA3")]


@pytest.mark.parametrize("most", [0, 10**9], ids=["apart", "jointly"])
@pytest.mark.parametrize("kinds", KINDS, ids="+".join)
def test_a_row_has_its_own_adapters(kinds: tuple[str, str], most: int, monkeypatch: Any):
    monkeypatch.setattr(joint, "_SMALL", most)
    monkeypatch.setattr(joint, "_COPIES", most)
    model = model_of()
    bare = logits(model, {})
    a, b = (refiners.load_adapter(saved(kind, i), model) for i, kind in enumerate(kinds))
    rows = logits(model, {a: [1.0, 0.0, 0.0, 0.5], b: [0.0, 1.0, 0.0, 2.0]})
    alone = [
        logits(model, {a: 1.0}),
        logits(model, {b: 1.0}),
        bare,
        logits(model, {a: 0.5, b: 2.0}),
    ]
    for row, expected in enumerate(alone):
        assert torch.allclose(rows[row], expected[row], rtol=1e-5, atol=1e-5)
        assert row == 2 or not torch.allclose(rows[row], bare[row], atol=1e-2)
    assert torch.equal(rows[2], bare[2])


def test_several_loras_are_computed_together(monkeypatch: Any):
    made: list[int] = []
    begin = joint.Joint.__init__

    def counted(self: Any, inner: Any, parts: Any, layout: Any) -> None:
        made.append(len(parts))
        begin(self, inner, parts, layout)

    monkeypatch.setattr(joint.Joint, "__init__", counted)
    model = model_of()
    a, b, c = (refiners.load_adapter(saved("LoRA", i), model) for i in range(3))
    conditions = {
        x: Condition(scale=[float(i == j) for j in range(3)]) for i, x in enumerate((a, b, c))
    }
    model.generate(["a", "b", "c"], conditions=conditions, max_new_tokens=4)
    assert made == [3] * 6  # once a generation for each layer


@pytest.mark.parametrize(
    "kinds", [("LoRA", "LoRA", "LoRA"), ("LoRA", "DoRA", "LoRA")], ids="+".join
)
def test_a_row_has_the_bits_of_its_adapters_in_any_company(kinds: tuple[str, ...]):
    model = model_of()
    a, b, c = (
        refiners.load_adapter(saved(kind, seed), model)
        for kind, seed in zip(kinds, (0, 9, 4), strict=True)
    )
    for others in (
        {a: [1.0, 1.0, 0.0, 0.5]},
        {a: [1.0] * 4, c: [0.0, 1.0, 1.0, 0.5]},
        {a: [0.0, 1.0, 1.0, 0.5], c: [1.0] * 4},
    ):
        alone = logits(model, others)
        for scales in ([1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 1.0, 2.0]):
            rows = logits(model, {**others, b: scales})
            for row, scale in enumerate(scales):
                assert torch.equal(rows[row], alone[row]) == (scale == 0)


def test_hooks_of_the_layer_run():
    model = model_of()
    adapter = refiners.load_adapter(saved("LoRA"), model)
    bare = logits(model, {adapter: [1.0, 0.0, 0.0, 0.0]})
    layer = model.decoder.blocks[1].feed_forward.contract
    handle = layer.register_forward_hook(lambda layer, inputs, output: output * 2)
    changed = logits(model, {adapter: [1.0, 0.0, 0.0, 0.0]})
    handle.remove()
    assert not torch.allclose(changed, bare)
    assert torch.equal(logits(model, {adapter: [1.0, 0.0, 0.0, 0.0]}), bare)


def test_a_generation_writes_each_text_as_alone():
    model = model_of()
    prompts = ["Once", "A red circle", "Two"]
    write_texts = partial(model.generate, max_new_tokens=6, output="scores")
    bare = write_texts(prompts)
    a, b = (refiners.load_adapter(saved(kind, i), model) for i, kind in enumerate(("LoRA", "head")))
    conditions = {a: Condition(scale=[1, 0, 0]), b: Condition(scale=[0, 0, 0.5])}
    mixed = write_texts(prompts, conditions=conditions)
    alone = [
        write_texts(prompts[0], conditions={b: None}),
        bare[1],
        write_texts(prompts[2], conditions={a: None, b: Condition(scale=0.5)}),
    ]
    for ours, expected in zip(mixed, alone, strict=True):
        assert torch.equal(ours.tokens, expected.tokens)
        assert torch.allclose(ours.log_probabilities, expected.log_probabilities, atol=1e-5)
    assert torch.equal(mixed[1].log_probabilities, bare[1].log_probabilities)
    assert not torch.equal(mixed[0].log_probabilities, bare[0].log_probabilities)
    scores = model.score(prompts, conditions=conditions)
    assert scores[1].total != scores[0].total


def test_several_texts_of_a_prompt_have_a_scale_each():
    model = model_of()
    adapter = refiners.load_adapter(saved("LoRA"), model)
    draw = partial(model.generate, "Once", count=2, max_new_tokens=5, output="tokens")
    first, second = draw(conditions={adapter: Condition(scale=[0, 1])})
    assert torch.equal(first, draw(conditions={adapter: None})[0])
    assert torch.equal(second, draw()[1])


def test_a_wrong_number_of_scales_is_refused():
    model = model_of()
    adapter = refiners.load_adapter(saved("LoRA"), model)
    with pytest.raises(ConditionError, match="2"):
        model.generate(["a", "b", "c"], conditions={adapter: Condition(scale=[1, 0])})
    context = {adapter.scale_key: RowScale.of([1.0, 0.0])}
    with pytest.raises(ConditionError, match=r"has scales for 2 rows, but a layer gets 4"):
        model.decoder(IDS, context=context)
