"""VeRA, LN tuning and FourierFT change layers in proportion to their scale, and can be merged."""

from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
from language_model import LanguageLora

from refiners_core import Condition
from refiners_core.models.decoder import LanguageModel
from refiners_core.testing import tiny_language_model
from refiners_core.weights import read

from .published import (
    CHANGES,
    IDS,
    LAYERS,
    contents,
    language_model,
    layer,
    logits,
    published,
    save,
    worn,
)

ROWS = [torch.arange(2), torch.arange(9), torch.arange(5)]
LINEAR = ("decoder.linear", "decoder.head")
SLOTS = {"vera": LINEAR, "ln-tuning": ("decoder.norm",), "fourier-ft": LINEAR}


def scores(model: LanguageModel, **options: Any) -> list[torch.Tensor]:
    return [score.log_probabilities for score in model.score(ROWS, **options)]


@pytest.mark.parametrize("method", ["vera", "fourier-ft"])
def test_the_change_of_a_tied_head_leaves_the_embedding(method: str, tmp_path: Path):
    model = tiny_language_model(is_tied=True, ends=())
    table = model.decoder.embed.weight
    before, bare = table.detach().clone(), logits(model, IDS)
    adapter = worn(method, tmp_path, model)
    text = logits(model, IDS, adapter)
    adapter.merge()
    assert torch.allclose(logits(model, IDS), text, atol=2e-5)
    assert torch.equal(model.decoder.embed.weight, before)
    assert model.decoder.head.weight is table
    adapter.eject()
    assert torch.equal(logits(model, IDS), bare)
    assert not torch.allclose(text, bare, atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("method", CHANGES)
def test_the_change_of_a_layer_is_proportional_to_the_scale(method: str, tmp_path: Path):
    model = language_model()
    adapter = worn(method, tmp_path, model)
    places = (seat for slot in SLOTS[method] for seat in model.slot(slot))
    for seat in places:
        if seat.path.replace(".", "/") not in adapter.own_layers:
            continue
        x = torch.randn(3, 2, seat.layer.weight.shape[-1])
        layer_now = seat.chain.at(seat.name)
        bare = layer_now(x)
        assert torch.equal(bare, seat.layer(x))
        once, thrice = (
            layer_now(x, context={adapter.scale_key: torch.tensor(scale)}) - bare
            for scale in (0.5, -1.5)
        )
        assert once.abs().max() > 1e-2
        assert torch.allclose(-3 * once, thrice, atol=1e-5)


@pytest.mark.parametrize("method", CHANGES)
def test_rows_without_it_are_bit_equal_to_the_bare_model(method: str, tmp_path: Path):
    model = language_model()
    bare = scores(model)
    adapter = worn(method, tmp_path, model)
    whole, half = scores(model), scores(model, conditions={adapter: Condition(scale=0.5)})
    mixed = scores(model, conditions={adapter: Condition(scale=[1, 0, 0.5])})
    assert torch.equal(mixed[1], bare[1])
    assert torch.allclose(mixed[0], whole[0], atol=1e-5)
    assert torch.allclose(mixed[2], half[2], atol=1e-5)
    assert not torch.allclose(mixed[0], bare[0], atol=1e-2)


@pytest.mark.parametrize("method", CHANGES)
def test_merged_is_worn_and_unmerged_is_the_very_model(method: str, tmp_path: Path):
    model = language_model()
    bare = logits(model, IDS)
    first, second = (worn(method, tmp_path / str(i), model, seed=i) for i in range(2))
    lora = LanguageLora(key="lora").inject(model)
    text = model.score(IDS[0], conditions={first: Condition(scale=0.7)}).log_probabilities
    first.merge(0.7)
    assert torch.allclose(model.score(IDS[0]).log_probabilities, text, atol=1e-5)
    second.merge()
    assert torch.allclose(model.score(IDS[0]).log_probabilities, text, atol=1e-5)
    first.unmerge()
    assert not torch.allclose(model.score(IDS[0]).log_probabilities, text, atol=1e-2)
    for adapter in (second, first, lora):
        adapter.eject()
    assert torch.equal(logits(model, IDS), bare)


@pytest.mark.parametrize("method", CHANGES)
def test_a_saved_folder_has_the_tensors_that_were_read(method: str, tmp_path: Path):
    model = language_model()
    adapter = worn(method, tmp_path / "a", model)
    (tmp_path / "b").mkdir()
    adapter.save(tmp_path / "b" / "adapter_model.safetensors")
    saved, given = (read(tmp_path / name / "adapter_model.safetensors") for name in "ba")
    assert saved.keys() == given.keys()
    assert all(torch.equal(saved[key], given[key]) for key in given)
    text = logits(model, IDS, adapter)
    adapter.eject()
    again = refiners.load_adapter(str(tmp_path / "b"), model)
    assert torch.equal(logits(model, IDS, again), text)


def test_matrices_of_a_seed_are_drawn_for_the_largest_layer(tmp_path: Path):
    model = language_model()
    tensors, config = contents("vera")
    shared = {key: tensors.pop(key) for key in [*tensors] if key.startswith("base_model.vera")}
    seeded = {**config, "save_projection": False}
    generator = torch.Generator().manual_seed(3)
    for key, size in (("vera_A", (4, 24)), ("vera_B", (258, 4))):
        bound = (6 / size[1]) ** 0.5
        drawn = torch.empty(size).uniform_(-bound, bound, generator=generator)
        shared[f"base_model.{key}"] = drawn
    save(tmp_path / "a", tensors, seeded)
    save(tmp_path / "b", tensors | shared, config)
    texts: list[torch.Tensor] = []
    for name in "ab":
        with refiners.load_adapter(str(tmp_path / name)).on(model) as adapter:
            texts.append(logits(model, IDS, adapter))
    assert torch.equal(*texts)


def test_all_layers_share_the_matrices(tmp_path: Path):
    model = language_model()
    adapter = worn("vera", tmp_path, model)
    matrices = {id(change.matrices) for change in adapter.own_layers.children()}
    assert len(matrices) == 1
    numbers = sum(weight.numel() for weight in adapter.parameters())
    assert numbers == LAYERS * (3 * 4 + 16 + 8 + 16) + 4 + 258


@pytest.mark.parametrize("method", CHANGES)
@pytest.mark.parametrize(
    "rename",
    [
        lambda key: f"_orig_mod.{key}",
        lambda key: f"module.{key}",
        lambda key: key.replace("layers.1.", "layers.1._orig_mod."),
        lambda key: key.replace(".self_attn.", "._fsdp_wrapped_module.self_attn.module."),
        lambda key: key.replace("base_model.model.model.", "base_model.model."),
        lambda key: key if "vera_A" in key or "vera_B" in key else _with_name(key),
    ],
    ids=("compiled", "DDP", "a compiled block", "FSDP", "the network alone", "a checkpoint"),
)
def test_names_of_wrappers_are_left_out(method: str, rename: Any, tmp_path: Path):
    model = language_model()
    tensors, config = contents(method)
    clean = save(tmp_path / "a", tensors, config)
    wrapped = save(tmp_path / "b", {rename(key): x for key, x in tensors.items()}, config)
    texts: list[torch.Tensor] = []
    for folder in (clean, wrapped):
        with refiners.load_adapter(str(folder)).on(model) as adapter:
            texts.append(logits(model, IDS, adapter))
    assert torch.equal(*texts)
    assert not torch.allclose(texts[0], logits(model, IDS), atol=1e-2)


def test_frequencies_may_differ_between_layers(tmp_path: Path):
    model = language_model()
    tensors, config = contents("fourier-ft")
    for i in range(LAYERS):
        tensors[layer(i, "self_attn.v_proj", "fourierft_spectrum")] = torch.randn(5)
    folder = save(tmp_path, tensors, config | {"n_frequency_pattern": {"v_proj": 5}})
    adapter = refiners.load_adapter(str(folder), model)
    assert not torch.allclose(logits(model, IDS, adapter), logits(model, IDS), atol=1e-2)


def test_names_find_adapters_as_well(tmp_path: Path):
    model = language_model()
    for method in CHANGES:
        file = published(method, tmp_path / method) / "adapter_model.safetensors"
        named = refiners.load_adapter(method, model, file=str(file))
        assert named.name == method
        named.eject()
        assert refiners.load_adapter(str(file), model).name == method
        model.eject_all()


def _with_name(key: str) -> str:
    """Returns the name that a tensor has in a checkpoint, where PEFT keeps the adapter's name."""
    if "ln_tuning_layers" in key:
        return key.replace("ln_tuning_layers", "ln_tuning_layers.default")
    return f"{key}.default"
