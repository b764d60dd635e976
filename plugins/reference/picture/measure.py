"""Measures how often pictures of the playground take the look of a reference.

python plugins/reference/picture/measure.py
"""

from typing import Any, Final

import refiners
from refiners_playground.recogniser import load_recogniser

SCENES: Final = (
    ("yellow", "star", "blue", 3),
    ("red", "heart", "green", 4),
    ("white", "ring", "purple", 5),
    ("green", "circle", "orange", 6),
    ("blue", "square", "yellow", 8),
    ("red", "star", "cyan", 9),
)
"""The colour, shape, background and seed of each reference."""
SHAPES: Final = ("square", "heart")
OPTIONS: Final[dict[str, Any]] = {"steps": 15, "output": "tensor", "progress": False}


def counted(model: Any, references: list[Any], adapter: Any = None) -> dict[str, int]:
    """Returns how many pictures have the background and the colour of their reference, and the
    prompted shape."""
    recogniser = load_recogniser()
    hits: dict[str, int] = dict.fromkeys(("background", "colour", "shape"), 0)
    prompts = [f"a large {shape}" for shape in SHAPES]
    for reference in references:
        (expected,) = recogniser.read(reference)
        conditions = {} if adapter is None else {adapter: reference}
        pixels = model.generate(prompts, conditions=conditions, seed=7, **OPTIONS)
        for reading, shape in zip(recogniser.read(pixels), SHAPES, strict=True):
            for name in hits:
                hits[name] += reading[name] == (expected | {"shape": shape})[name]
    return hits


def main() -> None:
    """Prints the counts."""
    model = refiners.load_model("playground")
    references = [
        model.generate(f"a large {colour} {shape} on a {ground} background", seed=seed, **OPTIONS)
        for colour, shape, ground, seed in SCENES
    ]
    print(f"of {len(references) * len(SHAPES)} pictures")
    print("without:", counted(model, references))
    for name, options in (("reference-only", {}), ("reference-adain", {"norm_weight": 2.0})):
        with refiners.load_adapter(name, **options).on(model) as adapter:
            print(f"{name}:", counted(model, references, adapter))


if __name__ == "__main__":
    main()
