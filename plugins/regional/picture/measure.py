"""Measures regions and large pictures on the playground.

python plugins/regional/picture/measure.py
"""

from collections.abc import Sequence
from typing import Any, Final

import refiners
import torch
from refiners_playground.recogniser import load_recogniser
from refiners_playground.scene import COLOURS, SHAPES, SIZE
from torch import Tensor

COUNT: Final = 64
"""The number of seeds."""
OPTIONS: Final[dict[str, Any]] = {"steps": 10, "output": "tensor", "progress": False}
WIDE: Final = (2 * SIZE, SIZE)
PANORAMA: Final = (4 * SIZE, SIZE)
PROMPTS: Final = (
    "a yellow star on a blue background",
    "a red heart on a white background",
    "a green ring on a black background",
)
Thing = tuple[str, str, str]
"""A shape, its colour and its background."""


def pair(seed: int) -> tuple[Thing, Thing]:
    """Returns what is asked for on the left and on the right, different shapes of other colours."""
    names = list(COLOURS)
    left = SHAPES[seed % 8], names[3 * seed % 10], names[(3 * seed + 5) % 10]
    other = 5 * seed + 3 + ((5 * seed + 3 - seed) % 8 == 0)
    right = SHAPES[other % 8], names[3 * other % 10], names[(3 * other + 5) % 10]
    return left, right


def share(pictures: Tensor, pairs: Sequence[tuple[Thing, Thing]]) -> float:
    """Returns the share of pictures that have both shapes in their colours on their sides."""
    recogniser = load_recogniser()
    halves = [recogniser.read(half) for half in pictures.split(SIZE, -1)]
    hits = [
        all(
            (reading["shape"], reading["colour"]) == thing[:2]
            for reading, thing in zip(readings, things, strict=True)
        )
        for things, *readings in zip(pairs, *halves, strict=True)
    ]
    return sum(hits) / len(hits)


def regions(left: Thing, right: Thing) -> list[dict[str, Any]]:
    """Returns the two halves of a picture as regions."""
    boxes = (0, 0, 0.5, 1), (0.5, 0, 1, 1)
    return [
        {"prompt": f"a large {colour} {shape} on a {ground} background", "box": box}
        for (shape, colour, ground), box in zip((left, right), boxes, strict=True)
    ]


def made(model: Any, prompts: Sequence[str], adapter: Any = None) -> Tensor:
    """Returns a picture of two halves for each seed, in batches of 16."""
    parts: list[Tensor] = []
    for first in range(0, COUNT, 16):
        seeds = list(range(first, first + 16))
        value = [regions(*pair(seed)) for seed in seeds]
        conditions = {} if adapter is None else {adapter: value}
        texts = [*prompts[first : first + 16]]
        options = {"seed": seeds, "size": WIDE, "conditions": conditions}
        parts.append(model.generate(texts, **options, **OPTIONS))
    return torch.cat(parts)


def seam(pictures: Tensor, stride: int) -> float:
    """Returns the mean gradient across the borders of windows, over that elsewhere."""
    gradient = (pictures[..., 1:] - pictures[..., :-1]).abs().mean((0, 1, 2))
    borders = torch.zeros(len(gradient), dtype=torch.bool)
    borders[stride - 1 :: stride] = True
    return float(gradient[borders].mean() / gradient[~borders].mean())


def main() -> None:
    """Prints the figures."""
    model = refiners.load_model("playground")
    pairs = [pair(seed) for seed in range(COUNT)]
    named = [f"a {a[1]} {a[0]} left of a {b[1]} {b[0]}" for a, b in pairs]
    print(f"both shapes and colours on their sides, of {COUNT} seeds")
    print(f"one prompt that names both: {share(made(model, named), pairs):.2f}")
    for mode in ("attention", "latents"):
        with refiners.load_adapter("regional-prompts", mode=mode).on(model) as adapter:
            print(f"{mode}: {share(made(model, [''] * COUNT, adapter), pairs):.2f}", flush=True)
            if mode == "attention":
                with refiners.load_adapter("mixture-of-diffusers").on(model):
                    shares = share(made(model, [""] * COUNT, adapter), pairs)
                print(f"{mode}, in windows: {shares:.2f}", flush=True)
    print("\ngradient across borders of windows over that elsewhere, 256 x 64 pixels")
    for name, stride in (("multidiffusion", 8), ("mixture-of-diffusers", 32)):
        with refiners.load_adapter(name).on(model):
            pictures = model.generate([*PROMPTS], seed=1, size=PANORAMA, **OPTIONS)
        print(f"{name}: {seam(pictures, stride):.2f}", flush=True)
    with refiners.load_adapter("multidiffusion", circular=True).on(model):
        pictures = model.generate([*PROMPTS], seed=1, size=PANORAMA, **OPTIONS)
    print(f"multidiffusion, circular, at the edge: {seam(pictures.roll(4, -1), 4):.2f}")


if __name__ == "__main__":
    main()
