"""Recipes are read from pictures of this program and of others; damaged ones are refused."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import refiners
from PIL import ExifTags, Image, PngImagePlugin
from refiners.errors import OptionError
from refiners.recipe.form import Recipe

from refiners_core.recipe_image import RecipeImage

OURS: dict[str, Any] = {
    "recipe": 1,
    "model": {"id": "dist:model", "version": "1.0", "base": "sd15", "dtypes": {"unet": "float16"}},
    "adapters": [{"key": "a", "id": "dist:a", "scale": 0.5, "condition": {"picture": "ab"}}],
    "arguments": {"prompt": ["x", "y"], "count": 2, "seed": 7, "sampler": {"name": "ddim"}},
    "made-with": {"torch": "2.10"},
    "image": 3,
}
PARAMETERS = """a (red:1.2) circle, <lora:detail:0.6> fine
second line
Negative prompt: blurred, ugly
more
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 42, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned, Denoising strength: 0.7, \
Lora hashes: "detail: 1a2b3c4d5e6f, other: 0", Version: v1.10.1"""
GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            **{"seed": 156680208700286, "steps": 20, "cfg": 8, "sampler_name": "dpmpp_2m"},
            **{"scheduler": "karras", "denoise": 1, "model": ["10", 0], "positive": ["6", 0]},
            **{"negative": ["7", 0], "latent_image": ["5", 0]},
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "models\\\\dream.ckpt"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 640}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["11", 0], "clip": ["10", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["10", 1]}},
    "10": {
        "class_type": "LoraLoader",
        "inputs": {
            **{"lora_name": "styles/ink.safetensors", "strength_model": 0.8, "strength_clip": 1},
            **{"model": ["4", 0], "clip": ["4", 1]},
        },
    },
    "11": {"class_type": "PrimitiveString", "inputs": {"value": "a castle"}, "is_changed": [None]},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.png"


def with_text(path: Path, **texts: str) -> Path:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    return path


def with_comment(path: Path, comment: bytes) -> Path:
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: comment}
    Image.new("RGB", (4, 4)).save(path, exif=exif)
    return path


def ours(path: Path, **changes: Any) -> Recipe:
    RecipeImage.of(Image.new("RGB", (4, 4)), json.dumps({**OURS, **changes})).save(path)
    return refiners.read_recipe(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_our_recipe_is_read_whole(path, suffix):
    recipe = ours(path.with_suffix(suffix))
    assert (recipe.prompt, recipe.seed, recipe.sampler) == ("y", 10, "ddim")
    assert recipe.model.id == "dist:model"
    assert recipe.adapters[0].condition == {"picture": "ab"}
    assert recipe == refiners.read_recipe(str(path.with_suffix(suffix)))


def test_the_recipe_of_this_program_goes_before_others(path):
    text = json.dumps(OURS)
    assert refiners.read_recipe(with_text(path, parameters=PARAMETERS, refiners=text)).seed == 10


# --- other programs ------------------------------------------------------------------------------


def check_parameters(recipe: Recipe) -> None:
    assert recipe.written_by == "webui"
    assert recipe.prompt == "a (red:1.2) circle, fine\nsecond line"
    assert recipe.negative_prompt == "blurred, ugly\nmore"
    arguments = recipe.arguments
    assert (arguments.steps, arguments.guidance, recipe.seed) == (20, 6.5, 42)
    assert (arguments.size, arguments.strength) == ((512, 768), 0.7)
    assert recipe.sampler == "DPM++ 2M Karras"
    assert recipe.model.id == "file:v1-5-pruned.safetensors"
    assert recipe.model.files == {"v1-5-pruned.safetensors": "6ce0161689"}
    (lora,) = recipe.adapters
    assert (lora.key, lora.name, lora.file, lora.scale) == (
        *("detail", "lora", "detail.safetensors"),
        0.6,
    )


def test_a_png_of_the_web_interface(path):
    check_parameters(refiners.read_recipe(with_text(path, parameters=PARAMETERS)))


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
def test_a_jpeg_of_the_web_interface(path, encoding):
    comment = b"UNICODE\0" + PARAMETERS.encode(encoding)
    check_parameters(refiners.read_recipe(with_comment(path.with_suffix(".jpg"), comment)))


def test_a_comment_in_ascii_of_another_program(path):
    comment = b"ASCII\0\0\0" + PARAMETERS.encode()
    check_parameters(refiners.read_recipe(with_comment(path.with_suffix(".jpg"), comment)))


@pytest.mark.parametrize(
    ("text", "prompt", "steps"),
    [
        ("only a prompt", "only a prompt", None),
        ("a\nSteps: 5, Sampler: Euler a", "a", 5),
        ("Negative prompt: b\nSteps: 5", "", 5),
        ("a: b, c: d", "a: b, c: d", None),
    ],
)
def test_settings_may_be_missing(path, text, prompt, steps):
    recipe = refiners.read_recipe(with_text(path, parameters=text))
    assert (recipe.prompt, recipe.arguments.steps) == (prompt, steps)


def test_a_graph_of_comfyui(path):
    recipe = refiners.read_recipe(with_text(path, prompt=json.dumps(GRAPH)))
    assert recipe.written_by == "comfyui"
    assert (recipe.prompt, recipe.negative_prompt) == ("a castle", "ugly")
    assert (recipe.seed, recipe.arguments.steps, recipe.arguments.guidance) == (
        *(156680208700286, 20),
        8.0,
    )
    assert (recipe.sampler, recipe.arguments.size) == ("dpmpp_2m karras", (512, 640))
    assert recipe.model.id == "file:dream.ckpt"
    (lora,) = recipe.adapters
    assert (lora.key, lora.name, lora.file, lora.scale) == ("ink", "lora", "ink.safetensors", 0.8)


def test_a_graph_with_custom_sampling_and_a_second_pass(path):
    graph = {
        "1": {"inputs": {"noise_seed": 5}},
        "2": {"inputs": {"sampler_name": "euler"}},
        "3": {"inputs": {"scheduler": "simple", "steps": 4, "denoise": 1.0}},
        "4": {"inputs": {"positive": ["6", 0], "cfg": 1.0}},
        "5": {"inputs": {"noise": ["1", 0], "guider": ["4", 0], "sampler": ["2", 0]}},
        "6": {"inputs": {"text": "a fox"}},
        "9": {"inputs": {"upscale": 2}},
    }
    recipe = refiners.read_recipe(with_text(path, prompt=json.dumps(graph)))
    assert (recipe.prompt, recipe.seed, recipe.arguments.steps) == ("a fox", 5, 4)
    assert recipe.sampler == "euler simple"
    later = {**GRAPH, "1": {"inputs": {**GRAPH["3"]["inputs"], "denoise": 0.5, "seed": 1}}}
    assert refiners.read_recipe(with_text(path, prompt=json.dumps(later))).seed == 156680208700286


def test_a_graph_with_a_circle_ends(path):
    graph = {"1": {"inputs": {"seed": ["2", 0], "positive": ["2", 0], "steps": 1}},
             "2": {"inputs": {"seed": ["1", 0], "text": ["2", 0], "model": ["1", 0]}}}  # fmt: skip
    assert refiners.read_recipe(with_text(path, prompt=json.dumps(graph))).prompt == ""


def test_nan_in_a_graph_is_ignored(path):
    text = json.dumps({**GRAPH, "9": {"inputs": {"x": float("nan")}, "is_changed": [float("nan")]}})
    assert refiners.read_recipe(with_text(path, prompt=text)).prompt == "a castle"


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"model": 3},
        {"image": -1},
        {"speed": 1},
        {"arguments": {"prompt": 3}},
        {"arguments": {"steps": 10**7}},
        {"arguments": {"size": [10**6, 4]}},
        {"arguments": {"count": 0}},
        {"arguments": {"speed": 1}},
        {"adapters": [{"id": "a"}]},
        {"adapters": {"a": 1}},
    ],
    ids=str,
)
def test_a_damaged_recipe_is_refused(path, changes):
    with pytest.raises(OptionError, match=f"the recipe of {path} is damaged"):
        ours(path, **changes)


def test_a_later_form_is_refused(path):
    with pytest.raises(OptionError, match=r"has the form 9; this version reads up to 1\. Run pip"):
        ours(path, recipe=9)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("refiners", "[]"),
        ("refiners", "{"),
        ("refiners", "[" * 100_000),
        ("prompt", "[]"),
        ("prompt", "{}"),
        ("prompt", '{"a": {"inputs": []}}'),
        ("prompt", "[" * 100_000),
        ("prompt", json.dumps({str(i): {"inputs": {}} for i in range(10_001)})),
        ("parameters", "a\nSteps: x"),
        ("parameters", "a\nSteps: 5, Seed: -1"),
    ],
)
def test_hostile_texts_are_refused(path, name, text):
    with pytest.raises(OptionError, match="is damaged"):
        refiners.read_recipe(with_text(path, **{name: text}))


def test_a_picture_without_a_recipe(path):
    for suffix in (".png", ".jpg"):
        Image.new("RGB", (4, 4)).save(path.with_suffix(suffix))
        with pytest.raises(OptionError, match="has no recipe"):
            refiners.read_recipe(path.with_suffix(suffix))


def test_a_huge_text_is_not_read(path):
    with pytest.raises(OptionError, match="has no recipe"):
        refiners.read_recipe(with_text(path, refiners=" " * 16_000_001))


def test_a_file_that_is_not_a_picture(path):
    with pytest.raises(OptionError, match="does not exist"):
        refiners.read_recipe(path)
    for content in (b"", b"text", b"\x89PNG\r\n\x1a\n" + b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(OptionError, match="is not a picture"):
            refiners.read_recipe(path)


def test_damaged_exif_is_not_an_error(path):
    file = with_comment(path.with_suffix(".jpg"), b"ASCII\0\0\0{}")
    content = bytearray(file.read_bytes())
    start = content.index(b"Exif\0\0") + 6
    for cut in (2, 8, 14):
        file.write_bytes(content[: start + cut] + b"\xff" * 12 + content[start + cut + 12 :])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(OptionError, match=r"has no recipe|is damaged|is not a picture"):
                refiners.read_recipe(file)
