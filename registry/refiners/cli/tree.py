"""`refiners tree`: prints the structure of a model and its adapters."""

from __future__ import annotations

import click

from refiners.cli.completion import complete_adapter, complete_model
from refiners.cli.location import name_or_path
from refiners.cli.report import json_option, print_json


@click.command()
@click.argument("model", shell_complete=complete_model)
@click.option("--with", "adapters", multiple=True, metavar="ADAPTER|FILE",
              shell_complete=complete_adapter, help="Put this adapter on the model; repeatable.",
)  # fmt: skip
@click.option("--part", default="", metavar="PATH",
              help="Print only this part, such as unet.down.")  # fmt: skip
@click.option("--depth", type=click.IntRange(min=0), help="Levels to print; all by default.")
@json_option
def tree(
    model: str, adapters: tuple[str, ...], part: str, depth: int | None, as_json: bool
) -> None:
    """Print the layers of a model and its adapters.

    Needs no weights, and fetches nothing. MODEL is a name, or the path of a folder or a file.

    \b
    Examples:
      refiners tree playground
      refiners tree playground --with controlnet-canny --with ip-adapter
      refiners tree playground --part unet.mid --depth 2
      refiners tree sd15 --with style.safetensors --part unet.mid
      refiners tree models/mine.safetensors --depth 1
    """
    from refiners.load import outline

    built = outline(name_or_path(model), adapters)
    from refiners_core.tree.show import show  # imports torch, so only after the names are checked

    text = show(built.layer(part) if part else built, depth)
    if as_json:
        print_json({"model": model, "adapters": list(adapters), "part": part, "tree": text})
    else:
        click.echo(text)
