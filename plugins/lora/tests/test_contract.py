"""A LoRA keeps the contract of adapters, and its scale is absolute."""

import tomllib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp

import pytest
import refiners
import torch
from refiners_lora.adapter import Lora
from refiners_lora.layer_name import SLOTS, places_by_name

from refiners_core import Condition, Source
from refiners_core.errors import AdapterError
from refiners_core.models import sd15, sdxl
from refiners_core.testing import LAWS, AdapterCase, tiny_model
from refiners_core.weights import TensorFile, read, write


def everywhere(model):
    return [seat for slot in SLOTS for seat in model.slot(slot)]


@cache
def style(seed: int = 0) -> Path:
    """Writes a LoRA that updates linear layers and convolutions of all components."""
    generator = torch.Generator().manual_seed(seed)
    adapter = Lora(rank=2, alpha=3, where=lambda model: everywhere(model)[::9])
    adapter.inject(tiny_model())
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    path = Path(mkdtemp()) / "style.safetensors"
    adapter.save(path)
    return path


def make(seed: int = 0) -> Lora:
    return Lora(weights=lambda _: Source({"weights": style(seed)}), name="style")


@cache
def whole_style() -> Path:
    """Writes a file that also changes norms and the embedding of tokens."""
    generator = torch.Generator().manual_seed(3)
    sizes = {
        "lora_unet_mid_block_resnets_0_norm1.w_norm": (16,),
        "lora_te_text_model_final_layer_norm.b_norm": (8,),
        "text_encoder.text_model.embeddings.token_embedding.lora_embedding_A": (2, 514),
        "text_encoder.text_model.embeddings.token_embedding.lora_embedding_B": (8, 2),
    }
    more = {key: torch.randn(size, generator=generator) * 0.2 for key, size in sizes.items()}
    path = Path(mkdtemp()) / "whole.safetensors"
    write({**read(style()), **more}, path)
    return path


def make_whole() -> Lora:
    return Lora(weights=lambda _: Source({"weights": whole_style()}), name="style")


def targets() -> list[tuple[str, str]]:
    manifest = tomllib.loads((files("refiners_lora") / "adapter.toml").read_text())
    variants = manifest["adapter"]["lora"]["variant"]
    (images,) = [v for v in variants if v["targets"][0]["slot"].startswith("unet.")]
    return [(target["slot"], target["stage"]) for target in images["targets"]]


def latents(model, conditions):
    return model.generate(
        "a", conditions=conditions, steps=2, seed=1, output="latents", progress=False
    )


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_contract(law: Callable[[AdapterCase], None]):
    law(AdapterCase(make_whole, targets=targets()))


def test_an_untrained_lora_changes_nothing_and_can_be_trained():
    model = tiny_model().requires_grad_(False)
    adapter = Lora(rank=2).inject(model)
    context = {"timestep": torch.tensor(1), "text": torch.randn(1, 3, 8)}
    x = torch.randn(1, 4, 8, 8)
    bare = model.unet(x, context=context)
    worn = model.unet(x, context={**context, adapter.scale_key: torch.tensor(1.0)})
    assert torch.equal(worn, bare)
    worn.sum().backward()
    assert len(list(adapter.parameters())) == 2 * 8 * 7
    assert all(weight.grad is not None for weight in adapter.parameters())


def test_a_scale_is_absolute_and_also_acts_on_the_text_encoder():
    model = tiny_model()
    adapter = make().inject(model)
    half = latents(model, {adapter: Condition(scale=0.5)})
    whole = latents(model, {adapter: Condition(scale=1.0)})
    assert torch.equal(latents(model, {adapter: Condition(scale=0.5)}), half)
    assert torch.equal(latents(model, {}), whole)
    rows = torch.tensor([[512, 1, 513]])
    texts = [
        model.text_encoder(rows, context={adapter.scale_key: torch.tensor(scale)})
        for scale in (0.0, 0.5, 1.0)
    ]
    assert torch.equal(texts[0], model.text_encoder(rows))
    assert not torch.equal(texts[1], texts[2])


def test_several_add_up_in_any_order():
    model = tiny_model()
    first, second = make(0), make(1)
    scales = {first: Condition(scale=0.8), second: Condition(scale=-0.3)}
    first.inject(model), second.inject(model)
    both = latents(model, scales)
    model.eject_all()
    second.inject(model), first.inject(model)
    assert torch.equal(latents(model, scales), both)
    assert not torch.equal(latents(model, {**scales, second: None}), both)


def test_two_of_one_shape_swap_their_weights():
    model = tiny_model()
    first, second = make(0).inject(model), make(1)
    second.inject(tiny_model())
    expected = second.published()
    first.hotswap(second)
    assert all(torch.equal(first.published()[key], expected[key]) for key in expected)
    assert not torch.equal(latents(model, {}), latents(model, {first: None}))


def test_saving_keeps_every_bit(tmp_path: Path):
    make().inject(tiny_model()).save(tmp_path / "again.safetensors")
    before, after = read(style()), read(tmp_path / "again.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert {key.split(".")[0] for key in after} == {"unet", "text_encoder"}
    with TensorFile(style()) as file, TensorFile(tmp_path / "again.safetensors") as again:
        assert file.metadata() == again.metadata()


def test_it_can_be_built_on_the_meta_device():
    """`refiners tree sd15 --with lora` shows an untrained LoRA without weights."""
    model = sd15.build(device="meta")
    adapter = Lora(name="style").inject(model)
    assert {weight.device.type for weight in adapter.parameters()} == {"meta"}
    assert "lora: LowRank(rank=8, alpha=8)" in repr(model.unet.mid)


@pytest.mark.parametrize(("family", "count"), [(sd15, 354), (sdxl, 1059)])
def test_names_in_the_released_models_are_unambiguous(family, count):
    model = family.build(device="meta")
    places = places_by_name(model)
    assert len({place.seat.path for place in places.values()}) == count
    assert len(everywhere(model)) == count
    for part in {place.part for place in places.values()}:
        names = {place.name for place in places.values() if place.part == part}
        flat = {"unet": "lora_unet_", "text_encoder_2": "lora_te2_"}.get(
            part, "lora_te_" if family is sd15 else "lora_te1_"
        )
        assert all(f"{part}.{name}" in places for name in names)
        assert all(flat + name.replace(".", "_") in places for name in names)


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_must_be_positive(rank: int):
    with pytest.raises(AdapterError, match=r"cannot have rank .* Try Lora\(rank=8\)"):
        Lora(rank=rank)


def test_a_layer_that_a_lora_cannot_change_is_refused():
    model = tiny_model()
    adapter = Lora(where=lambda model: model.slot("unet.mid.output"))
    with pytest.raises(AdapterError, match=r"cannot change 'unet.mid.output'"):
        adapter.inject(model)
    assert model.adapters == ()


def test_a_file_is_loaded_onto_the_playground(tmp_path: Path):
    model = refiners.load_model("playground")
    untrained = Lora(rank=4).inject(model)
    untrained.save(tmp_path / "style.safetensors")
    untrained.eject()
    adapter = refiners.load_adapter("lora", model, file=tmp_path / "style.safetensors")
    assert adapter.key.startswith("lora")
    assert {key.split(".")[0] for key in adapter.published()} == {"unet"}
    model.generate("a heart", conditions={adapter: Condition(scale=0.8)}, steps=1, progress=False)
