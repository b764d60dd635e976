"""Trains the reader of pictures on freshly drawn scenes: about five minutes on one core."""

from random import Random

import torch
from optimiser import Average, Optimisers, warm_hold_decay
from refiners_playground.recogniser import Recogniser, agreement, labels
from refiners_playground.sampling import canonical_scene, placed_scene
from refiners_playground.scenes import Scene, draw, held_out_scenes
from run import WEIGHTS, Run, arguments
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, pad

HELD_OUT_SEED = 1_000_003


def sample(random: Random) -> Scene:
    """One scene with one object; a third are canonical."""
    if random.random() < 0.33:
        return canonical_scene(random)
    return placed_scene(random, patterned=0.4, textured=0.2)


def worsened(pixels: Tensor) -> Tensor:
    """Blurs half of the pictures and adds noise, as pictures made by a model are not crisp."""
    blurred = avg_pool2d(pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = torch.rand(len(pixels), 1, 1, 1) * (torch.rand(len(pixels), 1, 1, 1) < 0.5)
    noise = torch.randn_like(pixels) * 0.05 * torch.rand(len(pixels), 1, 1, 1)
    tint = 0.03 * torch.randn(len(pixels), 3, 1, 1)
    return pixels.lerp(blurred, share) + noise + tint


def main() -> None:
    """Trains, measures on scenes never seen, writes fp16 weights."""
    options = arguments(__doc__ or "", steps=2600, batch=64)
    torch.manual_seed(0)
    random = Random(0)
    run = Run("recogniser")
    recogniser = Recogniser().to(memory_format=torch.channels_last)
    optimisers = Optimisers(
        recogniser.named_parameters(),
        muon=4e-3,
        adam=2e-3,
        betas=(0.9, 0.99),
        schedule=warm_hold_decay(options.steps, warm=50, hold=0.4),
    )
    average = Average(recogniser, decay=0.998)
    first = 0
    state = None if options.fresh else run.resume()
    if state:
        recogniser.load_state_dict(state["model"])
        optimisers.load_state_dict(state["optimisers"])
        average.tensors, first = state["average"], state["step"]
        random = Random(first)
    for step in range(first, options.steps):
        scenes = [sample(random) for _ in range(options.batch)]
        logits, wanted = recogniser(worsened(draw(scenes))), labels(scenes)
        loss = torch.stack([cross_entropy(logits[k], wanted[k]) for k in wanted]).sum()
        optimisers.step(loss, step)
        average.update(recogniser)
        if step % 100 == 0:
            run.log(step=step, loss=loss.item())
        if run.is_due() or step + 1 == options.steps:
            run.save(
                {
                    "model": recogniser.state_dict(),
                    "optimisers": optimisers.state_dict(),
                    "average": average.tensors,
                    "step": step + 1,
                }
            )
    recogniser.load_state_dict({k: v.half() for k, v in average.tensors.items()})
    recogniser.eval()
    held_out = Random(HELD_OUT_SEED)
    scenes = [placed_scene(held_out, patterned=0.25) for _ in range(512)] + list(held_out_scenes())
    run.log(**agreement(recogniser, draw(scenes), scenes))
    half = {k: v.half().contiguous() for k, v in average.tensors.items() if "num_batches" not in k}
    save_file(half, WEIGHTS / "recogniser.safetensors")


if __name__ == "__main__":
    main()
