"""Trains the IP-Adapter's image encoder to embed what a scene shows: about ten minutes.

The official encoder was trained on pairs of pictures and captions. This one is trained to classify
the attributes of scenes by linear layers on its embedding, which are discarded afterwards.
"""

from random import Random

import torch
from loop import Recipe, train
from refiners_playground.config import IMAGE_ENCODER
from refiners_playground.lesson.example import as_float, in_bytes
from refiners_playground.random_scene import canonical_scene, placed_scene
from refiners_playground.recogniser import ATTRIBUTES, labels
from refiners_playground.scene import Scene, draw, held_out_scenes
from run import arguments
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from weight_file import save_half

from refiners_core.models.clip import CLIP_IMAGE_KEYS, ClipImageEncoder

HELD_OUT_SEED = 1_000_003
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""The normalisation of CLIP's pixels (arXiv 2103.00020, released code)."""


class Supervised(nn.Module):
    """The encoder and the linear classifiers that train it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ClipImageEncoder(IMAGE_ENCODER)
        width = IMAGE_ENCODER.projection_width or IMAGE_ENCODER.width
        self.readings = nn.ModuleDict(
            {name: nn.Linear(width, len(words)) for name, words in ATTRIBUTES.items()}
        )

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Returns the logits of each attribute, for pictures in 0...1."""
        mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_DEVIATION))
        embedding = self.encoder((pixels - mean) / deviation)
        return {name: reading(embedding) for name, reading in self.readings.items()}


def sample(random: Random) -> Scene:
    """Returns a random scene with one object; a third are canonical."""
    if random.random() < 0.33:
        return canonical_scene(random)
    return placed_scene(random, patterned=0.25, textured=0.1)


@torch.no_grad()
def accuracy(model: nn.Module, scenes: list[Scene]) -> dict[str, float]:
    """Returns the share (0...1) of scenes in which each attribute is classified correctly."""
    logits, wanted = model(draw(scenes)), labels(scenes)
    return {k: (logits[k].argmax(1) == wanted[k]).float().mean().item() for k in wanted}


def main() -> None:
    """Trains, measures on held-out scenes, writes fp16 weights."""
    options = arguments(__doc__ or "", steps=4000, batch=64, pool=32000, measure_every=500)
    torch.manual_seed(0)
    model = Supervised()
    random = Random(0)
    scenes = [sample(random) for _ in range(options.pool)]
    pictures, truths = in_bytes(draw, scenes).to(torch.get_default_device()), labels(scenes)
    held_out = Random(HELD_OUT_SEED)
    measured = [placed_scene(held_out) for _ in range(256)] + list(held_out_scenes())

    def loss_of(step: int, random: Random) -> Tensor:
        rows = torch.randint(len(pictures), (options.batch,))
        logits = model(as_float(pictures[rows]))
        return torch.stack([cross_entropy(logits[k], truths[k][rows]) for k in truths]).sum()

    recipe = Recipe(muon=4e-3, adam=1.5e-3, warm=100)
    train("image_encoder", model, recipe, loss_of, lambda: accuracy(model, measured), options)
    save_half(model.encoder, "image_encoder.safetensors", CLIP_IMAGE_KEYS)


if __name__ == "__main__":
    main()
