"""Compares methods of training on one subject, a shape that the base was never shown.

    python benchmarks/methods/compare.py
    python benchmarks/methods/compare.py lora dora --steps 40
    python benchmarks/methods/compare.py --docs docs/guide/methods.md

Each method trains by the file of its name beside this script, for as many steps on the same
pictures in the same order, in a process of its own. It takes about twenty minutes on one core.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from table import COLUMNS, Entry, cells, write_entry

FOLDER = Path(__file__).parent
METHODS = (*("lora", "dora", "loha", "lokr", "oft", "ia3", "textual-inversion", "full"),)
"""The methods, each with a configuration `NAME.toml`."""
COUNT = 64
"""The pictures behind each figure."""


def main() -> int:
    """Trains and measures the methods; prints the table, and writes it into a page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--device", default="cpu", help="the device, such as cuda")
    parser.add_argument("--steps", type=int, help="training steps instead of those of the files")
    parser.add_argument("--count", type=int, default=COUNT, help="pictures behind each figure")
    parser.add_argument("--docs", type=Path, metavar="PAGE", help="write the table into a page")
    options = parser.parse_args()
    if unknown := set(options.methods) - {*METHODS}:
        parser.error(f"unknown METHOD {', '.join(sorted(unknown))}; try {', '.join(METHODS)}")
    before: list[list[float]] | None = None
    print(("{:<18}" + "{:>12}" * (len(COLUMNS) - 1)).format(*COLUMNS))
    for name in ("", *(options.methods or METHODS)):
        entry, features = apart(name, options.device, options.steps, options.count, before)
        before = before or features
        print(("{:<18}" + "{:>12}" * (len(COLUMNS) - 1)).format(*cells(entry)), flush=True)
        if options.docs is not None:
            write_entry(options.docs, entry, ("", *METHODS))
    return 0


def apart(
    name: str, device: str, steps: int | None, count: int, before: list[list[float]] | None
) -> tuple[Entry, list[list[float]]]:
    """Trains and measures a method in a new process, whose peak memory is its own."""
    from trial import measured

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measured, name, device, steps, count, before).result()


if __name__ == "__main__":
    sys.exit(main())
