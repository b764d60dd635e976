"""Depth of a picture, by the networks for it in `transformers`."""

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from refiners_core import Source
from refiners_core.errors import ModelError, WeightsError
from refiners_preprocessors.picture import Size, to_bytes, to_grey_image

_NAMES: Final = {
    "weights": "model.safetensors",
    "config": "config.json",
    "processor": "preprocessor_config.json",
}
"""The name in a folder of `transformers` of each file in the manifest."""
_METRIC: Final = ("depth_pro", "glpn", "zoedepth")
"""The kinds of networks that predict distances; the others predict nearness."""
_NEAREST: Final = 1e-3
"""The distance below which nothing is nearer, in the unit of the network."""


class DepthEstimator:
    """A preprocessor that returns the nearness of what a picture shows: white is near.

    The network is any that `transformers.AutoModelForDepthEstimation` reads: Depth Anything
    (arXiv:2406.09414), DPT (arXiv:2103.13413) and others. Predictions of distance are inverted.
    Each picture is scaled to 0...1 by its own nearest and farthest point.

    Args:
        weights: Returns the files of a network, as a manifest names them; a registry passes it.
        folder: A folder in the layout of `transformers` instead of `weights`.
        device: The device on which the network runs.

    Raises:
        ModelError: `transformers` is not installed, the folder does not exist, or neither weights
            nor a folder is given.
        WeightsError: The files are not those of a depth network, or some weights are missing.
    """

    def __init__(
        self,
        *,
        weights: Callable[[], Source] | None = None,
        folder: str | Path | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if find_spec("transformers") is None:
            raise ModelError(
                "depth is estimated by transformers, which is not installed.",
                hint='Run pip install "refiners-preprocessors[depth]".',
                dist="refiners-preprocessors",
            )
        if folder is not None:
            if not Path(folder).is_dir():
                raise ModelError(
                    f"the folder {folder} does not exist.",
                    hint="Name one that transformers' save_pretrained wrote.",
                )
            self._load(Path(folder))
        elif weights is not None:
            with TemporaryDirectory(prefix="refiners-depth-") as links:
                self._load(_in_one_folder(weights(), Path(links)))
        else:
            raise ModelError(
                "a depth estimator needs weights.",
                hint='Try refiners.load_preprocessor("depth"), or DepthEstimator(folder=...).',
            )
        self.network = self.network.to(device).eval().requires_grad_(False)

    def __call__(self, picture: Any, /, *, size: Size | None = None) -> Image.Image:
        """Returns the nearness in 0...1 as an image of one channel; black if all is equally far.

        Args:
            picture: A picture in any form that `refiners_core.picture.to_pixels` takes.
            size: Width and height of the result in pixels; by default those of the picture.

        Raises:
            ConditionError: The value is not one picture.
        """
        image = Image.fromarray(to_bytes(picture, size))
        nearness = self.nearness(image)
        low, high = nearness.min(), nearness.max()
        return to_grey_image(((nearness - low) / (high - low).clamp(min=1e-12)).cpu().numpy())

    @torch.no_grad()
    def nearness(self, image: Image.Image) -> Float[Tensor, "height width"]:
        """Returns the nearness of each pixel of an image, in the unit of the network."""
        inputs = self.processor(images=image, return_tensors="pt").to(self.network.device)
        outputs = self.network(**inputs)
        if self.is_metric:  # before the resize, which may overshoot to distances near zero
            outputs.predicted_depth = 1 / outputs.predicted_depth.clamp(min=_NEAREST)
        target = [(image.height, image.width)]
        (result,) = self.processor.post_process_depth_estimation(outputs, target_sizes=target)
        return result["predicted_depth"].float()

    def _load(self, folder: Path) -> None:
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        try:
            self.processor: Any = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            network, report = AutoModelForDepthEstimation.from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{folder} does not have a depth network: {str(error).partition(chr(10))[0]}",
                hint="Use a folder as transformers' save_pretrained writes it.",
            ) from error
        if missing := sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])}):
            raise WeightsError(
                f"{folder} lacks {len(missing)} weights of {type(network).__name__}: {missing[0]}.",
                hint="Use a folder as transformers' save_pretrained writes it.",
            )
        self.network: Any = network
        config: dict[str, Any] = network.config.to_dict()
        is_distance = config.get("depth_estimation_type") == "metric"
        self.is_metric: bool = is_distance or config["model_type"] in _METRIC


def _in_one_folder(source: Source, folder: Path) -> Path:
    """Links the files of a source under the names that `transformers` expects."""
    for role, path in source.files.items():
        try:
            (folder / _NAMES[role]).symlink_to(path.resolve())
        except OSError:  # a system that reserves links for administrators
            shutil.copyfile(path, folder / _NAMES[role])
    return folder
