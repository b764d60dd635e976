"""Trains one method and measures it: likeness of the subject, and drift of everything else."""

import platform
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import msgspec
import refiners
import torch
from refiners_playground.caption import article, plain_caption
from refiners_playground.config import IMAGE_ENCODER
from refiners_playground.measure.sampling import generated, named_scenes, recogniser
from refiners_playground.recogniser import WEIGHTS
from refiners_playground.scene import HELD_OUT_SHAPE, Item, Scene, draw
from refiners_train import load_config, train
from refiners_train.evaluate.estimate import Estimate, bootstrap, wilson
from refiners_train.evaluate.peak import peak_memory
from subject import WORD
from table import Entry
from torch import Tensor

from refiners_core.measure import Settings, mean
from refiners_core.models.clip import CLIP_IMAGE_KEYS, ClipImageEncoder, clip_pixels
from refiners_core.weights import load

FOLDER = Path(__file__).parent
BASE = "playground"
STEPS = 10
"""The denoising steps of measured pictures."""


Rows = list[list[float]]
"""The features of each picture."""


def measured(
    name: str, device: str, steps: int | None, count: int, before: Rows | None = None
) -> tuple[Entry, Rows]:
    """Trains a method and measures its result.

    Args:
        name: The name of its configuration; empty for the base without training.
        device: The device.
        steps: The number of training steps; by default that of the configuration.
        count: The number of pictures of the subject, and of others.
        before: The features of the other pictures as the base makes them; made by default.

    Returns:
        The entry, and the features of the other pictures.
    """
    if device == "cpu":
        torch.set_num_threads(1)
    scenes = named_scenes(count)
    model: Any = refiners.load_model(BASE, device=device)
    others = [plain_caption(scene) for scene in scenes]
    with TemporaryDirectory() as folder:
        trained, adapter = Trained(), None
        if name:
            trained = run(name, device, steps, Path(folder))
            adapter = refiners.load_adapter(trained.file, model)
        word = WORD if name == "textual-inversion" else HELD_OUT_SHAPE
        pixels = generated(model, prompts(scenes, word), Settings(steps=STEPS), adapter)
        after = features(generated(model, others, Settings(seed=count, steps=STEPS), adapter))
    first = after if before is None else torch.tensor(before)
    wanted = features(draw([with_subject(scene) for scene in scenes]))
    hits = [reading["shape"] == HELD_OUT_SHAPE for reading in recogniser().read(pixels)]
    entry = Entry(
        method=name,
        similarity=estimate((features(pixels) * wanted).sum(1)),
        recognised=wilson(sum(hits), count),
        drift=estimate(1 - (after * first).sum(1)),
        seconds=round(trained.seconds, 1),
        memory=round(trained.memory, 1),
        size=trained.size,
        parameters=trained.parameters,
        steps=trained.steps,
        seed=trained.seed,
        count=count,
        device="CPU" if device == "cpu" else torch.cuda.get_device_name(device),
        versions={"torch": str(torch.__version__), "python": platform.python_version()},
    )
    return entry, after.tolist()


class Trained(msgspec.Struct):
    """The file of a training, and its cost."""

    file: Path = Path()
    seconds: float = 0.0
    memory: float = 0.0
    size: int = 0
    parameters: int = 0
    steps: int = 0
    seed: int = 0


def run(name: str, device: str, steps: int | None, folder: Path) -> Trained:
    """Trains by the configuration of a name, into a folder."""
    config = load_config(FOLDER / f"{name}.toml")
    changed = msgspec.structs.replace(config.train, steps=steps or config.train.steps)
    config = msgspec.structs.replace(config, output=str(folder / name), train=changed)
    counts: list[int] = []

    def after(step: int, loop: Any) -> None:
        if not counts:
            counts.append(loop.learners.count)

    start = perf_counter()
    done = train(config, device=device, progress=False, callback=after)
    seconds = perf_counter() - start
    [file] = done.glob("*.safetensors")
    return Trained(
        file=file,
        seconds=seconds,
        memory=peak_memory(device),
        size=file.stat().st_size,
        parameters=counts[0],
        steps=config.train.steps,
        seed=config.train.seed,
    )


def prompts(scenes: list[Scene], word: str) -> list[str]:
    """Returns prompts of the subject in the colours of scenes."""
    return [
        f"{article(scene.items[0].colour)} {word} on {article(scene.background)} background"
        for scene in scenes
    ]


def with_subject(scene: Scene) -> Scene:
    """Returns the scene with the subject in place of its object."""
    return Scene((Item(HELD_OUT_SHAPE, scene.items[0].colour),), scene.background)


@torch.no_grad()
def features(pixels: Tensor) -> Tensor:
    """Returns the features of pictures, of length 1, by the image encoder of the IP-Adapter."""
    encoder = ClipImageEncoder(IMAGE_ENCODER).eval()
    load(encoder, WEIGHTS.with_name("image_encoder.safetensors"), CLIP_IMAGE_KEYS)
    made = encoder(clip_pixels(pixels, IMAGE_ENCODER.image_size))
    return torch.nn.functional.normalize(made.float(), dim=1)


def estimate(values: Tensor) -> Estimate:
    """Returns the mean of values and its interval."""
    return bootstrap(values.tolist(), mean)
