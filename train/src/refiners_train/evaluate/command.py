"""`refiners evaluate`: measures adapters and models. Importing it loads no torch."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import click

from refiners_core.command import Report, Shell

if TYPE_CHECKING:
    from refiners_train.evaluate.evaluation import Evaluation

LEAST: Final = 64
"""The smallest number of samples behind a figure."""
_FILE: Final = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("names", nargs=-1, metavar="[ADAPTER | ADAPTER+ADAPTER | MEASURE | FILE]...")
@click.option("--base", default="", metavar="MODEL",
              help="The model: a name, a folder or a file; by default as measured.")  # fmt: skip
@click.option("--like", default="", metavar="MEASURE",
              help="The measure of a file, or of an adapter without one.")  # fmt: skip
@click.option("--count", type=click.IntRange(min=LEAST), default=96, show_default=True,
              help="The number of samples behind each figure.")  # fmt: skip
@click.option(
    "--seed", type=int, default=0, show_default=True, help="The seed of the first sample."
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Denoising steps, instead of the measure's."
)
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True,
              help="The number of samples that are generated at once.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, help="The device, such as cuda.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True,
              help="The number of adapters that are measured at a time.")  # fmt: skip
@click.option("--csv", "table", type=_FILE, help="Write all numbers as CSV to a file.")
@click.option("--sheet", type=_FILE, help="Write pictures without and with each adapter as a PNG.")
@click.option("--docs", "page", type=_FILE,
              help="Write the table into a page, and the results beside it as JSON.")  # fmt: skip
@click.option("--check", is_flag=True, help="Exit with 1 if a bar is missed.")
@click.pass_obj
def evaluate(
    shell: Shell,
    names: tuple[str, ...],
    base: str,
    like: str,
    table: Path | None,
    sheet: Path | None,
    page: Path | None,
    check: bool,
    jobs: int,
    **settings: Any,
) -> Report:
    """Measure what adapters do: samples with and without each, with the same prompts and seeds.

    Without names, everything that installed packages have a measure for is measured.

    \b
    Examples:
      refiners evaluate lora-ink
      refiners evaluate controlnet-canny+ip-adapter+lora-ink
      refiners evaluate ./mine.safetensors --like lora-ink
      refiners evaluate --check --csv effects.csv --sheet effects.png
    """
    from refiners_train.evaluate.evaluation import evaluated
    from refiners_train.evaluate.plan import planned
    from refiners_train.evaluate.process import run_apart
    from refiners_train.evaluate.record import with_table, write_record
    from refiners_train.evaluate.result import Trial
    from refiners_train.evaluate.sheet import contact_sheet
    from refiners_train.evaluate.table import as_csv

    plan = planned(names, like, str(shell.outline(base).base) if base and not names else "")
    if page is not None:
        with_table(page, ())
    with TemporaryDirectory() as folder:
        evaluation = evaluated(
            plan,
            Trial(parts=(), model=base, **settings),
            run_apart,
            Path(folder) if sheet is not None else None,
            jobs,
        )
        drawn = contact_sheet(evaluation.pictures) if sheet is not None else None
    if sheet is not None and drawn is not None:
        drawn.save(sheet)
    if table is not None:
        table.write_text(as_csv(evaluation.results), "utf-8")
    if page is not None:
        write_record(page, evaluation.results)
    return _report(evaluation, check, is_named=bool(names))


def _report(evaluation: Evaluation, check: bool, *, is_named: bool) -> Report:
    """Returns the table; what could not be measured is noted."""
    import msgspec
    from refiners.errors import Notice

    from refiners_train.evaluate.table import COLUMNS, cells

    for fault in evaluation.faults:
        warnings.warn(Notice(f"{fault.adapter} is not measured: {fault.what}"), stacklevel=2)
    missed = [
        f"{row.adapter}: {row.figure}"
        for result in evaluation.results
        for row in result.rows
        if row.is_kept is False
    ]
    verdicts = [f"missed: {'; '.join(missed)}"] if missed else []
    if evaluation.faults:
        verdicts.append(f"not measured: {', '.join(it.adapter for it in evaluation.faults)}")
    title = "; ".join(verdicts) or "every bar is kept"
    facts: dict[str, Any] = {
        "results": msgspec.to_builtins(evaluation.results),
        "faults": msgspec.to_builtins(evaluation.faults),
        "kept": evaluation.is_kept,
    }
    is_failed = (check and not evaluation.is_kept) or (is_named and bool(evaluation.faults))
    return Report(title, COLUMNS, [*cells(evaluation.results)], facts, int(is_failed))
