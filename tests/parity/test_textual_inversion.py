"""Textual inversions, from files in every layout, against diffusers' `load_textual_inversion`."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor, nn

from refiners_core.models.formats.open import open_folder
from refiners_core.weights import rewrite_pickle, write

FIRST, SECOND = (torch.randn(n, n * 4, generator=torch.Generator().manual_seed(n)) for n in (4, 6))
"""Four vectors of 16 features and six of 24, as the two text encoders read them."""


@pytest.fixture(scope="module")
def sd15(sd15_folder: Any) -> tuple[Any, Any]:
    folder = sd15_folder[1]
    arguments = {"safety_checker": None, "requires_safety_checker": False}
    return StableDiffusionPipeline.from_pretrained(folder, **arguments), open_folder(folder)


@pytest.fixture(scope="module")
def sdxl(sdxl_folder: Any) -> tuple[Any, Any]:
    folder = sdxl_folder[1]
    return StableDiffusionXLPipeline.from_pretrained(folder), open_folder(folder)


@pytest.fixture
def taught(sd15: Any, sdxl: Any) -> Iterator[Any]:
    """A function that teaches a pipeline of diffusers a word, until the test ends."""

    def teach(pipe: Any, word: str, *vectors: Tensor | None) -> None:
        for values, end in zip(vectors, ("", "_2"), strict=False):
            if values is not None:
                parts = getattr(pipe, f"text_encoder{end}"), getattr(pipe, f"tokenizer{end}")
                names = dict(zip(("text_encoder", "tokenizer"), parts, strict=True))
                pipe.load_textual_inversion({word: values}, token=word, **names)

    yield teach
    for pipe in (sd15[0], sdxl[0]):
        for end in ("", "_2"):
            if (encoder := getattr(pipe, f"text_encoder{end}", None)) is not None:
                pipe.unload_textual_inversion(
                    text_encoder=encoder, tokenizer=getattr(pipe, f"tokenizer{end}")
                )


@torch.no_grad()
def read(model: Any, *texts: str) -> Mapping[str, Tensor]:
    scales = {adapter.scale_key: torch.tensor(1.0) for adapter in model.adapters}
    return model.read(texts, scales)


@torch.no_grad()
def embedded(pipe: Any, text: str) -> tuple[Tensor, Tensor]:
    """The features of a text and of a negative text, `not <text>`."""
    return pipe.encode_prompt(text, "cpu", 1, True, negative_prompt=f"not {text}")[:2]


def webui(folder: Path) -> Path:
    """A file as a web interface writes it, converted with its hash."""
    content = {
        "string_to_token": {"*": 265},
        "string_to_param": nn.ParameterDict({"*": nn.Parameter(FIRST)}),
        "name": "<cat>",
        "step": 499,
    }
    torch.save(content, folder / "a.pt")
    digest = hashlib.sha256((folder / "a.pt").read_bytes()).hexdigest()
    rewrite_pickle(folder / "a.pt", folder / "b.safetensors", sha256=digest)
    return folder / "b.safetensors"


LAYOUTS = {
    "of diffusers": {"<cat>": FIRST},
    "of one vector": {"<cat>": FIRST[0]},
    "of ComfyUI": {"emb_params": FIRST},
    "of SDXL's first half": {"clip_l": FIRST},
}


@pytest.mark.parametrize("layout", [*LAYOUTS, "of a web interface"])
def test_prompts_are_read_as_by_diffusers(layout: str, sd15: Any, taught: Any, tmp_path: Path):
    pipe, model = sd15
    if tensors := LAYOUTS.get(layout):
        path = tmp_path / "<cat>.safetensors"
        write(tensors, path)
    else:
        tensors, path = {"": FIRST}, webui(tmp_path)
    (vectors,) = tensors.values()
    plain = read(model, "a <cat>")["text"]
    with refiners.load_adapter(path).on(model) as adapter:
        assert dict(adapter.words) == {"<cat>": (len(vectors.view(-1, 16)),)}
        for text in ("a <cat> on a <cat>", "<cat>s, no cat"):
            taught(pipe, "<cat>", vectors)
            theirs = torch.cat(embedded(pipe, text))
            pipe.unload_textual_inversion()
            ours = read(model, text, f"not {text}")["text"]
            assert (ours - theirs).norm() / theirs.norm() <= 1e-5
    assert torch.equal(read(model, "a <cat>")["text"], plain)


@pytest.mark.parametrize("halves", [(FIRST, SECOND), (FIRST, None), (None, SECOND)])
def test_both_encoders_of_sdxl_read_the_word_as_by_diffusers(
    halves: tuple[Tensor | None, ...], sdxl: Any, taught: Any, tmp_path: Path
):
    pipe, model = sdxl
    named = zip(("clip_l", "clip_g"), halves, strict=True)
    path = tmp_path / "<cat>.safetensors"
    write({key: vectors for key, vectors in named if vectors is not None}, path)
    if None in halves:
        with pytest.warns(refiners.Notice, match="encoder of this .*, which spells out '<cat>'"):
            adapter = refiners.load_adapter(path, model)
    else:
        adapter = refiners.load_adapter(path, model)
    taught(pipe, "<cat>", *halves)
    text = "a <cat> on a <cat>"
    with torch.no_grad():
        theirs, _, pooled, _ = pipe.encode_prompt(text, do_classifier_free_guidance=False)
    ours = read(model, text)
    assert (ours["text"] - theirs).norm() / theirs.norm() <= 1e-5
    assert (ours["pooled"] - pooled).norm() / pooled.norm() <= 1e-5
    adapter.eject()


def test_a_generation_equals_that_of_diffusers(sd15: Any, taught: Any, tmp_path: Path):
    pipe, model = sd15
    write({"<ugly>": FIRST}, tmp_path / "learned_embeds.safetensors")
    taught(pipe, "<ugly>", FIRST)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        "a cat",
        negative_prompt="<ugly>, dull",
        num_inference_steps=4,
        guidance_scale=5.0,
        latents=noise,
        height=64,
        width=64,
        output_type="latent",
    ).images
    arguments: dict[str, Any] = {"steps": 4, "guidance": 5.0, "latents": noise, "progress": False}
    arguments |= {"negative_prompt": "<ugly>, dull", "output": "latents"}
    bare = model.generate("a cat", **arguments)
    with refiners.load_adapter(tmp_path / "learned_embeds.safetensors").on(model):
        ours = model.generate("a cat", **arguments)
    assert (ours - theirs).norm() / theirs.norm() <= 1e-4
    assert (bare - theirs).norm() / theirs.norm() > 1e-3
