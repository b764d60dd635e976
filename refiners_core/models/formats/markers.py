"""What a single file says of its noise beside the weights: marks among keys, texts of a header."""

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
    "v_pred": "followed: the velocity is predicted",
    "ztsnr": "followed: nothing of a picture is left at the last training step",
    "alphas_cumprod": "followed where it is the noise of the release, with or without zero SNR",
    "denoiser.sigmas": "followed in the same way",
    "scale_factor": "compared with that of the autoencoder",
    "edm_mean": "refused: latents are normalised by it (Playground v2.5)",
    "edm_std": "refused: latents are normalised by it (Playground v2.5)",
    "edm_vpred.sigma_max": "refused: another range of noise (CosXL)",
    "edm_vpred.sigma_min": "refused: another range of noise (CosXL)",
}
"""The table of marks; each counts under every prefix."""
HEADER: Final[Mapping[str, str]] = {
    "modelspec.prediction_type": "followed",
    "modelspec.resolution": "followed: width and height of pictures by default",
    "modelspec.encoder_layer": "said in a warning: ClipSkip makes it so",
    "modelspec.timestep_range": "all of the training steps, or refused",
    "ss_v_parameterization": "followed: the velocity is predicted",
    "ss_zero_terminal_snr": "followed",
}
"""The table of the header's texts; all others are for people."""
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
    """What a file says of the model beside its weights."""

    schedule: ScheduleConfig
    size: tuple[int, int] | None
    """Width and height of its pictures in pixels."""
    scale: float | None
    """What its latents are multiplied by."""


def facts_of(file: TensorFile, has_one_encoder: bool) -> Facts:
    """Reads what a single file says of its noise and its pictures.

    Args:
        file: The file.
        has_one_encoder: Whether the model takes texts from the last layer of one text encoder.

    Raises:
        ModelError: It says what is not known here, or contradicts itself.

    Warns:
        Notice: It was trained with a shorter text encoder, or has a size of no known form.
    """
    keys = file.names()
    header = {key: text.strip().lower() for key, text in file.metadata().items()}
    for key in keys:
        if any(word.startswith("edm_") for word in key.split(".")):
            raise ModelError(
                f"{file.path} is marked {key!r}: it was trained with the noise of EDM "
                "(arXiv:2206.00364), which is not known here.",
                hint="Models with the noise of Stable Diffusion 1.5 and XL are known.",
            )
    if header.get("modelspec.timestep_range", _ALL_STEPS[0]).replace(" ", "") not in _ALL_STEPS:
        raise ModelError(
            f"{file.path} knows the training steps {header['modelspec.timestep_range']} only.",
            hint="Give a model that was trained for all of them.",
        )
    if has_one_encoder:
        _say_skip(header.get("modelspec.encoder_layer", "1"))
    predictions = _predictions(keys, header)
    if len(set(predictions.values())) > 1:
        named = ", ".join(f"{source}: {kind}" for source, kind in predictions.items())
        raise ModelError(
            f"{file.path} contradicts itself about what it predicts ({named}).",
            hint="Take out what is wrong, or load the model from a folder in diffusers' layout.",
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
            f"{file.path} was trained with other noise than Stable Diffusion: its own table of it "
            "ends elsewhere.",
            hint="Load it from a folder in diffusers' layout, whose scheduler says how.",
        )
    scale = _key(keys, "scale_factor")
    return Facts(
        schedule,
        _size(header.get("modelspec.resolution")),
        None if scale is None else float(file.tensor(scale).float()),
    )


def _predictions(keys: list[str], header: Mapping[str, str]) -> dict[str, Prediction]:
    found: dict[str, Prediction] = {}
    if (key := _key(keys, "v_pred")) is not None:
        found[key] = "v"
    if header.get("ss_v_parameterization") == "true":
        found["ss_v_parameterization"] = "v"
    if text := header.get("modelspec.prediction_type"):
        if text not in _PREDICTIONS:
            raise ModelError(
                f"modelspec.prediction_type is one of {', '.join(_PREDICTIONS)}; got {text!r}.",
                hint="Load it from a folder in diffusers' layout.",
            )
        found["modelspec.prediction_type"] = _PREDICTIONS[text]
    return found


def _schedule(prediction: Prediction, has_zero_snr: bool) -> ScheduleConfig:
    if has_zero_snr:  # a spacing that visits the last training step
        return ScheduleConfig(prediction=prediction, spacing="trailing", has_zero_snr=True)
    return ScheduleConfig(prediction=prediction)


def _noise(file: TensorFile, keys: list[str]) -> Tensor | None:
    """Returns alpha bar of each training step, where a file has a table of it."""
    if (key := _key(keys, "alphas_cumprod")) is not None:
        return file.tensor(key).double()
    if (key := _key(keys, "denoiser.sigmas")) is not None:
        return 1 / (1 + file.tensor(key).double().sort().values ** 2)
    return None


def _is_near(noise: Tensor, alphas: Tensor) -> bool:
    """Whether two tables of noise differ by no more than half precision does."""
    return noise.shape == alphas.shape and bool(((noise - alphas).abs() < 2e-3).all())


def _say_skip(layer: str) -> None:
    if layer.isdecimal() and int(layer) > 1:
        skipped = int(layer) - 1
        warnings.warn(
            f"this model was trained with texts from layer {layer} of its text encoder, counted "
            f"from the last: ClipSkip(layers={skipped}).inject(model), from "
            "refiners_core.models.clip.skip.",
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
        f"modelspec.resolution {text!r} is not followed: it is not WIDTHxHEIGHT in multiples of 8. "
        "generate(size=...) says another.",
        Notice,
        stacklevel=4,
    )
    return None


def _key(keys: list[str], mark: str) -> str | None:
    """Returns the key that is a mark, under any prefix."""
    return next((key for key in keys if key == mark or key.endswith(f".{mark}")), None)


def check_scale(facts: Facts, wanted: float) -> None:
    """Compares how much latents are scaled with what the autoencoder says.

    Raises:
        ModelError: They differ by more than half precision does.
    """
    if facts.scale is not None and not math.isclose(facts.scale, wanted, rel_tol=2e-3):
        raise ModelError(
            f"this file scales latents by {facts.scale:g}, its autoencoder by {wanted:g}.",
            hint="Load it from a folder in diffusers' layout, whose vae/config.json says how.",
        )
