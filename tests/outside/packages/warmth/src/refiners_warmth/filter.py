"""The preprocessor `amber`."""

from typing import Any

from PIL import Image

from refiners_core.picture import to_images, to_pixels


def amber(picture: Any, /, *, size: tuple[int, int] | None = None) -> Image.Image:
    """Returns a picture halfway to amber."""
    pixels = to_pixels(picture, None if size is None else (size[1], size[0]))
    image = to_images(pixels)[0]
    return Image.blend(image, Image.new("RGB", image.size, (255, 191, 0)), 0.5)
