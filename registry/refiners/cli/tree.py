"""`refiners tree`: the printed tree is the documentation."""

from __future__ import annotations

import click

from refiners.cli.report import json_option, print_json


@click.command()
@click.argument("model")
@click.option("--with", "adapters", multiple=True, metavar="ADAPTER", help="Wear it; repeatable.")
@click.option("--part", default="", metavar="PATH", help="A part of the tree, such as unet.down.")
@click.option("--depth", type=click.IntRange(min=0), help="Levels to print; all by default.")
@json_option
def tree(
    model: str, adapters: tuple[str, ...], part: str, depth: int | None, as_json: bool
) -> None:
    """Print the tree of a model, and what adapters would add, without weights.

    \b
    Examples:
      refiners tree playground
      refiners tree playground --with controlnet-canny --with ip-adapter
      refiners tree playground --part unet.mid --depth 2
    """
    from refiners.load import outline

    built = outline(model, adapters)
    from refiners_core.show import show  # torch comes with it, so not before the names are checked

    text = show(built.layer(part) if part else built, depth)
    if as_json:
        print_json({"model": model, "adapters": list(adapters), "part": part, "tree": text})
    else:
        click.echo(text)
