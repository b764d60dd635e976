"""LoRAs of other layers and ranks are swapped in place; a compiled model compiles nothing."""

import pytest
import torch
from refiners_lora.adapter import Lora
from refiners_lora.layer_name import SLOTS

from refiners_core import Condition, Source
from refiners_core.errors import AdapterError
from refiners_core.testing import Neighbour, tiny_model
from refiners_core.weights import TensorFile, read, write


def where(step, start=0):
    return lambda model: [seat for slot in SLOTS for seat in model.slot(slot)][start::step]


def style(folder, name, rank, step, start=0, alpha=1.0):
    """Writes a LoRA of some layers of the UNet and the text encoder."""
    adapter = Lora(rank=rank, alpha=alpha, where=where(step, start)).inject(tiny_model())
    generator = torch.Generator().manual_seed(rank + step)
    for weight in adapter.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.3
    adapter.save(folder / name)
    return folder / name


def loaded(path, model, **options):
    return Lora(weights=lambda _: Source({"weights": path}), **options).inject(model).eject()


def latents(model, adapter=None):
    conditions = {} if adapter is None else {adapter: Condition(scale=0.8)}
    return model.generate(
        "a", conditions=conditions, steps=1, seed=1, output="latents", progress=False
    )


def differ(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


@pytest.fixture
def pair(tmp_path):
    model = tiny_model()
    ink = loaded(style(tmp_path, "ink.safetensors", 2, 7), model, name="ink")
    wash = loaded(style(tmp_path, "wash.safetensors", 5, 3, 1, alpha=4.0), model, name="wash")
    return model, ink, wash


def test_loras_of_other_layers_and_ranks_swap(pair, tmp_path):
    model, ink, wash = pair
    expected = []
    for adapter in (ink, wash):
        with adapter.on(model):
            expected.append(latents(model, adapter))
    bare = latents(model)
    ink.inject(model)
    ink.hotswap(wash)
    assert differ(latents(model, ink), expected[1]) <= 1e-5
    ink.save(tmp_path / "again.safetensors")
    ink.hotswap(wash)
    assert differ(latents(model, ink), expected[0]) <= 1e-5
    ink.eject()
    assert torch.equal(latents(model), bare)
    with wash.on(model):
        assert differ(latents(model, wash), expected[1]) <= 1e-5
    before, after = read(tmp_path / "wash.safetensors"), read(tmp_path / "again.safetensors")
    assert {key: part.shape for key, part in before.items()} == {
        key: part.shape for key, part in after.items()
    }
    with TensorFile(tmp_path / "again.safetensors") as file:
        assert '"unet.lora_alpha": 5' in file.metadata()["lora_adapter_metadata"]


def test_what_cannot_be_padded_is_refused(pair, tmp_path):
    model, ink, _ = pair
    with pytest.raises(AdapterError, match="has not been on a model yet"):
        ink.reserve(Lora(name="new"))
    with pytest.raises(AdapterError, match=r"cannot make room for neighbour: a Lora swaps only"):
        ink.reserve(Neighbour(key="neighbour"))
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    write({f"{name}.diff": torch.ones(16, 16)}, tmp_path / "other.safetensors")
    other = loaded(tmp_path / "other.safetensors", model)
    published = ink.published()
    for use in (ink.reserve, ink.hotswap):
        with pytest.raises(
            AdapterError, match=r"has a difference of whole weights at .*only plain"
        ):
            use(other)
    assert all(part.equal(published[key]) for key, part in ink.published().items())
