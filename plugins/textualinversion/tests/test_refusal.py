"""A file or word that does not suit the model is refused in one line; the model stays untouched."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from refiners_textualinversion.adapter import TextualInversion
from torch import Tensor

from refiners_core import Source
from refiners_core.errors import AdapterError, RefinersError, WeightsError
from refiners_core.testing import tiny_model, tiny_sdxl
from refiners_core.weights import write

shared = cache(lambda build: build())
"""One model for all files: a refused file must leave it bare."""
VECTORS = torch.ones(3, 8)


def inject(
    path: Path, tensors: dict[str, Tensor], build: Any = tiny_model, **options: Any
) -> TextualInversion:
    write(tensors, path)
    adapter = TextualInversion(weights=lambda _: Source({"weights": path}), key="word", **options)
    return adapter.inject(shared(build))


WRONG: dict[str, dict[str, Tensor]] = {
    "has vectors of 768 features, as those for Stable Diffusion 1; the text encoder of this sd15 "
    "reads 8": {"<cat>": torch.ones(768)},
    "has vectors of 1024 features, as those for Stable Diffusion 2": {
        "emb_params": torch.ones(1, 1024)
    },
    "has vectors for a second text encoder, as SDXL has; this sd15 has one": {
        "clip_l": VECTORS,
        "clip_g": VECTORS,
    },
    "not a textual inversion: it holds 't5xxl'": {"clip_l": VECTORS, "t5xxl": VECTORS},
    "not a textual inversion: 'conv.weight' is [3, 8, 1, 1] float32": {
        "conv.weight": torch.ones(3, 8, 1, 1)
    },
    "'<cat>' is [0, 8] float32, not a list of vectors": {"<cat>": torch.ones(0, 8)},
    "'<cat>' is [3, 8] int64, not a list of vectors": {"<cat>": torch.ones(3, 8).long()},
    "is damaged: the vectors of '<cat>' are not all finite numbers": {
        "<cat>": torch.full((3, 8), torch.nan)
    },
    "brings '<cat>' of 15 vectors; this sd15 reads 14 tokens at a time": {
        "<cat>": torch.ones(15, 8)
    },
    "brings 'x', which is a word that this sd15 knows already": {"x": VECTORS},
    "brings '<|endoftext|>', which is a word that this sd15 knows": {"<|endoftext|>": VECTORS},
    "'(cat:1.5)' cannot be a word of a prompt": {"(cat:1.5)": VECTORS},
}


@pytest.mark.parametrize("words", WRONG)
def test_a_file_that_does_not_suit_is_refused_in_one_line(words: str, tmp_path: Path):
    with pytest.raises(RefinersError) as refusal:
        inject(tmp_path / "a.safetensors", WRONG[words])
    text = str(refusal.value)
    assert words in text
    assert "\n" not in text
    assert len(text) < 300
    assert refusal.value.hint
    assert shared(tiny_model).adapters == ()


def test_a_file_for_the_second_encoder_needs_one(tmp_path: Path):
    with pytest.raises(WeightsError, match="a second text encoder, as SDXL has; this sd15 has one"):
        inject(tmp_path / "a.safetensors", {"clip_g": VECTORS})
    with pytest.raises(WeightsError, match=r"16 features; the text encoders .* read 8 and 8"):
        inject(tmp_path / "a.safetensors", {"clip_g": torch.ones(3, 16)}, tiny_sdxl)


def test_a_pickle_is_not_opened(tmp_path: Path):
    (tmp_path / "a.pt").write_bytes(b"\x80\x04.")
    adapter = TextualInversion(weights=lambda _: Source({"weights": tmp_path / "a.pt"}))
    with pytest.raises(WeightsError, match=r"is a pickle.*was not opened.*rewrite_pickle"):
        adapter.inject(shared(tiny_model))


@pytest.mark.parametrize("word", ["<cat>", "<CAT>"])
def test_a_word_of_another_adapter_is_refused(word: str, tmp_path: Path):
    first = inject(tmp_path / "a.safetensors", {"<cat>": VECTORS})
    path = tmp_path / "b.safetensors"
    write({word: VECTORS}, path)
    sources = {"weights": lambda _: Source({"weights": path})}
    with pytest.raises(AdapterError, match=rf"'{word}', which word brings as well.*-2>"):
        TextualInversion(**sources).inject(shared(tiny_model))
    other = TextualInversion(**sources, word="<hat>").inject(shared(tiny_model))
    assert [*other.words] == ["<hat>"]
    other.eject()
    first.eject()


def test_options_are_checked(tmp_path: Path):
    for word in ("", " cat", "(cat:1.5)"):
        with pytest.raises(AdapterError, match="cannot be a word of a prompt"):
            TextualInversion(word=word)
    with pytest.raises(AdapterError, match="cannot have 0 vectors"):
        TextualInversion(vectors=0)
    path = tmp_path / "a.safetensors"
    with pytest.raises(AdapterError, match="begins at the vector of one token; 'cat' has 3"):
        inject(path, {"<cat>": VECTORS}, initial="cat")
    with pytest.raises(AdapterError, match=r"has 2 words: <a>, <b>. Leave word= out"):
        inject(path, {"<a>": VECTORS, "<b>": VECTORS}, word="<c>")
    with pytest.raises(AdapterError, match=r"a model with the slot .*, not on UNet"):
        TextualInversion().inject(shared(tiny_model).unet)
    assert shared(tiny_model).adapters == ()
