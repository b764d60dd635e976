"""`refiners lora`: makes plain LoRAs of models and of other LoRAs. Importing it loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from refiners_core.command import Report, Shell
from refiners_lora.file_argument import model_of, named_file, weighted_file

if TYPE_CHECKING:
    from refiners_lora.rework import PlainLora

F = TypeVar("F", bound=Callable[..., Any])

LAYOUTS: Final = ("diffusers", "kohya", "peft")
METHODS: Final = ("concat", "svd", "ties", "dare")
DTYPES: Final = ("float32", "float16", "bfloat16")
_FILE: Final = click.Path(path_type=Path)
_RANK: Final = click.IntRange(min=1)


@click.group()
def lora() -> None:
    """Extract, merge, resize and convert LoRA files.

    \b
    Examples:
      refiners lora extract --base sd15 --tuned mine.safetensors --rank 32 style.safetensors
      refiners lora merge a.safetensors:0.8 b.safetensors:0.5 --out both.safetensors
      refiners lora resize hf:ORG/NAME/style.safetensors --energy 0.9 small.safetensors
      refiners lora convert loha.safetensors lora.safetensors --layout kohya

    Each prints the error of the result, relative to the exact changes, by groups of layers.
    """


def output_options(command: F) -> F:
    """Adds the options of all commands that write a file."""
    for option in (
        click.option("--force", is_flag=True, help="Replace a file that exists."),
        click.option("--title", default="", help="The title in the metadata; by default the name."),
        click.option("--dtype", type=click.Choice(DTYPES),
                     help="The dtype of the weights; float32 by default, or as they are in FILE."),
        click.option("--layout", type=click.Choice(LAYOUTS), default=LAYOUTS[0], show_default=True,
                     help="The names of the layers; peft writes a folder."),
    ):  # fmt: skip
        command = option(command)
    return command


def source_options(command: F) -> F:
    """Adds the options of all commands that read LoRA files."""
    for option in (
        click.option("--drop", is_flag=True,
                     help="Leave out what a plain LoRA cannot carry, such as biases and norms."),
        click.option("--model", metavar="NAME",
                     help="The model that the files are for; the files show it by default."),
    ):  # fmt: skip
        command = option(command)
    return command


@lora.command()
@click.option("--base", required=True, help="The base model: a name, a folder or a file.")
@click.option("--tuned", required=True, help="The tuned model: a name, a folder or a file.")
@click.option("--rank", type=_RANK, required=True, help="The greatest rank of a layer.")
@click.option("--clamp", type=click.FloatRange(0, 1, min_open=True),
              help="Clamp the factors to this quantile of their magnitudes, such as 0.99.",
)  # fmt: skip
@output_options
@click.argument("out", type=_FILE)
@click.pass_obj
def extract(
    shell: Shell,
    base: str,
    tuned: str,
    rank: int,
    clamp: float | None,
    out: Path,
    **output: Any,
) -> Report:
    """Write the difference of two models as a LoRA to OUT.

    \b
    Examples:
      refiners lora extract --base sd15 --tuned mine.safetensors --rank 32 style.safetensors
    """
    from refiners_lora import rework

    _check_out(out, output)
    names = Path(base).name, Path(tuned).name
    models = shell.load_model(base), shell.load_model(tuned)
    made = rework.extract(*models, rank, clamp=clamp, dtype=_dtype(output), names=names)
    return _saved(made, out, output)


@lora.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE[:STRENGTH]...")
@click.option("--out", type=_FILE, required=True, help="The file to write.")
@click.option("--method", type=click.Choice(METHODS), default=METHODS[0], show_default=True,
              help="concat adds up exactly; svd, ties and dare approximate at a rank.",
)  # fmt: skip
@click.option("--rank", type=_RANK,
              help="The greatest rank of a layer; that of the files by default.")  # fmt: skip
@click.option("--density", type=click.FloatRange(0, 1, min_open=True), default=0.5,
              show_default=True, help="For ties and dare, the share of numbers that are kept.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="For dare, the seed.")
@source_options
@output_options
@click.pass_obj
def merge(
    shell: Shell,
    files: Sequence[str],
    out: Path,
    method: str,
    rank: int | None,
    density: float,
    seed: int,
    model: str | None,
    drop: bool,
    **output: Any,
) -> Report:
    """Write the weighted sum of LoRAs, or what TIES or DARE make of them.

    \b
    Examples:
      refiners lora merge a.safetensors:0.8 b.safetensors:0.5 --out both.safetensors
      refiners lora merge a.safetensors b.safetensors --method ties --rank 16 --out both.safetensors
    """
    from refiners_lora import rework

    _check_out(out, output)
    terms = [weighted_file(shell, file) for file in files]
    target = model_of(shell, [path for path, _ in terms], model)
    merged = rework.merge(
        terms,
        target,
        method,
        rank=rank,
        density=density,
        seed=seed,
        dtype=_dtype(output),
        drop=drop,
    )
    return _saved(merged, out, output)


@lora.command()
@click.argument("file")
@click.option("--rank", type=_RANK, help="The greatest rank of a layer.")
@click.option("--energy", type=click.FloatRange(0, 1, min_open=True),
              help="The share of each layer's squared norm to keep.")  # fmt: skip
@source_options
@output_options
@click.argument("out", type=_FILE)
@click.pass_obj
def resize(
    shell: Shell,
    file: str,
    rank: int | None,
    energy: float | None,
    out: Path,
    model: str | None,
    drop: bool,
    **output: Any,
) -> Report:
    """Write FILE as a LoRA of a lower rank to OUT.

    \b
    Examples:
      refiners lora resize style.safetensors --rank 8 small.safetensors
      refiners lora resize hf:ORG/NAME/style.safetensors --energy 0.9 small.safetensors
    """
    from refiners_lora import rework

    _check_out(out, output)
    path = named_file(shell, file)
    target = model_of(shell, [path], model)
    resized = rework.resize(path, target, rank, energy, drop=drop, dtype=_dtype(output))
    return _saved(resized, out, output)


@lora.command()
@click.argument("file")
@click.option("--rank", type=_RANK,
              help="The greatest rank of a layer, for changes that have no low rank.")  # fmt: skip
@source_options
@output_options
@click.argument("out", type=_FILE)
@click.pass_obj
def convert(
    shell: Shell,
    file: str,
    rank: int | None,
    out: Path,
    model: str | None,
    drop: bool,
    **output: Any,
) -> Report:
    """Write FILE, of any method, as a plain LoRA to OUT.

    \b
    Examples:
      refiners lora convert loha.safetensors lora.safetensors --layout kohya
      refiners lora convert dora.safetensors lora.safetensors --rank 32
    """
    from refiners_lora import rework

    _check_out(out, output)
    path = named_file(shell, file)
    target = model_of(shell, [path], model)
    converted = rework.convert(path, target, rank, drop=drop, dtype=_dtype(output))
    return _saved(converted, out, output)


def _check_out(out: Path, output: dict[str, Any]) -> None:
    from refiners_lora.rework.product import refuse_existing

    if not output["force"]:
        refuse_existing(out)


def _dtype(output: dict[str, Any]) -> Any:
    import torch

    name: str | None = output["dtype"]
    return None if name is None else getattr(torch, name)


def _saved(made: PlainLora, out: Path, output: dict[str, Any]) -> Report:
    """Writes a LoRA and returns the report of its errors."""
    made.save(out, output["layout"], title=output["title"], force=output["force"])
    low, high = made.ranks
    ranks = str(low) if low == high else f"{low}...{high}"
    dropped = f"; left out: {len(made.dropped)} changes" if made.dropped else ""
    title = f"{out}: {len(made.layers)} layers of rank {ranks}, {output['layout']}{dropped}"
    numbers = [
        (g.group, g.layers, *(f"{e:.1e}" for e in (g.worst, g.median, g.total)))
        for g in made.groups
    ]
    facts: dict[str, Any] = {
        "out": str(out),
        "layout": output["layout"],
        "layers": len(made.layers),
        "ranks": [low, high],
        "errors": {
            g.group: {"worst": g.worst, "median": g.median, "total": g.total} for g in made.groups
        },
        "dropped": [dropped._asdict() for dropped in made.dropped],
    }
    columns = ("relative error of", "layers", "worst", "median", "total")
    return Report(title, columns, numbers, facts)
