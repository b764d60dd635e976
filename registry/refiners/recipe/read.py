"""Reads the recipe of a picture, from this program and from web interfaces, without torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from refiners.errors import OptionError
from refiners.recipe.comfyui import from_graph
from refiners.recipe.form import VERSION, Recipe
from refiners.recipe.webui import from_parameters
from refiners_core.recipe_image import ASCII, RECIPE

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif")
"""The suffixes of pictures that can carry a recipe."""
_LARGEST: Final = 16_000_000
"""The most characters of a text in a picture that are read."""
_UNICODE: Final = b"UNICODE\0"
_GRAPH: Final = "prompt:"


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Reads how a picture was made.

    The pictures of this program have everything; those of AUTOMATIC1111's web interface and of
    ComfyUI the prompts, the sampler, the steps, the guidance, the seed, the size, and the names of
    the model and of LoRAs.

    Args:
        path: A PNG, JPEG, WebP or AVIF file.

    Raises:
        OptionError: The file is not a picture, or its recipe is missing, damaged, or of a later
            version of the form.
    """
    path = Path(path)
    texts = _texts(path)
    if (text := texts.get(RECIPE)) is not None:
        return _ours(path, text)
    try:
        if (text := texts.get("parameters")) is not None:
            return from_parameters(text)
        if (text := texts.get("prompt")) is not None:
            return from_graph(text)
    except (ValueError, TypeError, RecursionError, msgspec.ValidationError) as error:
        raise _damaged(path, error) from error
    raise OptionError(
        f"{path} has no recipe.",
        hint="Pictures that were edited, resized or sent through other programs lose it.",
    )


def _ours(path: Path, text: str) -> Recipe:
    try:
        table = msgspec.json.decode(text)
        version = table.get("recipe") if isinstance(table, dict) else None
        if isinstance(version, int) and version > VERSION:
            raise OptionError(
                f"the recipe of {path} has the form {version}; this version reads up to {VERSION}.",
                hint="Run pip install -U refiners-core.",
            )
        return msgspec.convert(table, Recipe)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> OptionError:
    return OptionError(
        f"the recipe of {path} is damaged: {str(error)[:300]}.", hint="Use the original file."
    )


def _texts(path: Path) -> dict[str, str]:
    """Returns the texts of a picture that may be recipes, by their names; no pixel is decoded."""
    from PIL import Image

    try:
        # damaged EXIF data are skipped without a warning
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            info = {str(key): value for key, value in picture.info.items()}
            texts = {key: value for key, value in info.items() if isinstance(value, str)}
            texts |= _comments(picture)
    except FileNotFoundError as error:
        raise OptionError(f"the picture {path} does not exist.", hint="Check its name.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OptionError(f"{path} is not a picture: {error}.", hint="Try a PNG.") from error
    return {name: text for name, text in texts.items() if len(text) <= _LARGEST}


def _comments(picture: Image) -> Mapping[str, str]:
    """Returns the recipes in the EXIF data of a picture, by the names that PNG files have."""
    from PIL import ExifTags

    try:
        exif = picture.getexif()
        comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
        values = [exif.get(tag) for tag in (ExifTags.Base.Make, ExifTags.Base.Model)]
    except Exception:  # damaged EXIF data raise many kinds of errors
        return {}
    texts: dict[str, str] = {}
    if text := _comment(comment):
        texts[RECIPE if text.startswith('{"recipe"') else "parameters"] = text
    for value in values:
        if isinstance(value, str) and value.startswith(_GRAPH):
            texts["prompt"] = value.removeprefix(_GRAPH)
    return texts


def _comment(value: Any) -> str:
    """Returns the text of an EXIF comment, in ASCII, or in UTF-16 of either byte order."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        return ""
    if value.startswith(ASCII):
        return value[len(ASCII) :].decode("ascii", "replace")
    if value.startswith(_UNICODE):
        content = value[len(_UNICODE) :]
        is_big = content[::2].count(0) >= content[1::2].count(0)
        return content.decode("utf-16-be" if is_big else "utf-16-le", "replace")
    return value.lstrip(b"\0").decode("utf-8", "replace")
