"""`refiners preprocess`: makes a control picture, such as edges, from a photo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from refiners.cli.completion import complete_preprocessor
from refiners.cli.constructor_option import parse_options
from refiners.cli.generate import parse_size
from refiners.cli.picture import check_out, replacing
from refiners.cli.report import json_option, print_json
from refiners.recipe.picture import open_picture


@click.command()
@click.argument("preprocessor", metavar="NAME[,OPTION=VALUE...]",
                shell_complete=complete_preprocessor)  # fmt: skip
@click.argument("picture", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="out.png",
              show_default=True, help="The file to write.")  # fmt: skip
@click.option("--size", callback=parse_size, metavar="SIDE|WIDTHxHEIGHT",
              help="In pixels; that of the picture by default.")  # fmt: skip
@click.option("--offline", is_flag=True, help="Do not go online.")
@json_option
def preprocess(
    preprocessor: str,
    picture: Path,
    out: Path,
    size: int | tuple[int, int] | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Make a control picture from a photo.

    NAME is a preprocessor (refiners list), such as canny. Options are the keyword arguments of its
    function; numbers, true, false and none are parsed. To use the result at once:
    refiners generate PROMPT --adapter NAME=PICTURE --preprocess.

    \b
    Examples:
      refiners preprocess canny photo.png --out edges.png
      refiners preprocess canny,low=50,high=100 photo.png --out edges.png --size 512x512
    """
    from refiners.preprocessing import load_preprocessor

    check_out(out)
    name, *parts = preprocessor.split(",")
    options = parse_options(name, parts)
    image = open_picture(picture)
    function = load_preprocessor(name, offline=offline or None, **options)
    made: Any = function(image, size=(size, size) if isinstance(size, int) else size)

    from PIL import Image

    from refiners_core.picture import to_images, to_pixels

    result = made if isinstance(made, Image.Image) else to_images(to_pixels(made))[0]
    with replacing(out) as temporary:
        result.save(temporary)
    if as_json:
        facts = {"out": str(out), "preprocessor": name, "options": options}
        print_json(facts | {"size": list(result.size)})
    else:
        click.echo(f"wrote {out}")
