"""`refiners train`: trains an adapter from a file. Importing it loads no torch."""

from __future__ import annotations

from pathlib import Path

import click

from refiners_core.command import Report


class _Default(click.Group):
    """A group whose first argument may be a file, for which the command `run` is left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Default)
def train() -> None:
    """Train an adapter on a frozen base model, as a file describes.

    \b
    Examples:
      refiners train init lora --base playground
      refiners train lora.toml
      refiners train lora.toml --device cuda
    """


@train.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--device",
    type=click.Choice(("cpu", "cuda", "mps")),
    help="The device; the best one of this machine by default.",
)
@click.option("--fresh", is_flag=True, help="Begin anew although the output has a checkpoint.")
def run(config: Path, device: str | None, fresh: bool) -> Report:
    """Train as CONFIG describes, or go on with it.

    \b
    Examples:
      refiners train lora.toml
      refiners train lora.toml --device cuda
      refiners train lora.toml --fresh
    """
    from refiners_train.training import train as run_training

    folder = run_training(config, device=device, fresh=fresh)
    files = sorted(path.name for path in folder.iterdir() if path.suffix == ".safetensors")
    return Report(
        f"{folder}: trained",
        ("file", "bytes"),
        [(name, (folder / name).stat().st_size) for name in files],
        {"folder": str(folder), "files": files},
    )
