"""Measures how closely inverted pictures of the playground are made again.

python plugins/inversion/picture/measure.py
"""

from typing import Any, Final

import refiners
from refiners_playground.scene import draw, held_out_scenes
from torch import Tensor

COUNT: Final = 12
"""The number of pictures."""
OPTIONS: Final[dict[str, Any]] = {
    **{"guidance": 1.0, "sampler": "ddim", "output": "tensor", "progress": False}
}
KINDS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("ddim-inversion", {}),
    ("renoise", {}),
    ("renoise", {"repeats": 4}),
    ("renoise", {"repeats": 4, "regularisation": 20.0}),
)


def psnr(a: Tensor, b: Tensor) -> float:
    """Returns the mean peak signal-to-noise ratio of pictures in dB."""
    return float((-10 * (a - b).square().mean((1, 2, 3)).log10()).mean())


def main() -> None:
    """Prints the figures."""
    model = refiners.load_model("playground")
    scenes = list(held_out_scenes())[::7][:COUNT]
    pictures = draw(scenes)
    prompts = [
        f"a large {scene.items[0].colour} {scene.items[0].shape} on a {scene.background} background"
        for scene in scenes
    ]
    coded = psnr(model.decode(model.encode(pictures)), pictures)
    print(f"PSNR of {COUNT} pictures in dB; {coded:.1f} of the autoencoder alone")
    for steps in (10, 20):
        for name, options in KINDS:
            with refiners.load_adapter(name, **options).on(model) as adapter:
                value = {"picture": pictures, "prompt": prompts}
                again = model.generate(prompts, conditions={adapter: value}, steps=steps, **OPTIONS)
            print(f"{steps} steps, {name} {options}: {psnr(again, pictures):.1f}", flush=True)


if __name__ == "__main__":
    main()
