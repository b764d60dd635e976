"""Measures refreshes of the catalog, and checks that concurrent refreshes lose nothing.

Run `python benchmarks/catalog.py`. It prints each figure beside its bar and exits with 1 if a bar
is missed. The Hub is a local stand-in.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from refiners.catalog import SHIPPED, listed
from refiners.catalog.build import add
from refiners.catalog.entry import Release, entry_files, read_releases
from refiners.choose.policy import Guard
from refiners.hub.client import Hub
from refiners.refresh import refresh
from refiners.testing import LoopbackHub

from registry import Figure

SOURCE = "hf:org/catalog"
ENTRIES = 20_000
WRITERS = 8
READS = 10_000
WRITER = """
import os, time
parent = os.getppid()
from refiners.refresh import refresh
from refiners.errors import NetworkError
from refiners.hub.client import Hub
from refiners.choose.policy import Guard
print("ready", flush=True)
while os.getppid() == parent and not os.path.exists(os.environ["OVER"]):
    try:
        refresh("hf:org/catalog", Hub.from_environment(), Guard())
    except NetworkError:  # this Hub keeps one commit, which a newer one has replaced
        pass
    time.sleep(0.05)
"""
ADVISORY = '[[advisory]]\nid = "R-{number}"\nreason = "bad"\npackage = "refiners-bad-{number}"\n'


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure refreshes of the catalog.")
    parser.add_argument("--entries", type=int, default=ENTRIES, help="published entries")
    parser.add_argument("--reads", type=int, default=READS, help="reads during writes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = [
            *fetched(Path(folder) / "one", options.entries),
            *contested(Path(folder) / "many", options.reads),
        ]
    for figure in figures:
        print(figure)
    if any(figure.value > figure.bar for figure in figures):
        sys.exit(1)


def published(folder: Path, count: int, first: int = 0) -> dict[str, bytes]:
    """Returns the files of a catalog: the shipped entries and `count` more."""
    shipped = [release for path in entry_files(SHIPPED) for release in read_releases(path)]
    add(folder, (*shipped, *(entry(number) for number in range(first, first + count))))
    files = {str(path.relative_to(folder)): path.read_bytes() for path in entry_files(folder)}
    return files | {"advisories.toml": (SHIPPED / "advisories.toml").read_bytes()}


def entry(number: int) -> Release:
    """Returns a published adapter."""
    spec = {
        "factory": "m.adapter:Made",
        "summary": f"Do what number {number} does",
        "core-api": ">=1.0,<2",
        "variant": [{"base": "sd15", "facts": {"cross_attention_dim": 768}}],
    }
    return Release(
        name=f"made-{number}",
        kind="adapter",
        distribution=f"refiners-made-{number}",
        version="1.0",
        spec=spec,
    )


def fetched(folder: Path, entries: int) -> Iterator[Figure]:
    """Yields the cost of the first refresh, and of one without changes."""
    with LoopbackHub() as hub, hub.in_use(folder / "hf"):
        hub.publish("org/catalog", published(folder / "catalog", entries))
        seconds = timed()
        yield Figure(f"refresh of {entries} entries", seconds, 10, "s")
        yield Figure("its requests", len(hub.requests), 20, "")
        files = sum(not path.is_dir() for path in (folder / "hf").rglob("*"))
        yield Figure("the files that it leaves", files, 40, "")
        yield Figure("refresh without changes", timed(), 1, "s")


def timed() -> float:
    """Returns the seconds of one refresh."""
    begin = time.perf_counter()
    refresh(SOURCE, Hub.from_environment(), Guard())
    return time.perf_counter() - begin


def contested(folder: Path, reads: int) -> Iterator[Figure]:
    """Yields the entries lost in reads while several processes refresh at once."""
    files = published(folder / "catalog", 100)
    with LoopbackHub() as hub, hub.in_use(folder / "hf"):
        hub.publish("org/catalog", files)
        refresh(SOURCE, Hub.from_environment(), Guard())
        over = folder / "over"
        environment = {**os.environ, **hub.environment(folder / "hf"), "OVER": str(over)}
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER], env=environment, stdout=subprocess.PIPE
            )
            for _ in range(WRITERS)
        ]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        publisher = threading.Thread(target=publish, args=(hub, folder / "catalog", over))
        publisher.start()
        try:
            lost, copies = read(reads)
        finally:
            over.touch()
            publisher.join()
            failed = sum(writer.wait() != 0 for writer in writers)
    yield Figure(f"losses in {reads} reads of {copies} copies, {WRITERS} writers", lost, 0, "")
    yield Figure("writers that failed", failed, 0, "")


def publish(hub: LoopbackHub, folder: Path, over: Path) -> None:
    """Publishes a catalog with one more entry and one more advisory every two seconds.

    Reads take longer with each entry, so a faster pace makes ten thousand of them last for hours.
    """
    advisories = (SHIPPED / "advisories.toml").read_text()
    number = 100
    pause = threading.Event()  # time.sleep does nothing while the Hub's stand-in is in use
    while not over.exists():
        pause.wait(2)
        advisories += ADVISORY.format(number=number)
        files = published(folder, 1, number) | {"advisories.toml": advisories.encode()}
        hub.publish("org/catalog", files)
        number += 1


def read(reads: int) -> tuple[int, int]:
    """Returns the number of entries and advisories that vanished, and of distinct copies read."""
    names: set[str] = set()
    advisories: set[str] = set()
    lost = 0
    copies: set[int] = set()
    for _ in range(reads):
        now = {entry.id for entry in listed()}
        warned = {advisory.id for advisory in Guard.from_environment().advisories}
        lost += len(names - now) + len(advisories - warned)
        names |= now
        advisories |= warned
        copies.add(len(now))
    return lost, len(copies)


if __name__ == "__main__":
    main()
