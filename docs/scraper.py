"""Saves the images that an example leaves in `pictures`, for the gallery."""

from typing import Any

from sphinx_gallery.scrapers import figure_rst


def save_pictures(_block: Any, variables: dict[str, Any], gallery: dict[str, Any]) -> str:
    """Returns the markup that shows the images of the block that has just run."""
    paths: list[str] = []
    for picture in variables["example_globals"].pop("pictures", ()):
        paths.append(next(variables["image_path_iterator"]))
        picture.resize((4 * picture.width, 4 * picture.height), resample=0).save(paths[-1])
    return figure_rst(paths, gallery["src_dir"])
