"""Enlarges pictures in passes, each of which adds details in windows."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from PIL import Image

from refiners_core import Adapter, Condition
from refiners_core.errors import AdapterError
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.option import number, whole
from refiners_core.picture import to_images, to_pixels
from refiners_regional.tiled import MixtureOfDiffusers, Windowed

DECIDED: Final = ("count", "image", "latents", "mask", "output", "size")
"""The arguments of `generate` that a call does not take."""


def upscale(
    model: LatentDiffusion,
    picture: Any,
    prompt: str = "",
    *,
    factor: float = 2.0,
    passes: int = 1,
    strength: float = 0.35,
    tiles: Windowed | None = None,
    conditions: Mapping[Adapter, Any] | None = None,
    **options: Any,
) -> Image.Image:
    """Enlarges a picture and lets the model add the details.

    In each pass the picture is resized, noised, and denoised in windows that overlap. Adapters that
    the model wears act as in any generation. One that needs a picture and is given none, such as a
    ControlNet for tiles, reads the enlarged picture.

    Args:
        model: The model. It wears the windows for the length of the call.
        picture: A picture, as `generate(image=...)` takes it.
        prompt: A text that describes the picture.
        factor: The factor by which width and height grow in all passes together, above 1.
        passes: The number of passes, of which each enlarges by as much.
        strength: How far each pass changes the resized picture, in 0...1: the share of the steps
            that run.
        tiles: The windows: a `MultiDiffusion` or `MixtureOfDiffusers` that is not worn; by default
            the latter with its defaults. If the model wears windows already, these.
        conditions: Conditions of worn adapters; one whose value is None inside a `Condition`
            reads the enlarged picture.
        options: Further arguments of `generate`, such as `steps`, `seed` or `negative_prompt`.

    Returns:
        The enlarged picture. Its sides are rounded to multiples of the pixels of a latent.

    Raises:
        AdapterError: `factor`, `passes` or `strength` is out of range.
        GenerationError, ConditionError: As `generate` raises them.
    """
    total = number("factor", factor, 2, low=1)
    count = whole("passes", passes, 1)
    number("strength", strength, 0.35, low=0, high=1)
    if taken := [name for name in DECIDED if name in options]:
        raise AdapterError(f"upscale decides {taken[0]} itself.", hint=f"Leave {taken[0]}= out.")
    worn = next((item for item in model.adapters if isinstance(item, Windowed)), None)
    if worn is None:
        worn = MixtureOfDiffusers(name="upscaler") if tiles is None else tiles
        with worn.on(model):
            return upscale(
                model,
                picture,
                prompt,
                factor=factor,
                passes=passes,
                strength=strength,
                conditions=conditions,
                **options,
            )
    unit = model.autoencoder.config.reduction
    pixels = to_pixels(picture)
    start = pixels.shape[-2:]
    (image,) = to_images(pixels[:1])
    for done in range(1, count + 1):
        grown = total ** (done / count)
        height, width = (max(unit, round(side * grown / unit) * unit) for side in start)
        enlarged = image.resize((width, height), Image.Resampling.LANCZOS)
        image = model.generate(
            prompt,
            image=enlarged,
            size=(width, height),
            strength=strength,
            conditions=_with_picture(model, conditions or {}, enlarged),
            **options,
        )
    return image


def _with_picture(
    model: LatentDiffusion, conditions: Mapping[Adapter, Any], picture: Image.Image
) -> dict[Adapter, Any]:
    """Returns conditions in which the adapters that lack a picture have the enlarged one."""
    filled = dict(conditions)
    for adapter in model.adapters:
        given = filled.get(adapter, Condition())
        is_open = isinstance(given, Condition) and given.value is None
        if adapter.takes_condition and adapter.needs_condition and is_open:
            if adapter in filled and filled[adapter] is None:
                continue
            filled[adapter] = replace(given, value=picture)
    return filled
