"""Pictures that are drawn while training: fixed prompts and seeds, one PNG each time."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from PIL import Image

from refiners_core import Adapter
from refiners_core.models.device import moved
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.picture import to_images
from refiners_train.config.schema import Samples
from refiners_train.data.loading import rows_of
from refiners_train.engine.average import Average

FOLDER: Final = "samples"


class Sampler:
    """Draws the pictures of a configuration with the present weights.

    Args:
        model: The base, which wears the adapter.
        adapter: The adapter.
        samples: What is drawn.
        source: The examples whose prompts and conditions are drawn without `prompts`.
        folder: The output folder.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        adapter: Adapter,
        samples: Samples,
        source: Any,
        folder: Path,
    ) -> None:
        self.model: Final = model
        self.adapter: Final = adapter
        self.samples: Final = samples
        self.folder: Final = folder / FOLDER
        self.prompts: list[str] = [*samples.prompts]
        self.conditions: dict[Adapter, Any] = {}
        if not self.prompts or adapter.takes_condition:
            count = len(self.prompts) or samples.count
            batch = rows_of(source, range(min(count, len(source))), 0)
            self.prompts = self.prompts[: len(batch)] or [*batch.texts]
            if adapter.takes_condition:
                value = batch.conditions.get("", dict(batch.conditions))
                self.conditions = {adapter: value}

    def draw(self, step: int, average: Average | None) -> Path:
        """Draws the pictures in a row and returns the path of the PNG.

        Args:
            step: The number of steps so far.
            average: The averaged weights, which draw if there are any.
        """
        samples = self.samples
        options: dict[str, Any] = {} if samples.sampler is None else {"sampler": samples.sampler}
        with ExitStack() as stack:
            if average is not None:
                stack.enter_context(average.in_place())
            # A generation computes in the dtype of the base.
            stack.enter_context(moved(self.adapter, dtype=self.model.unet.dtype))
            pixels = self.model.generate(
                self.prompts,
                conditions=self.conditions,
                steps=samples.steps,
                guidance=samples.guidance,
                seed=[samples.seed + i for i in range(len(self.prompts))],
                output="tensor",
                progress=False,
                **options,
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{step:06}.png"
        in_a_row(to_images(pixels)).save(path)
        return path


def in_a_row(pictures: list[Image.Image]) -> Image.Image:
    """Returns pictures of one size beside each other."""
    width, height = pictures[0].size
    row = Image.new("RGB", (width * len(pictures), height))
    for i, picture in enumerate(pictures):
        row.paste(picture, (i * width, 0))
    return row
