"""The noise schedule of a single file, from marker keys and texts in its header."""

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from refiners_core.errors import ModelError, Notice
from refiners_core.models.samplers import ScheduleConfig
from refiners_core.models.samplers.schedule import Prediction
from refiners_core.weights import TensorFile

MARKS: Final[Mapping[str, str]] = {
    "v_pred": "read: the velocity is predicted",
    "ztsnr": "read: zero terminal SNR",
    "alphas_cumprod": "read: the released noise schedule, with or without zero SNR, or refused",
    "denoiser.sigmas": "read in the same way",
    "scale_factor": "compared with the autoencoder's",
    "edm_mean": "refused: latents are normalised by it (Playground v2.5)",
    "edm_std": "refused: latents are normalised by it (Playground v2.5)",
    "edm_vpred.sigma_max": "refused: another noise range (CosXL)",
    "edm_vpred.sigma_min": "refused: another noise range (CosXL)",
}
"""The marker keys, which may have any prefix, and how they are read."""
HEADER: Final[Mapping[str, str]] = {
    "modelspec.prediction_type": "read",
    "modelspec.resolution": "read: the default width and height of images",
    "modelspec.encoder_layer": "a warning suggests ClipSkip",
    "modelspec.timestep_range": "all training steps, or refused",
    "ss_v_parameterization": "read: the velocity is predicted",
    "ss_zero_terminal_snr": "read",
}
"""The texts of the header that are read, and how; all others are ignored."""
_PREDICTIONS: Final[Mapping[str, Prediction]] = {
    "epsilon": "eps",
    "eps": "eps",
    "v": "v",
    "v_prediction": "v",
    "v-prediction": "v",
    "sample": "x0",
}
_ALL_STEPS: Final = ("0,1000", "0,999", "1,1000")


@dataclass(frozen=True)
class Facts:
    """The facts about a model that a single file has beside its weights."""

    schedule: ScheduleConfig
    """The noise schedule."""
    size: tuple[int, int] | None
    """The default width and height of images in pixels."""
    scale: float | None
    """The factor of the latents."""


def facts_of(file: TensorFile, has_one_encoder: bool) -> Facts:
    """Reads the noise schedule and the image size of a single file.

    Args:
        file: The file.
        has_one_encoder: Whether the model reads the last layer of a single text encoder.

    Raises:
        ModelError: A marker is not supported, or two contradict each other.

    Warns:
        Notice: The model was trained with skipped layers of the text encoder, or its resolution is
            not WIDTHxHEIGHT.
    """
    keys = file.names()
    header = {key: text.strip().lower() for key, text in file.metadata().items()}
    for key in keys:
        if any(word.startswith("edm_") for word in key.split(".")):
            raise ModelError(
                f"{file.path} has the key {key!r}: it was trained with the noise schedule of EDM "
                "(arXiv:2206.00364), which is not supported.",
                hint="Models with the noise schedule of Stable Diffusion 1.5 and XL are supported.",
            )
    if header.get("modelspec.timestep_range", _ALL_STEPS[0]).replace(" ", "") not in _ALL_STEPS:
        raise ModelError(
            f"{file.path} was trained for the steps {header['modelspec.timestep_range']} only.",
            hint="Give a model that was trained for all steps.",
        )
    if has_one_encoder:
        _suggest_skip(header.get("modelspec.encoder_layer", "1"))
    predictions = _predictions(keys, header)
    if len(set(predictions.values())) > 1:
        named = ", ".join(f"{source}: {kind}" for source, kind in predictions.items())
        raise ModelError(
            f"{file.path} names several kinds of prediction ({named}).",
            hint="Remove the wrong one, or load the model from a folder in diffusers' layout.",
        )
    kinds: list[Prediction] = [*predictions.values()]
    prediction = kinds[0] if kinds else "eps"
    noise = _noise(file, keys)
    has_zero_snr = _key(keys, "ztsnr") is not None or header.get("ss_zero_terminal_snr") == "true"
    if noise is not None and not has_zero_snr:
        has_zero_snr = _is_near(noise, _schedule("v", True).alphas)
    schedule = _schedule(prediction, has_zero_snr)
    if noise is not None and not _is_near(noise, schedule.alphas):
        raise ModelError(
            f"{file.path} was trained with another noise schedule than Stable Diffusion: its table "
            "of noise levels differs.",
            hint="Load it from a folder in diffusers' layout, which has the scheduler.",
        )
    scale = _key(keys, "scale_factor")
    return Facts(
        schedule,
        _size(header.get("modelspec.resolution")),
        None if scale is None else float(file.tensor(scale).float()),
    )


def _predictions(keys: list[str], header: Mapping[str, str]) -> dict[str, Prediction]:
    predictions: dict[str, Prediction] = {}
    if (key := _key(keys, "v_pred")) is not None:
        predictions[key] = "v"
    if header.get("ss_v_parameterization") == "true":
        predictions["ss_v_parameterization"] = "v"
    if text := header.get("modelspec.prediction_type"):
        if text not in _PREDICTIONS:
            raise ModelError(
                f"modelspec.prediction_type is one of {', '.join(_PREDICTIONS)}; got {text!r}.",
                hint="Load it from a folder in diffusers' layout.",
            )
        predictions["modelspec.prediction_type"] = _PREDICTIONS[text]
    return predictions


def _schedule(prediction: Prediction, has_zero_snr: bool) -> ScheduleConfig:
    if has_zero_snr:  # which needs a spacing that visits the last training step
        return ScheduleConfig(prediction=prediction, spacing="trailing", has_zero_snr=True)
    return ScheduleConfig(prediction=prediction)


def _noise(file: TensorFile, keys: list[str]) -> Tensor | None:
    """Returns `alpha bar` at each training step if a file has a table of it."""
    if (key := _key(keys, "alphas_cumprod")) is not None:
        return file.tensor(key).double()
    if (key := _key(keys, "denoiser.sigmas")) is not None:
        return 1 / (1 + file.tensor(key).double().sort().values ** 2)
    return None


def _is_near(noise: Tensor, alphas: Tensor) -> bool:
    """Whether two tables of noise levels are equal up to half precision."""
    return noise.shape == alphas.shape and bool(((noise - alphas).abs() < 2e-3).all())


def _suggest_skip(layer: str) -> None:
    if layer.isdecimal() and int(layer) > 1:
        skipped = int(layer) - 1
        warnings.warn(
            f"this model was trained with layer {layer} of its text encoder, counted from the "
            f"last: ClipSkip(layers={skipped}).inject(model), from refiners_core.models.clip.skip.",
            Notice,
            stacklevel=4,
        )


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{2,5})(?:x(\d{2,5}))?", text)
    sides = (0, 0) if match is None else (int(match[1]), int(match[2] or match[1]))
    if all(side and side % 8 == 0 for side in sides):
        return sides
    warnings.warn(
        f"modelspec.resolution {text!r} is ignored: it is not WIDTHxHEIGHT in multiples of 8. "
        "Pass generate(size=...).",
        Notice,
        stacklevel=4,
    )
    return None


def _key(keys: list[str], mark: str) -> str | None:
    """Returns the key of a marker under any prefix."""
    return next((key for key in keys if key == mark or key.endswith(f".{mark}")), None)


def check_scale(facts: Facts, scaling_factor: float) -> None:
    """Checks the scaling factor of a file against the autoencoder's.

    Raises:
        ModelError: The factors differ by more than half precision.
    """
    if facts.scale is not None and not math.isclose(facts.scale, scaling_factor, rel_tol=2e-3):
        raise ModelError(
            f"this file scales latents by {facts.scale:g}, its autoencoder by {scaling_factor:g}.",
            hint="Load it from a folder in diffusers' layout, which has vae/config.json.",
        )
