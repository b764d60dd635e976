"""Puts all adapters for a base on one tiny model, in pairs and more, in any order.

    python -m tests.plugins.matrix                        # all; writes the page of the guide
    python -m tests.plugins.matrix --only lora t2i-canny  # prints the pairs of some
    python -m tests.plugins.matrix --base sdxl --only instantid lora

Adapters are those that are installed; none is named here, unless its own sizes are large. Each has
random weights. Exits with 1 at the first fault.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple

from .stage import BASES, Fault, Stage, suitable

PAGE: Final = Path(__file__).parents[2] / "docs" / "guide" / "composition.md"
RANDOM_SETS: Final = 200
"""The number of random triples, and of quadruples."""
TOGETHER, REFUSED, SAME = "+", "x", "."
TITLES: Final[Mapping[str, str]] = {"sd15": "Stable Diffusion 1.5", "sdxl": "Stable Diffusion XL"}


class Outcome(NamedTuple):
    """The result of the checks for one base."""

    names: Sequence[str]
    """The adapters, in the order of rows."""
    refusals: Mapping[tuple[str, str], str]
    """The refusal of each ordered pair."""
    refused: int
    """How many of the random sets are refused."""


def check_pairs(stage: Stage, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Returns the refusal of each ordered pair, which is empty if the two go together.

    Of all pairs of two kinds, the first one generates, in both orders; the others are put on and
    taken off.

    Raises:
        Fault: A pair breaks a law, or is refused in one order only.
    """
    refusals: dict[tuple[str, str], str] = {}
    generating: dict[frozenset[Any], frozenset[str]] = {}
    for pair in pairs:
        names = frozenset(pair)
        if generating.setdefault(frozenset(map(stage.kinds.__getitem__, pair)), names) == names:
            refusals[pair] = stage.refusal(pair, is_repeated=pair[::-1] in refusals)
        else:
            refusals[pair] = stage.passed_by(pair)
    for (first, second), refusal in refusals.items():
        if bool(refusal) != bool(refusals.get((second, first), refusal)):
            raise Fault(f"{first} + {second} is refused in one order only: {refusal}")
    return refusals


def check_sets(stage: Stage, refusals: Mapping[tuple[str, str], str], size: int, count: int) -> int:
    """Checks random sets and returns how many of them are refused.

    Raises:
        Fault: A set breaks a law, or is refused although all of its pairs go together.
    """
    refused = 0
    for index in range(count):
        names = random.Random(f"{size} {index}").sample([*stage.adapters], size)
        is_refused = any(refusals[pair] for pair in itertools.permutations(names, 2))
        reverse = names[::-1]
        for reason in (stage.refusal(names), stage.refusal(reverse, is_repeated=True)):
            if bool(reason) != is_refused:
                fact = "is not refused, but a pair is" if is_refused else "is refused, but no pair"
                raise Fault(f"{' + '.join(names)} {fact}")
        refused += is_refused
    return refused


def table(names: Sequence[str], refusals: Mapping[tuple[str, str], str]) -> str:
    """Returns the matrix as text: a row for the adapter that is put on first."""
    digits = len(str(len(names)))
    width = max(map(len, names))
    numbers = [str(number).rjust(digits) for number in range(1, len(names) + 1)]
    lines = ["".join(number[i] for number in numbers) for i in range(digits)]
    rows = [f"{'':{digits + width + 2}}{line}" for line in lines]
    for number, first in zip(numbers, names, strict=True):
        cells = (cell(refusals, first, second) for second in names)
        rows.append(f"{number} {first:{width}} {''.join(cells)}")
    return "\n".join(row.rstrip() for row in rows)


def cell(refusals: Mapping[tuple[str, str], str], first: str, second: str) -> str:
    """Returns the sign of an ordered pair."""
    if first == second:
        return SAME
    return REFUSED if refusals[first, second] else TOGETHER


def page(outcomes: Mapping[str, Outcome]) -> str:
    """Returns the page of the guide, from the outcome of each base."""
    sections = "\n\n".join(section(TITLES[base], outcome) for base, outcome in outcomes.items())
    return f"""\
# Adapters together

Any adapters go together, in any number and any order, unless the manifest of one of them declares
a conflict. `make matrix` checks this for all adapters of this repository, with random weights on a
tiny model of each base, and writes this page. It puts on all ordered pairs and takes them off. Of
all pairs of two kinds, one pair also generates, in both orders; adapters of one class that edit the
same places are of one kind. So do {RANDOM_SETS} random triples and quadruples each:

- The picture does not depend on the order in which adapters are put on, bit for bit.
- An adapter edits the same places as alone: layers of the model, never layers of another adapter.
- Each adapter changes the picture.
- They come off in a random order, and leave no trace: after each, the picture is bit for bit that
  of the adapters left, and at the end the layers of the model are the same objects as before. Of
  the two orders of a pair, pictures after each are compared in one.
- What does not go together is refused in both orders by a manifest, before the model is touched.

A row is the adapter that is put on first, a column the second: `{TOGETHER}` goes together,
`{REFUSED}` is refused, `{SAME}` is the adapter itself.

{sections}
"""


def section(title: str, outcome: Outcome) -> str:
    """Returns the part of the page for one base."""
    names, refusals, refused = outcome
    words = sorted({f"- `{a}` + `{b}`: {text}" for (a, b), text in refusals.items() if text})
    pairs = "Refused pairs:" if words else "No pair is refused."
    return f"""\
## {title}

{len(names)} adapters, {len(refusals)} ordered pairs. {refused} of the random sets are refused.

```text
{table(names, refusals)}
```

{pairs}
{"".join(f"{chr(10)}{line}" for line in words)}""".rstrip()


def checked(base: str, only: Sequence[str] | None) -> Outcome:
    """Checks the adapters of a base, or the pairs of some, and prints the table.

    Raises:
        Fault: Adapters break a law of composition.
    """
    plugins = [plugin for plugin in suitable(base) if only is None or plugin.name in only]
    stage = Stage(plugins, base)
    names = [*stage.adapters]
    refusals = check_pairs(stage, itertools.permutations(names, 2))
    print(f"{TITLES[base]}\n{table(names, refusals) if names else 'none of these'}")
    sizes = () if only else (3, 4)
    return Outcome(
        names, refusals, sum(check_sets(stage, refusals, size, RANDOM_SETS) for size in sizes)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="the adapters to pair")
    parser.add_argument("--base", choices=[*BASES], help="the base; all of them by default")
    options = parser.parse_args()
    bases = [*BASES] if options.base is None else [options.base]
    try:
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            made = {pool.submit(checked, base, options.only): base for base in bases}
            done = {made[future]: future.result() for future in as_completed(made)}
        outcomes = {base: done[base] for base in bases}
    except Fault as fault:
        sys.exit(f"{fault}: {fault.__cause__ or 'see the laws of composition'}")
    if options.only is None and options.base is None:
        PAGE.write_text(page(outcomes))
        print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
