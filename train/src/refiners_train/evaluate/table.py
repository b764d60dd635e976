"""Results as a table on the shell, as CSV, and as a table in Markdown."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import Final

from refiners_train.evaluate.result import Result, Row

COLUMNS: Final = (
    *("adapter", "measure", "without", "with", "spread", "n", "seconds", "peak MB", "bar"),
    "verdict",
)
_CSV: Final = (
    *("adapter", "measure", "figure", "base", "without", "without_low", "without_high"),
    *("with", "low", "high", "alone", "n", "seconds", "peak_mb", "bar", "kept", "seed", "device"),
)


def cells(results: Iterable[Result]) -> Iterator[tuple[str, ...]]:
    """Yields the cells of each row; what a trial has once is in its first row."""
    for result in results:
        for i, row in enumerate(result.rows):
            first = i == 0
            yield (
                row.adapter if first else "",
                _figure(row),
                "" if row.without is None else str(row.without),
                str(row.value),
                row.value.spread,
                str(row.n),
                f"{result.seconds:.1f}" if first else "",
                f"{result.memory:.0f}" if first else "",
                row.bar,
                verdict(row),
            )


def verdict(row: Row) -> str:
    """Returns whether the bars are kept, in a word; empty without a bar."""
    return "" if row.is_kept is None else "kept" if row.is_kept else "MISSED"


def _figure(row: Row) -> str:
    """Returns the name of a figure, beside others with its measure and its value alone."""
    if row.alone is None:
        return row.figure
    return f"{row.measure}: {row.figure} (alone {row.alone})"


def as_csv(results: Iterable[Result]) -> str:
    """Returns all numbers as CSV."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV)
    for result in results:
        for row in result.rows:
            before, value = row.without, row.value
            writer.writerow(
                [
                    *(row.adapter, row.measure, row.figure, row.base),
                    *((before.value, before.low, before.high) if before else ("", "", "")),
                    *(value.value, value.low, value.high),
                    row.alone.value if row.alone else "",
                    *(row.n, result.seconds, result.memory, row.bar),
                    "" if row.is_kept is None else row.is_kept,
                    *(result.seed, result.device),
                ]
            )
    return text.getvalue()


def as_markdown(results: Sequence[Result]) -> str:
    """Returns the table for a page: models first, then adapters, then adapters together."""
    parts = (
        ("The models, and the readers of samples", [r for r in results if not _is_adapter(r)]),
        ("Adapters", [r for r in results if _is_adapter(r) and not _is_joint(r)]),
        ("Adapters together", [r for r in results if _is_joint(r)]),
    )
    return "\n\n".join(_section(title, part) for title, part in parts if part)


def _section(title: str, results: Sequence[Result]) -> str:
    heads = ("", "figure", "without", "with", "95 %", "bar", "", "n", "s", "MB")
    lines = [f"**{title}**", "", _line(heads), _line(["---"] * len(heads))]
    for row in cells(results):
        adapter, figure, without, value, spread, n, seconds, memory, bar, kept = row
        name = f"`{adapter}`" if adapter else ""
        lines.append(_line((name, figure, without, value, spread, bar, kept, n, seconds, memory)))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _is_adapter(result: Result) -> bool:
    return any(row.without is not None for row in result.rows)


def _is_joint(result: Result) -> bool:
    return any(row.alone is not None for row in result.rows)
