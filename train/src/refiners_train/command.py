"""`refiners train`: trains an adapter from a file. Importing it loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from refiners_core.command import Report
from refiners_train.config.template import KINDS, write_template

_FILE: Final = click.Path(path_type=Path)


class _FileFirst(click.Group):
    """A group whose first argument may be a file: the name of the default command is left out."""

    default: Final = "run"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_FileFirst)
def train() -> None:
    """Train an adapter on a frozen base model, as a file describes.

    \b
    Examples:
      refiners train init lora --base playground
      refiners train lora.toml --dry-run
      refiners train lora.toml --device cuda
    """


@train.command()
@click.argument("config", type=_FILE)
@click.option("--device", type=click.Choice(("cpu", "cuda", "mps")),
              help="The device; by default the best one of this machine.")  # fmt: skip
@click.option("--dry-run", is_flag=True,
              help="Print sizes, memory, steps and files, and train nothing.")  # fmt: skip
@click.option("--fresh", is_flag=True,
              help="Begin anew although the output has a checkpoint.")  # fmt: skip
def run(config: Path, device: str | None, dry_run: bool, fresh: bool) -> Report:
    """Train as CONFIG describes, or go on with a run that was interrupted.

    \b
    Examples:
      refiners train lora.toml
      refiners train lora.toml --device cuda
      refiners train lora.toml --dry-run
    """
    if dry_run:
        return _planned(config)
    from refiners_train.training import train as run_training

    folder = run_training(config, device=device, fresh=fresh)
    weights = sorted(folder.rglob("*.safetensors"))
    rows = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in weights]
    facts = {"folder": str(folder), "files": dict(rows)}
    return Report(f"{folder}: trained", ("file", "bytes"), rows, facts)


@train.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--base", default="playground", show_default=True, help="The base model.")
@click.option("--out", type=_FILE, help="The file to write; by default KIND.toml.")
@click.option("--steps", type=click.IntRange(min=1), help="The number of steps.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def init(kind: str, base: str, out: Path | None, steps: int | None, force: bool) -> Report:
    """Write a training file with comments, which runs as it is.

    \b
    Examples:
      refiners train init lora
      refiners train init controlnet --base sd15 --out edges.toml
    """
    path = write_template(kind, base, out or Path(f"{kind}.toml"), steps=steps, force=force)
    commands = (f"refiners train {path} --dry-run", f"refiners train {path}")
    return Report(f"{path}: written", ("try",), [(line,) for line in commands],
                  {"file": str(path)})  # fmt: skip


def _planned(config: Path) -> Report:
    from refiners_train.config.reader import load_config
    from refiners_train.plan import Plan

    plan = Plan.of(load_config(config))
    epochs = f"{plan.epochs:.3g}"
    rows = [
        ("trained parameters", f"{plan.trained:,}"),
        ("frozen parameters", f"{plan.frozen:,}"),
        ("memory, estimated", f"{plan.memory / 2**20:,.0f} MiB"),
        ("examples", f"{plan.examples:,}, and {plan.held_out:,} held out"),
        ("steps", f"{plan.steps:,}: {epochs} epochs of {plan.per_epoch:,} steps"),
        *(("writes", str(path)) for path in plan.written),
    ]
    facts = {
        "trained": plan.trained,
        "frozen": plan.frozen,
        "memory": plan.memory,
        "activations": plan.activations,
        "examples": plan.examples,
        "held_out": plan.held_out,
        "steps": plan.steps,
        "steps_per_epoch": plan.per_epoch,
        "written": [str(path) for path in plan.written],
    }
    return Report(f"{config}: nothing was trained", ("", ""), rows, facts)
