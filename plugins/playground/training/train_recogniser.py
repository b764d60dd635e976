"""Trains the recogniser on freshly drawn scenes: about five minutes on one core."""

from random import Random

import torch
from loop import Recipe, train
from refiners_playground.random_scene import canonical_scene, placed_scene
from refiners_playground.recogniser import Recogniser, agreement, labels
from refiners_playground.scene import Scene, draw, held_out_scenes
from run import WEIGHTS, arguments
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, pad

HELD_OUT_SEED = 1_000_003


def sample(random: Random) -> Scene:
    """Returns a random scene with one object; a third are canonical."""
    if random.random() < 0.33:
        return canonical_scene(random)
    return placed_scene(random, patterned=0.4, textured=0.2)


def worsened(pixels: Tensor) -> Tensor:
    """Blurs half of the pictures and adds noise, as generated pictures are not crisp."""
    blurred = avg_pool2d(pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = torch.rand(len(pixels), 1, 1, 1) * (torch.rand(len(pixels), 1, 1, 1) < 0.5)
    noise = torch.randn_like(pixels) * 0.05 * torch.rand(len(pixels), 1, 1, 1)
    tint = 0.03 * torch.randn(len(pixels), 3, 1, 1)
    return pixels.lerp(blurred, share) + noise + tint


def main() -> None:
    """Trains, measures on held-out scenes, writes fp16 weights."""
    options = arguments(__doc__ or "", steps=2600, batch=64, measure_every=1000)
    recogniser = Recogniser().to(memory_format=torch.channels_last)
    held_out = Random(HELD_OUT_SEED)
    measured = [placed_scene(held_out, patterned=0.25) for _ in range(512)]
    measured += held_out_scenes()

    def loss_of(step: int, random: Random) -> Tensor:
        scenes = [sample(random) for _ in range(options.batch)]
        logits, wanted = recogniser(worsened(draw(scenes))), labels(scenes)
        return torch.stack([cross_entropy(logits[k], wanted[k]) for k in wanted]).sum()

    def measure() -> dict[str, float]:
        return agreement(recogniser, draw(measured), measured)

    torch.manual_seed(0)
    train("recogniser", recogniser, Recipe(muon=4e-3, adam=2e-3), loss_of, measure, options)
    half = {name: value.half().contiguous() for name, value in recogniser.state_dict().items()}
    save_file(
        {name: value for name, value in half.items() if "num_batches" not in name},
        WEIGHTS / "recogniser.safetensors",
    )


if __name__ == "__main__":
    main()
