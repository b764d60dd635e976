"""Textual inversion keeps the contract of adapters, and prompts have its words."""

import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from refiners_textualinversion.adapter import TextualInversion
from torch import Tensor

from refiners_core import Condition, Source
from refiners_core.models.clip import ClipTextConfig
from refiners_core.testing import LAWS, AdapterCase, tiny_model, tiny_sdxl
from refiners_core.weights import TensorFile, read, write

VECTORS = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
QUICK = ("restores_the_model", "is_absent_when_left_out")
TABLE = "text_encoder.embedding"


def targets() -> list[tuple[str, str]]:
    manifest = tomllib.loads((files("refiners_textualinversion") / "adapter.toml").read_text())
    (variant,) = manifest["adapter"]["textual-inversion"]["variant"]
    return [(target["slot"], target["stage"]) for target in variant["targets"]]


def make() -> TextualInversion:
    torch.manual_seed(3)
    return TextualInversion(word="red", vectors=2, name="word")


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_contract(law: Callable[[AdapterCase], None]):
    law(AdapterCase(make, targets=targets()))


@pytest.mark.parametrize("law", [law for law in LAWS if law.__name__ in QUICK])
def test_it_keeps_the_contract_with_two_text_encoders(law: Callable[[AdapterCase], None]):
    law(AdapterCase(make, tiny_sdxl))


def taught(model: Any, path: Path, tensors: dict[str, Tensor], **options: Any) -> TextualInversion:
    write(tensors, path)
    adapter = TextualInversion(weights=lambda _: Source({"weights": path}), **options)
    return adapter.inject(model)


def latents(model: Any, prompt: Any = "a <cat>", **options: Any) -> Tensor:
    defaults = {"steps": 1, "seed": 7, "output": "latents", "progress": False}
    return model.generate(prompt, **defaults | options)


def wide_sdxl() -> Any:
    """A model whose second encoder reads vectors of 12 features."""
    facts = {"vocabulary": 514, "max_tokens": 16, "width": 12, "inner_width": 16, "layers": 2}
    sizes = ClipTextConfig(**facts, heads=2, end_token=513, projection_width=8)
    unet = replace(tiny_sdxl().unet.config, text_width=20)
    return tiny_sdxl(text_encoder_2=sizes, unet=unet)


def test_a_word_is_its_vectors_at_every_occurrence(tmp_path: Path):
    model = tiny_model()
    long = taught(model, tmp_path / "a.safetensors", {"<cat>": VECTORS[:3]})
    short = taught(model, tmp_path / "b.safetensors", {"<cat>2": VECTORS[3]})
    embedded: list[Tensor] = []
    embed = model.text_encoder.embed
    embed.register_forward_hook(lambda *args: embedded.append(args[2][0]))
    model.read(["<cat>, <CAT> <cat>2"], {a.scale_key: torch.tensor(1.0) for a in (long, short)})
    comma = embed.token.weight[model.tokenizer.tokens(",")]
    words = torch.cat([VECTORS[:3], comma, VECTORS[:3], VECTORS[3:4]])
    assert torch.equal(embedded[0][1:9], words + embed.position.weight[1:9])


def test_a_word_is_weighted_and_negated_and_each_prompt_may_have_it(tmp_path: Path):
    model = tiny_model()
    adapter = taught(model, tmp_path / "a.safetensors", {"<cat>": VECTORS[:3]})
    once = latents(model)
    assert not torch.allclose(latents(model, "a (<cat>:1.5)"), once, atol=1e-4)
    assert torch.equal(latents(model, "a (<cat>:1.0)"), once)
    assert not torch.allclose(latents(model, negative_prompt="<cat>"), once, atol=1e-4)
    both = latents(model, ["a <cat>", "a dog"], seed=[7, 8])
    assert torch.allclose(both[:1], once, atol=1e-5)
    left_out = latents(model, ["a <cat>", "a dog"], seed=[7, 8], conditions={adapter: None})
    assert torch.allclose(both[1:], left_out[1:], atol=1e-5)
    assert not torch.allclose(both[0], left_out[0], atol=1e-4)


def test_the_scale_moves_the_vectors_from_their_beginning(tmp_path: Path):
    model = tiny_model()
    file, begin = tmp_path / "a.safetensors", model.text_encoder.embed.token.weight.detach()
    begin = begin[model.tokenizer.tokens("x")[0]].clone()
    for initial, vectors in (
        (None, 0.25 * VECTORS[:2]),
        ("x", begin + 0.25 * (VECTORS[:2] - begin)),
    ):
        adapter = taught(model, file, {"<cat>": VECTORS[:2]}, initial=initial)
        quarter = latents(model, conditions={adapter: Condition(scale=0.25)})
        whole = latents(model, conditions={adapter: Condition(scale=1.0)})
        adapter.eject()
        adapter = taught(model, file, {"<cat>": vectors})
        assert torch.allclose(latents(model), quarter, atol=1e-5)
        assert not torch.allclose(whole, quarter, atol=1e-4)
        adapter.eject()


@pytest.mark.parametrize("encoder", [0, 1])
def test_an_encoder_at_scale_0_spells_out_the_word(encoder: int, tmp_path: Path):
    model = wide_sdxl()
    halves = {"clip_l": VECTORS[:3], "clip_g": torch.ones(2, 12)}
    both = taught(model, tmp_path / "a.safetensors", halves, word="<cat>")
    at = {f"{TABLE}.{encoder}": 1.0}
    single = latents(model, conditions={both: Condition(scale=at)})
    whole = latents(model)
    off = latents(model, conditions={both: Condition(scale={TABLE: 0.0})})
    both.eject()
    assert torch.equal(off, latents(model))
    key = [*halves][encoder]
    with pytest.warns(match="spells out '<cat>'"):
        taught(model, tmp_path / "b.safetensors", {key: halves[key]}, word="<cat>")
    assert torch.equal(latents(model), single)
    assert not torch.allclose(single, whole, atol=1e-4)


def test_each_picture_may_have_its_own_scale(tmp_path: Path):
    model = tiny_model()
    adapter = taught(model, tmp_path / "a.safetensors", {"<cat>": VECTORS[:2]})
    made = latents(model, count=2, conditions={adapter: Condition(scale=[0.5, 0.0])})
    half = latents(model, count=2, conditions={adapter: Condition(scale=0.5)})
    without = latents(model, count=2, conditions={adapter: None})
    assert torch.equal(made, torch.stack([half[0], without[1]]))


@pytest.mark.parametrize(
    ("build", "tensors"),
    [
        (tiny_model, {"<cat>": VECTORS[:2], "<dog>": VECTORS[2:3]}),
        (wide_sdxl, {"clip_l": VECTORS[:2], "clip_g": torch.ones(2, 12)}),
    ],
)
def test_a_saved_file_is_the_same_words(build: Any, tensors: dict[str, Tensor], tmp_path: Path):
    model = build()
    adapter = taught(model, tmp_path / "<cat>.safetensors", tensors).eject()
    adapter.save(tmp_path / "b.safetensors")
    assert read(tmp_path / "b.safetensors").keys() == tensors.keys()
    again = TextualInversion(weights=lambda _: Source({"weights": tmp_path / "b.safetensors"}))
    assert again.inject(model).words == adapter.words
    for key, tensor in again.published().items():
        assert torch.equal(tensor, tensors[key])
    with TensorFile(tmp_path / "b.safetensors") as file:
        assert file.metadata().get("name") == ("<cat>" if len(adapter.words) == 1 else None)


def test_the_second_file_of_a_trainer_teaches_the_second_encoder(tmp_path: Path):
    model = wide_sdxl()
    write({"<cat>": torch.ones(2, 12)}, tmp_path / "second.safetensors")
    write({"<cat>": VECTORS[:2]}, tmp_path / "first.safetensors")
    paths = {"weights": tmp_path / "first.safetensors", "second": tmp_path / "second.safetensors"}
    adapter = TextualInversion(weights=lambda _: Source(paths)).inject(model)
    assert adapter.words == {"<cat>": (2, 2)}


def test_an_untrained_word_begins_with_random_vectors_that_can_be_trained():
    model = tiny_sdxl()
    adapter = TextualInversion(word="<cat>", vectors=3).inject(model)
    assert adapter.words == {"<cat>": (3, 3)}
    scale = {adapter.scale_key: torch.tensor(1.0)}
    model.read(["a <cat>"], scale)["text"].sum().backward()
    assert all(weight.grad.any() for weight in adapter.parameters())
