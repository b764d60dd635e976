"""A small network that reads what a picture shows, to measure what prompts and adapters achieve."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn

from refiners_playground.scene import COLOURS, COLUMNS, FILLS, ROWS, SHAPES, SIZES, Scene

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "background": tuple(COLOURS),
    "fill": FILLS,
    "size": tuple(SIZES),
    "column": COLUMNS,
    "row": ROWS,
}
"""What is read, and the words each reading chooses from."""

WEIGHTS = Path(__file__).parent / "weights" / "recogniser.safetensors"


def attributes(scene: Scene) -> dict[str, str]:
    """Says what a reader should find in a scene with one object."""
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
    """Gives the index of every attribute's word in `ATTRIBUTES`, for scenes with one object."""
    found = [attributes(scene) for scene in scenes]
    return {
        name: torch.tensor([words.index(one[name]) for one in found], dtype=torch.long)
        for name, words in ATTRIBUTES.items()
    }


def _halving(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Recogniser(nn.Module):
    """Five convolutions, then one linear reading of every attribute."""

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
        """Gives the logits of every attribute's words, for pictures in 0...1."""
        features = self.features(pixels * 2 - 1)
        return {name: reading(features) for name, reading in self.readings.items()}

    @torch.no_grad()
    def read(self, pixels: Float[Tensor, "batch 3 64 64"]) -> list[dict[str, str]]:
        """Names the likeliest word of every attribute, for pictures in 0...1."""
        logits = self(pixels)
        chosen = {name: logits[name].argmax(1).tolist() for name in ATTRIBUTES}
        return [
            {name: words[chosen[name][row]] for name, words in ATTRIBUTES.items()}
            for row in range(len(pixels))
        ]


def load_recogniser(path: Path = WEIGHTS) -> Recogniser:
    """Builds the trained reader in float32, ready to read."""
    recogniser = Recogniser()
    recogniser.load_state_dict(load_file(path))
    return recogniser.eval().requires_grad_(False)


def agreement(
    recogniser: Recogniser, pixels: Float[Tensor, "batch 3 64 64"], scenes: Sequence[Scene]
) -> dict[str, float]:
    """The share (0...1) of pictures in which each attribute is read as the scene has it."""
    readings, wanted = recogniser.read(pixels), [attributes(scene) for scene in scenes]
    return {
        name: sum(found[name] == true[name] for found, true in zip(readings, wanted, strict=True))
        / len(scenes)
        for name in ATTRIBUTES
    }
