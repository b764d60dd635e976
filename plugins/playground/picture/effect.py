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
from refiners_palette.palette import Palette
from refiners_playground.contact_sheet import Column, contact_sheet
from refiners_playground.edge import edges
from refiners_playground.scene import SIZE, Item, Scene, draw
from torch import Tensor

from refiners_core import Condition
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.weights import write

PLUGINS: Final = Path(__file__).parents[2]
LINES: Final = Scene((Item("heart", "red", radius=0.5, x=0.3, y=-0.25, angle=0.2),), "white")
WEIGHTS: Final = "playground/src/refiners_playground/weights"


Case = tuple[str, str, Mapping[str, Any]]
"""The name of an adapter, the second line above its pictures, and its options."""


def pictures(model: LatentDiffusion, prompts: Sequence[str], **options: Any) -> list[Tensor]:
    """Returns a picture for each prompt, from noise of one seed."""
    return [*model.generate([*prompts], seed=7, output="tensor", progress=False, **options)]


def controlnet(model: LatentDiffusion) -> list[Column]:
    """Returns a prompt with a ControlNet, and without."""
    return by_edges(model, "controlnet-canny")


def controllora(model: LatentDiffusion) -> list[Column]:
    """Returns the same with a Control-LoRA of rank 16, made of the playground's ControlNet."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "edges.safetensors")
        extract(PLUGINS / WEIGHTS / "controlnet.safetensors", model, 16, path)
        return by_edges(model, "control-lora", file=path)


def by_edges(model: LatentDiffusion, name: str, **options: Any) -> list[Column]:
    """Returns a prompt with and without the edges of a scene, at three strengths."""
    lines = edges(draw([LINES])).expand(-1, 3, -1, -1)
    plain = pictures(model, ["a heart"])
    adapter = refiners.load_adapter(name, model, **options)
    columns: list[Column] = [("edges", "", [lines[0]]), ("a heart", "without", plain)]
    for scale in (0.3, 0.6, 1.0):
        value = {adapter: Condition(lines, scale=scale)}
        made = pictures(model, ["a heart"], conditions=value)
        columns.append((name, f"scale {scale}", made))
    return columns


def with_each(
    model: LatentDiffusion, cases: Sequence[Case], without: str = "", **options: Any
) -> list[Column]:
    """Returns two prompts alone, and with an adapter of each case."""
    prompts = ["a yellow star on a blue background", "a green ring"]
    columns: list[Column] = [("without", without, pictures(model, prompts, **options))]
    for name, title, knobs in cases:
        with refiners.load_adapter(name, **knobs).on(model):
            columns.append((name, title, pictures(model, prompts, **options)))
    return columns


def cache(model: LatentDiffusion) -> list[Column]:
    """Returns two prompts in 20 steps alone, and with each cache."""
    cases: list[Case] = [
        ("deepcache", "7 full calls", {}),
        ("t-gate", "gate at 8", {"gate_step": 8}),
        ("teacache", "", {}),
        ("first-block-cache", "", {}),
    ]
    return with_each(model, cases, "20 full calls", steps=20)


def freeu(model: LatentDiffusion) -> list[Column]:
    """Returns two prompts alone, with FreeU, and with FreSca, each also stronger."""
    cases: list[Case] = [
        ("freeu", "", {}),
        ("freeu", "b1=2, b2=2.5", {"b1": 2.0, "b2": 2.5}),
        ("fresca", "", {"cutoff": 3}),
        ("fresca", "high=2", {"high": 2.0, "cutoff": 3}),
    ]
    return with_each(model, cases)


def guidance(model: LatentDiffusion) -> list[Column]:
    """Returns two prompts with guidance that is too strong, and with what adapters make of it;
    then with the usual guidance, and what adapters add to it."""
    strong, usual = "guidance 25", "guidance 1"
    cases: list[Case] = [
        ("cfg-rescale", strong, {}),
        ("apg", strong, {"threshold": 4.0}),
        ("cfg-plus-plus", strong, {}),
    ]
    return [
        *with_each(model, cases, strong, guidance=25.0, sampler="ddim"),
        *with_each(model, [("sag", usual, {})], usual, guidance=1.0, sampler="ddim"),
    ]


def ipadapter(model: LatentDiffusion) -> list[Column]:
    """Returns an empty prompt and two others beside a picture."""
    picture = draw([scene("heart", "yellow", "purple")])
    prompts = ["", "a star", "a circle"]
    plain = pictures(model, prompts)
    adapter = refiners.load_adapter("ip-adapter", model)
    made = pictures(model, prompts, conditions={adapter: picture})
    titles = ["an empty prompt", *prompts[1:]]
    rows = zip(titles, made, plain, strict=True)
    columns = [(title, "below: without", [*pair]) for title, *pair in rows]
    return [("picture", "", [picture[0]]), *columns]


def lora(model: LatentDiffusion) -> list[Column]:
    """Returns three prompts at scales 0, 0.7 and 1."""
    prompts = [
        "a red heart on a yellow background",
        "a yellow star on a blue background",
        "a white cross on a green background",
    ]
    plain = pictures(model, prompts)
    adapter = refiners.load_adapter("lora-ink", model)
    half = pictures(model, prompts, conditions={adapter: Condition(scale=0.7)})
    made = pictures(model, prompts, conditions={adapter: Condition(scale=1.0)})
    rows = zip(prompts, plain, half, made, strict=True)
    return [(*halves(prompt), [*column]) for prompt, *column in rows]


def palette(model: LatentDiffusion) -> list[Column]:
    """Returns a prompt in five palettes, each of which is above its picture."""
    palettes = [
        Palette([("#db2424", 1), ("#f5f5f5", 2)]),
        Palette([("#f5f5f5", 1), ("#db2424", 2)]),
        Palette([("#fae033", 1), ("#264dd9", 2)]),
        Palette([("#7a2e9e", 1), ("#33ccdb", 2)]),
        Palette([("#121217", 1), ("#f799c2", 2)]),
    ]
    adapter = refiners.load_adapter("palette", model)
    prompts = ["a large heart"] * len(palettes)
    made = pictures(model, prompts, conditions={adapter: palettes})
    return [
        (*(f"{share:.0%} {name}" for name, share in colours), [stripes(colours), image])
        for colours, image in zip(palettes, made, strict=True)
    ]


def stripes(colours: Palette) -> Tensor:
    """Returns a picture that has the colours of a palette with their shares."""
    rows = [row for row in colours.numbers() if row[3] > 0]
    bounds = [round(SIZE * sum(float(row[3]) for row in rows[:i])) for i in range(len(rows) + 1)]
    picture = torch.ones(3, SIZE, SIZE)
    for row, left, right in zip(rows, bounds[:-1], bounds[1:], strict=True):
        picture[:, :, left:right] = row[:3, None, None]
    return picture


def stylealigned(model: LatentDiffusion) -> list[Column]:
    """Returns three prompts that share the style of the first, that of a picture, and apart."""
    prompts = ["a red heart on a yellow background", "a star", "a circle"]
    plain = pictures(model, prompts)
    picture = draw([scene("ring", "green", "red")])
    described = ["a large green ring on a red background", *prompts[1:]]
    adapter = refiners.load_adapter("style-aligned", model, shift=1.0, inversion_guidance=1.25)
    made = pictures(model, prompts, conditions={adapter: Condition()})
    given = pictures(model, described, conditions={adapter: Condition(picture, end=0.7)})
    rows = zip(prompts, made, plain, strict=True)
    columns = [(*halves(prompt), [*pair]) for prompt, *pair in rows]
    others = zip(prompts[1:], given[1:], plain[1:], strict=True)
    styled = [(prompt, "in its style", [*pair]) for prompt, *pair in others]
    return [*columns, ("picture", "", [picture[0]]), *styled]


def reference(model: LatentDiffusion) -> list[Column]:
    """Returns two prompts beside a reference, and without it."""
    picture = draw([scene("star", "yellow", "blue")])
    prompts = ["a large heart", "a large square"]
    columns: list[Column] = [("reference", "", [picture[0]])]
    columns.append(("without", "", pictures(model, prompts)))
    for name, options in (("reference-only", {}), ("reference-adain", {"norm_weight": 2.0})):
        with refiners.load_adapter(name, **options).on(model) as adapter:
            made = pictures(model, prompts, conditions={adapter: picture})
        columns.append((name, "", made))
    return columns


def regional(model: LatentDiffusion) -> list[Column]:
    """Returns pairs of things by one prompt and as regions, and the halves of a panorama."""
    pairs = [("yellow star", "red heart"), ("white ring", "green square")]
    grounds = "blue", "white", "purple", "orange"
    texts = [f"a large {thing}" for pair in pairs for thing in pair]
    whole = [f"{a} on a {b} background" for a, b in zip(texts, grounds, strict=True)]
    left, right = (0, 0, 0.5, 1), (0.5, 0, 1, 1)
    value = [
        [{"prompt": whole[i], "box": left}, {"prompt": whole[i + 1], "box": right}] for i in (0, 2)
    ]
    wide: dict[str, Any] = {"size": (2 * SIZE, SIZE)}
    both = [f"a {a} left of a {b}" for a, b in pairs]
    columns: list[Column] = [("one prompt", "for both", pictures(model, both, **wide))]
    windows = refiners.load_adapter("mixture-of-diffusers")
    quick = refiners.load_adapter("regional-prompts", mode="attention")
    with quick.on(model) as adapter, windows.on(model):
        made = pictures(model, ["", ""], conditions={adapter: value}, **wide)
        columns.append(("regional-prompts", "attention, in windows", made))
    with refiners.load_adapter("regional-prompts").on(model) as adapter:
        made = pictures(model, ["", ""], conditions={adapter: value}, **wide)
        columns.append(("regional-prompts", "latents", made))
    prompt = "a red heart on a white background"
    with windows.on(model):
        (panorama,) = pictures(model, [prompt], size=(4 * SIZE, SIZE))
    return [*columns, ("mixture-of-diffusers", "one picture", [*panorama.split(2 * SIZE, -1)])]


def inversion(model: LatentDiffusion) -> list[Column]:
    """Returns two pictures, made again by both inversions, and edited."""
    scenes = [("heart", "red", "white"), ("star", "yellow", "blue")]
    seen = draw([scene(*names) for names in scenes])
    prompts = [f"a large {names[1]} {names[0]} on a {names[2]} background" for names in scenes]
    edits = ["a large blue heart on a white background", "a large yellow ring on a blue background"]
    columns: list[Column] = [("picture", "", [*seen])]
    value = {"picture": seen, "prompt": prompts}
    for name in ("ddim-inversion", "renoise"):
        with refiners.load_adapter(name).on(model) as adapter:
            again = pictures(model, prompts, conditions={adapter: value}, guidance=1, steps=12)
            edited = pictures(model, edits, conditions={adapter: value}, steps=12)
        columns += [(name, "again", again), (name, "edited", edited)]
    return columns


def textualinversion(model: LatentDiffusion) -> list[Column]:
    """Returns a word whose vector is that of another word, at three strengths."""
    (token,) = model.tokenizer.tokens("star")
    vector = model.text_encoder.state_dict()["embed.token.weight"][token].clone()
    with TemporaryDirectory() as folder:
        path = Path(folder, "toy.safetensors")
        write({"<toy>": vector[None]}, path)
        adapter = refiners.load_adapter(path, model)
    columns: list[Column] = []
    for scale in (0.0, 0.5, 1.0):
        value = {adapter: Condition(scale=scale)}
        made = pictures(
            model, ["a red <toy>", "a blue <toy> on a white background"], conditions=value
        )
        columns.append(("<toy>", f"scale {scale}", made))
    return columns


def tokens(model: LatentDiffusion) -> list[Column]:
    """Returns two prompts alone, with merged tokens, and in tiles."""
    cases: list[Case] = [
        ("tome", "", {}),
        ("tome", "ratio 0.75", {"ratio": 0.75}),
        ("hypertile", "tiles of 32", {"tile_size": 32, "swap_size": 1}),
    ]
    return with_each(model, cases)


def playground(model: LatentDiffusion) -> list[Column]:
    """Returns four prompts."""
    prompts = [
        "a yellow star on a blue background",
        "a red circle on a white background",
        "a green ring on a black background",
        "a purple cross on a pink background",
    ]
    made = pictures(model, prompts)
    return [(*halves(prompt), [image]) for prompt, image in zip(prompts, made, strict=True)]


def halves(prompt: str) -> tuple[str, str]:
    """Returns a prompt as two lines."""
    first, on, background = prompt.partition(" on ")
    return first, on.strip() + " " + background


def scene(shape: str, colour: str, background: str) -> Scene:
    """Returns a large shape in the middle."""
    return Scene((Item(shape, colour),), background)


PACKAGES: Final[Mapping[str, Callable[[LatentDiffusion], list[Column]]]] = {
    function.__name__: function
    for function in (
        *(cache, controllora, controlnet, freeu, guidance, inversion, ipadapter, lora, palette),
        *(playground, reference, regional, stylealigned),
        *(textualinversion, tokens),
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
