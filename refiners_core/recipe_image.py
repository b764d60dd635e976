"""A PIL image that keeps the recipe of its generation in the files that it is saved to."""

import os
import warnings
from typing import Any, Final

from PIL import ExifTags, Image, PngImagePlugin

from refiners_core.errors import Notice

RECIPE: Final = "refiners"
"""The key of the recipe in `image.info` and of the text in a PNG file."""
SOFTWARE: Final = "refiners"
"""The name in the EXIF tag `Software`."""
ASCII: Final = b"ASCII\0\0\0"
"""The first bytes of an EXIF comment in ASCII."""
_WITH_EXIF: Final = ("AVIF", "JPEG", "WEBP")
"""The formats in which the recipe is the comment in the EXIF data."""
_LARGEST: Final = 65_000
"""The maximum size in bytes of the EXIF data in a JPEG file, with a margin."""


class RecipeImage(Image.Image):
    """An image whose `save` writes the recipe in `info`; PIL writes few entries of `info` itself.

    What PIL derives from it, such as a resized or cropped image, is a plain image without a recipe.
    """

    @classmethod
    def of(cls, image: Image.Image, recipe: str) -> "RecipeImage":
        """Returns an image with the same pixels and a recipe.

        Args:
            image: An image of any mode; the pixels are shared.
            recipe: The recipe as JSON in ASCII.
        """
        made = cls()
        vars(made).update(vars(image))
        made.info = {**image.info, RECIPE: recipe}
        return made

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """Writes the image as PIL does, with the recipe in PNG, JPEG, WebP and AVIF files.

        Args:
            fp: A path, or a file that is open for writing bytes.
            format: The name of a format; by default that of the suffix.
            **params: Options of PIL for the format. `pnginfo` and `exif` replace the recipe.

        Warns:
            Notice: The recipe is too long for the format.
        """
        recipe = self.info.get(RECIPE)
        written_as = (format or _format_of(fp)).upper()
        if isinstance(recipe, str) and written_as == "PNG":
            params.setdefault("pnginfo", _png_text(recipe))
        elif isinstance(recipe, str) and written_as in _WITH_EXIF:
            if len(recipe) <= _LARGEST:
                params.setdefault("exif", _exif(recipe))
            else:
                warnings.warn(
                    f"the recipe has {len(recipe)} bytes, too many for {written_as}; the file has "
                    "none. PNG has no such limit.",
                    Notice,
                    stacklevel=2,
                )
        super().save(fp, format, **params)


def _format_of(fp: Any) -> str:
    """Returns the format that PIL chooses by the suffix; empty for an unknown one."""
    path = fp if isinstance(fp, str | bytes | os.PathLike) else getattr(fp, "name", "")
    if not isinstance(path, str | bytes | os.PathLike):
        return ""
    suffix = os.path.splitext(os.fsdecode(path))[1].lower()
    return Image.registered_extensions().get(suffix, "")


def _png_text(recipe: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text(RECIPE, recipe)
    return info


def _exif(recipe: str) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = SOFTWARE
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: ASCII + recipe.encode("ascii")}
    return exif
