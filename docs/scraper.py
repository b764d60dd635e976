"""Saves the images that an example leaves in `pictures`, for the gallery."""

from pathlib import Path
from typing import Any

from refiners.sheet import drawn_sheet, titled
from sphinx_gallery.scrapers import figure_rst


def save_pictures(
    block: tuple[str, str, int], variables: dict[str, Any], gallery: dict[str, Any]
) -> str:
    """Returns the markup that shows the pictures below the last block that adds one."""
    _, code, line = block
    later = Path(variables["src_file"]).read_text().splitlines()[line + code.rstrip().count("\n") :]
    names = variables["example_globals"]
    if "pictures" not in names or any("pictures" in text for text in later):
        return ""
    path = next(variables["image_path_iterator"])
    drawn_sheet(titled(names.pop("pictures"))).save(path)
    return figure_rst([path], gallery["src_dir"])
