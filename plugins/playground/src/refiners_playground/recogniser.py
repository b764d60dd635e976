"""A small classifier of what a picture shows, to measure the effect of prompts and adapters."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn

from refiners_playground.pattern import FILLS
from refiners_playground.scene import COLOURS, COLUMNS, ROWS, SHAPES, SIZES, Scene

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "background": tuple(COLOURS),
    "fill": FILLS,
    "size": tuple(SIZES),
    "column": COLUMNS,
    "row": ROWS,
}
"""The attributes that are classified, and the words of each."""

WEIGHTS = Path(__file__).parent / "weights" / "recogniser.safetensors"


def attributes(scene: Scene) -> dict[str, str]:
    """Returns the true words of a scene with one object."""
    item = scene.items[0]
    return {
        "shape": item.shape,
        "colour": item.colour,
        "background": scene.background,
        "fill": item.fill,
        "size": item.size,
        "column": item.column,
        "row": item.row,
    }


def labels(scenes: Sequence[Scene]) -> dict[str, Int[Tensor, " batch"]]:
    """Returns the index in `ATTRIBUTES` of each attribute's word, for scenes with one object."""
    truths = [attributes(scene) for scene in scenes]
    return {
        name: torch.tensor([words.index(truth[name]) for truth in truths], dtype=torch.long)
        for name, words in ATTRIBUTES.items()
    }


def _halving(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Recogniser(nn.Module):
    """Five convolutions, then a linear classifier per attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _halving(3, 24),
            _halving(24, 48),
            _halving(48, 96),
            nn.Conv2d(96, 96, 3, padding=1, bias=False),
            nn.BatchNorm2d(96),
            nn.ReLU(),
            _halving(96, 112),
            nn.Flatten(),
            nn.Linear(112 * 16, 72),
            nn.ReLU(),
        )
        self.readings = nn.ModuleDict(
            {name: nn.Linear(72, len(words)) for name, words in ATTRIBUTES.items()}
        )

    def forward(self, pixels: Float[Tensor, "batch 3 64 64"]) -> dict[str, Tensor]:
        """Returns the logits of each attribute's words, for pictures in 0...1."""
        features = self.features(pixels * 2 - 1)
        return {name: reading(features) for name, reading in self.readings.items()}

    @torch.no_grad()
    def read(self, pixels: Float[Tensor, "batch 3 64 64"]) -> list[dict[str, str]]:
        """Returns the likeliest word of each attribute, for pictures in 0...1."""
        logits = self(pixels)
        chosen = {name: logits[name].argmax(1).tolist() for name in ATTRIBUTES}
        return [
            {name: words[chosen[name][row]] for name, words in ATTRIBUTES.items()}
            for row in range(len(pixels))
        ]


def load_recogniser(path: Path = WEIGHTS) -> Recogniser:
    """Loads the trained recogniser in float32."""
    recogniser = Recogniser()
    recogniser.load_state_dict(load_file(path))
    return recogniser.eval().requires_grad_(False)


def agreement(
    recogniser: Recogniser, pixels: Float[Tensor, "batch 3 64 64"], scenes: Sequence[Scene]
) -> dict[str, float]:
    """Returns the share (0...1) of pictures in which each attribute is recognised correctly."""
    pairs = list(zip(recogniser.read(pixels), map(attributes, scenes), strict=True))
    return {
        name: sum(reading[name] == truth[name] for reading, truth in pairs) / len(scenes)
        for name in ATTRIBUTES
    }
