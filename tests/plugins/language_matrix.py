"""Puts all adapters of language models on a tiny one of each family, in pairs and triples.

    python -m tests.plugins.language_matrix                          # all families
    python -m tests.plugins.language_matrix --family llama gpt2      # some of them
    python -m tests.plugins.language_matrix --only DoRA fusion vera  # some of the adapters

Adapters are those that are installed, with random weights in files of the layouts that are
published. Exits with 1 at the first fault, and prints the family, the adapters and the law.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from refiners_core import Adapter, Condition
from refiners_core.errors import RefinersError
from refiners_core.models.decoder import LanguageModel

from ..parity.test_peft_decoder import IDS
from .language_stage import FAMILIES, Origin, adapters_of
from .stage import Fault

TRIPLES: Final = 100
"""The number of random triples for each family."""
NEW: Final = 2
"""The number of tokens that are written after each text."""
ROWS: Final = (IDS[0, :8], IDS[0, :5], IDS[0, :8].flip(0))
"""The texts of a batch, one of them after padding; with `NEW` tokens they exceed the windows."""
ROW_SCALES: Final = ([1.0, 0.0, 0.5], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0])
"""The scales of three adapters for each text."""
TOLERANCE: Final = 1e-4
"""The largest difference between logits with a cache and without, relative to the largest logit."""

Texts = list[Tensor]
"""The logits of each text, (tokens, vocabulary)."""


class Count(NamedTuple):
    """The number of sets that were checked for a family."""

    adapters: int
    pairs: int
    refused: int
    triples: int


@dataclass
class Troupe:
    """A language model and its adapters, with the laws that hold for every set of them."""

    model: LanguageModel
    adapters: Mapping[str, Adapter]
    known: dict[tuple[str, ...], Texts] = field(default_factory=dict[Any, Any], init=False)
    """The logits with each set of adapters at scale 1; names are sorted."""
    layers: dict[str, tuple[int, int]] = field(default_factory=dict[str, Any], init=False)
    _calls: list[Tensor] = field(default_factory=list[Tensor], init=False)

    def __post_init__(self) -> None:
        def keep(_layer: Any, _inputs: Any, output: Tensor) -> None:
            self._calls.append(output)

        self.model.decoder.register_forward_hook(keep)
        self.layers = self._layers()
        self.known[()] = self.logits()
        for name, adapter in self.adapters.items():
            with adapter.on(self.model):
                self._record([name])
            if _same(self.known[name,], self.known[()]):
                raise Fault(f"{name}: it changes no logits")

    def check(self, names: Sequence[str], leaving: Sequence[str], is_repeated: bool) -> bool:
        """Checks a set of adapters, and returns whether it goes together.

        Args:
            names: The adapters in the order in which they are put on.
            leaving: The same in the order in which they are taken off.
            is_repeated: Whether the set was checked in another order: scales by text and decoding
                are not checked again.

        Raises:
            Fault: The set breaks a law.
        """
        title = " + ".join(names)
        try:
            for name in names:
                self.adapters[name].inject(self.model)
        except RefinersError:
            self.model.eject_all()
            self._check_layers(title)
            self._record([], f"after {title} is refused")
            return False
        try:
            self._record(names)
            self._check_left_out(names, Condition(scale=0.0) if is_repeated else None)
            self._check_rows(names, is_repeated)
            if not is_repeated:
                self._check_decoding(title)
            worn = list(names)
            for name in leaving:
                self.adapters[name].eject()
                worn.remove(name)
                self._record(worn, f"after {name} of {title} is taken off")
        except RefinersError as error:
            raise Fault(f"{title}: {error}") from error
        finally:
            self.model.eject_all()
        self._check_layers(title)
        return True

    def logits(self, conditions: Mapping[Adapter, Any] | None = None) -> Texts:
        """Returns the logits of all tokens of the texts with the worn adapters."""
        return self._read(ROWS, conditions)

    def _read(self, rows: Sequence[Tensor], conditions: Mapping[Adapter, Any] | None) -> Texts:
        self._calls.clear()
        self.model.score([*rows], conditions=conditions)
        output = self._calls[-1]  # learned tokens are read in calls before
        return [part[-len(row) :] for part, row in zip(output, rows, strict=True)]

    def _record(self, names: Sequence[str], moment: str = "") -> None:
        """Compares the logits with those that the same adapters had before in any order."""
        logits = self.logits()
        if not _same(self.known.setdefault(tuple(sorted(names)), logits), logits):
            law = "the logits depend on the order in which adapters are put on and taken off"
            raise Fault(f"{' + '.join(names) or 'none'} {moment}: {law}")

    def _check_left_out(self, names: Sequence[str], value: Condition | None) -> None:
        """Checks that the first adapter at scale 0, or at None, leaves the others alone."""
        others = tuple(sorted(names[1:]))
        if not _same(self.logits({self.adapters[names[0]]: value}), self.known[others]):
            state = "condition None" if value is None else "scale 0"
            raise Fault(
                f"{' + '.join(names)}: with {names[0]} at {state} the logits are not those of the "
                "others alone"
            )

    def _check_rows(self, names: Sequence[str], is_repeated: bool) -> None:
        """Checks that a text at scale 0 of the first adapter is that of the others, in one batch.

        The others are at scale 1 and, unless the set is repeated, at scales by text.
        """
        mixed: dict[Adapter, Any] = {}
        for name, scales in zip(names, ROW_SCALES, strict=False):
            adapter = self.adapters[name]
            # Learned tokens are before a text or are not.
            is_half = not adapter.tokens_before
            values = scales if is_half else [float(scale > 0) for scale in scales]
            mixed[adapter] = Condition(scale=values)
        first, row = self.adapters[names[0]], ROW_SCALES[0].index(0.0)
        text = self.logits({first: mixed[first]})[row]
        texts = [("at scale 1", text, self.known[tuple(sorted(names[1:]))][row])]
        if not is_repeated:
            apart = self.logits(mixed | {first: None})[row]
            texts.append(("with scales by text", self.logits(mixed)[row], apart))
        for others, text, expected in texts:
            if not torch.equal(text, expected):
                raise Fault(
                    f"{' + '.join(names)}: a text with {names[0]} at scale 0 in a batch has not "
                    f"the logits of the others alone, {others}"
                )

    def _check_decoding(self, title: str) -> None:
        """Checks that tokens written with a cache are the likeliest of the whole texts."""
        self._calls.clear()
        results = self.model.generate([*ROWS], max_new_tokens=NEW, output="tokens")
        steps = torch.stack([output[:, -1] for output in self._calls[-NEW:]], 1)
        rows = [torch.cat([row, new]) for row, new in zip(ROWS, results, strict=True)]
        for cached, new, whole in zip(steps, results, self._read(rows, None), strict=True):
            expected = whole[-len(new) - 1 : -1]
            bound = TOLERANCE * float(expected.abs().max())
            chosen = expected.gather(-1, new[:, None])[:, 0]
            is_close = bool((cached[: len(new)] - expected).abs().max() <= bound)
            if not is_close or not bool((chosen >= expected.amax(-1) - bound).all()):
                raise Fault(f"{title}: decoding with a cache is not decoding without")

    def _check_layers(self, title: str) -> None:
        if self._layers() != self.layers:
            raise Fault(f"{title}: the layers of the model are not what they were")

    def _layers(self) -> dict[str, tuple[int, int]]:
        """Returns the identities of layers and of their mappings of children, by path."""
        return {name: (id(m), id(m._modules)) for name, m in self.model.named_modules()}


def _same(first: Texts, second: Texts) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def check_pairs(troupe: Troupe, pairs: Sequence[tuple[str, str]]) -> set[frozenset[str]]:
    """Checks pairs in both orders, and returns those that are refused.

    Raises:
        Fault: A pair breaks a law, or is refused in one order only.
    """
    refused: set[frozenset[str]] = set()
    for a, b in pairs:
        orders = [troupe.check((a, b), (a, b), False), troupe.check((b, a), (b, a), True)]
        if orders[0] != orders[1]:
            raise Fault(f"{a} + {b}: it is refused in one order only")
        if not orders[0]:
            refused.add(frozenset((a, b)))
    return refused


def check_triples(troupe: Troupe, refused: set[frozenset[str]], count: int) -> None:
    """Checks random triples, each in two orders.

    Raises:
        Fault: A triple breaks a law, or is refused although all of its pairs go together.
    """
    for index in range(count):
        draws = random.Random(index)
        names = draws.sample(sorted(troupe.adapters), 3)
        is_refused = any(frozenset(pair) in refused for pair in itertools.combinations(names, 2))
        for is_repeated, order in enumerate((names, names[::-1])):
            is_whole = troupe.check(order, draws.sample(names, 3), bool(is_repeated))
            if is_whole == is_refused:
                raise Fault(f"{' + '.join(order)}: a triple is refused where its pairs are not")


@torch.no_grad()
def checked(family: str, only: Sequence[str] | None = None, triples: int = TRIPLES) -> Count:
    """Checks all pairs of adapters of a family, and random triples.

    Raises:
        Fault: Adapters break a law of composition; the family is named.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of PEFT, while it makes files
    with TemporaryDirectory() as folder:
        origin = Origin(family, Path(folder))
        try:
            adapters = adapters_of(origin, only)
            troupe = Troupe(origin.model, adapters)
            pairs = [*itertools.combinations(adapters, 2)]
            refused = check_pairs(troupe, pairs)
            count = triples if len(adapters) > 2 else 0
            check_triples(troupe, refused, count)
        except Fault as fault:
            raise Fault(f"{family}: {fault}") from fault
    return Count(len(adapters), 2 * len(pairs), 2 * len(refused), count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="FORM", help="the adapters to put together")
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=FAMILIES)
    options = parser.parse_args()
    try:
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            made = [
                (family, pool.submit(checked, family, options.only)) for family in options.family
            ]
            for family, future in made:
                count = future.result()
                print(
                    f"{family}: {count.adapters} adapters, {count.pairs} ordered pairs, "
                    f"{count.refused} of them refused, {count.triples} triples",
                    flush=True,
                )
    except Fault as fault:
        sys.exit(str(fault))


if __name__ == "__main__":
    main()
