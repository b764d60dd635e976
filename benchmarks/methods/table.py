"""The entries of the comparison, as a table and as JSON beside a page."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from refiners_train.evaluate.estimate import Estimate, number
from refiners_train.evaluate.record import filled, record_of

COLUMNS = ("method", "similarity", "recognised", "drift", "seconds", "peak MB", "file kB")


class Entry(msgspec.Struct, frozen=True):
    """The figures of a method; the first entry is that of the base without any."""

    method: str
    similarity: Estimate
    """The mean cosine of the features of generated and of drawn pictures of the subject."""
    recognised: Estimate
    """The share of pictures in which the recogniser sees the subject."""
    drift: Estimate
    """One minus the mean cosine of the features of other pictures and of the base's."""
    seconds: float
    """The time of the training."""
    memory: float
    """The peak memory of the training in MB."""
    size: int
    """The size of the published file in bytes."""
    parameters: int
    """The number of trained numbers."""
    steps: int
    seed: int
    count: int
    device: str
    versions: dict[str, str]


def cells(entry: Entry) -> tuple[str, ...]:
    """Returns the cells of a row."""
    trained = entry.steps > 0
    return (
        entry.method or "none",
        f"{entry.similarity.value:.3f}",
        number(entry.recognised.value),
        f"{entry.drift.value:.3f}",
        f"{entry.seconds:.0f}" if trained else "",
        f"{entry.memory:.0f}" if trained else "",
        f"{entry.size / 1000:.0f}" if trained else "",
    )


def as_markdown(entries: Sequence[Entry]) -> str:
    """Returns the table for the page."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, entries)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def read_entries(page: Path) -> list[Entry]:
    """Reads the entries beside a page, if there are any."""
    if not record_of(page).exists():
        return []
    return msgspec.json.decode(record_of(page).read_bytes(), type=list[Entry])


def write_entry(page: Path, entry: Entry, order: Sequence[str]) -> None:
    """Puts an entry beside a page, in place of an older one of its method, and renews the table.

    Args:
        page: The page.
        entry: The entry.
        order: The order of the methods.
    """
    known = {each.method: each for each in read_entries(page)} | {entry.method: entry}
    entries = [known[name] for name in order if name in known]
    text = filled(page, as_markdown(entries))
    encoded = msgspec.json.format(msgspec.json.encode(entries), indent=1)
    record_of(page).write_bytes(encoded + b"\n")
    page.write_text(text, "utf-8")
