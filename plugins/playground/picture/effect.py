"""Draws the pictures in the READMEs of packages: what an adapter does on the playground.

python plugins/playground/picture/effect.py [PACKAGE ...]
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import refiners
import torch
from refiners_controllora.extract import extract
from refiners_playground.contact_sheet import Column, contact_sheet
from refiners_playground.edge import edges
from refiners_playground.scene import Item, Scene, draw
from torch import Tensor

from refiners_core import Condition
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.weights import write

PLUGINS: Final = Path(__file__).parents[2]
WEIGHTS: Final = "playground/src/refiners_playground/weights"


def pictures(model: LatentDiffusion, prompts: Sequence[str], **options: Any) -> list[Tensor]:
    """Returns a picture for each prompt, from noise of one seed."""
    return [*model.generate([*prompts], seed=7, output="tensor", progress=False, **options)]


def controlnet(model: LatentDiffusion) -> list[Column]:
    """Returns a prompt with and without the edges of a scene, at three strengths."""
    return by_edges(model, "controlnet-canny")


def controllora(model: LatentDiffusion) -> list[Column]:
    """Returns the same with a Control-LoRA of rank 16, made of the playground's ControlNet."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "edges.safetensors")
        extract(PLUGINS / WEIGHTS / "controlnet.safetensors", model, 16, path)
        return by_edges(model, "control-lora", file=path)


def by_edges(model: LatentDiffusion, name: str, **options: Any) -> list[Column]:
    lines = edges(draw([scene("star", "red", "white")])).expand(-1, 3, -1, -1)
    plain = pictures(model, ["a star"])
    adapter = refiners.load_adapter(name, model, **options)
    columns: list[Column] = [("edges", "", [lines[0]]), ('"a star"', "without", plain)]
    for scale in (0.3, 0.6, 1.0):
        value = {adapter: Condition(lines, scale=scale)}
        made = pictures(model, ["a star"], conditions=value)
        columns.append((name, f"scale {scale}", made))
    return columns


def ipadapter(model: LatentDiffusion) -> list[Column]:
    """Returns an empty prompt and two others beside a picture."""
    picture = draw([scene("heart", "yellow", "purple")])
    prompts = ["", "a star", "a circle"]
    plain = pictures(model, prompts)
    adapter = refiners.load_adapter("ip-adapter", model)
    made = pictures(model, prompts, conditions={adapter: picture})
    titles = ["an empty prompt", '"a star"', '"a circle"']
    rows = zip(titles, made, plain, strict=True)
    return [
        ("picture", "", [picture[0]]),
        *((title, "below: without", [*pair]) for title, *pair in rows),
    ]


def lora(model: LatentDiffusion) -> list[Column]:
    """Returns three prompts in ink, and as they are without."""
    prompts = ["a red heart on a yellow background", "a star", "a green ring"]
    plain = pictures(model, prompts)
    adapter = refiners.load_adapter("lora-ink", model)
    half = pictures(model, prompts, conditions={adapter: Condition(scale=0.7)})
    made = pictures(model, prompts, conditions={adapter: Condition(scale=1.0)})
    rows = zip(prompts, plain, half, made, strict=True)
    return [(prompt[:27], "scale 0, 0.7, 1", [*column]) for prompt, *column in rows]


def stylealigned(model: LatentDiffusion) -> list[Column]:
    """Returns four prompts that share the style of the first, and apart."""
    prompts = ["a red heart on a yellow background", "a star", "a circle", "a ring"]
    plain = pictures(model, prompts)
    adapter = refiners.load_adapter("style-aligned", model, shift=1.0)
    made = pictures(model, prompts, conditions={adapter: Condition()})
    rows = zip(prompts, made, plain, strict=True)
    return [(prompt[:27], "below: without", [*pair]) for prompt, *pair in rows]


def textualinversion(model: LatentDiffusion) -> list[Column]:
    """Returns a word whose vector is that of another word, at five strengths."""
    (token,) = model.tokenizer.tokens("star")
    vector = model.text_encoder.state_dict()["embed.token.weight"][token].clone()
    with TemporaryDirectory() as folder:
        path = Path(folder, "toy.safetensors")
        write({"<toy>": vector[None]}, path)
        adapter = refiners.load_adapter(path, model)
    columns: list[Column] = []
    for scale in (0.0, 0.5, 1.0):
        value = {adapter: Condition(scale=scale)}
        made = pictures(model, ["a red <toy>", "a blue <toy> on white"], conditions=value)
        columns.append(("<toy>", f"scale {scale}", made))
    return columns


def playground(model: LatentDiffusion) -> list[Column]:
    """Returns prompts of all kinds."""
    prompts = [
        "a yellow star on a blue background",
        "a striped red circle",
        "a green ring left of a pink square",
        "a small blue heart in the top left corner",
    ]
    return [
        (words[:27], words[27:], [image])
        for words, image in zip(prompts, pictures(model, prompts), strict=True)
    ]


def scene(shape: str, colour: str, background: str) -> Scene:
    """Returns a large shape in the middle."""
    return Scene((Item(shape, colour),), background)


PACKAGES: Final[Mapping[str, Callable[[LatentDiffusion], list[Column]]]] = {
    function.__name__: function
    for function in (
        controllora, controlnet, ipadapter, lora, playground, stylealigned, textualinversion
    )
}  # fmt: skip


def main() -> None:
    """Writes `effect.png` beside the README of each package."""
    torch.set_num_threads(1)
    model = refiners.load_model("playground")
    for name in sys.argv[1:] or PACKAGES:
        sheet = contact_sheet(PACKAGES[name](model))
        model.eject_all()
        sheet.quantize(128).save(PLUGINS / name / "effect.png", optimize=True)


if __name__ == "__main__":
    main()
