"""Puts all adapters for Stable Diffusion 1.5 on one tiny model, in pairs and more, in any order.

    python tests/plugins/matrix.py                        # all; writes the page of the guide
    python tests/plugins/matrix.py --only lora t2i-canny  # prints the pairs of some

Adapters are those that are installed; none is named here, unless its own sizes are large. Each has
random weights. Exits with 1 at the first fault.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import refiners
import torch
from refiners.choose.variant import variant_for
from refiners.errors import IncompatibleError
from refiners.installed.factory import build_adapter
from refiners.installed.inventory import Installed
from refiners.sources.origin import introduce

from refiners_core import Adapter
from refiners_core.models.clip import ClipImageConfig
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.testing import tiny_model
from refiners_core.testing.case import bits

BASE: Final = "sd15"
PAGE: Final = Path(__file__).parents[2] / "docs" / "guide" / "composition.md"
RANDOM_SETS: Final = 200
"""The number of random triples, and of quadruples."""
LARGEST: Final = 2_000_000
"""The largest number of weights of an adapter on the tiny model."""
ENCODER: Final = ClipImageConfig(
    image_size=32, patch_size=16, width=8, inner_width=16, layers=1, heads=2, projection_width=8
)
SMALL: Final[Mapping[str, Mapping[str, Any]]] = {
    "refiners_ipadapter.adapter:IpAdapter": {"encoder": ENCODER, "tokens": 2},
    "refiners_t2iadapter.style:StyleAdapter": {"encoder": ENCODER},
    "refiners_textualinversion.adapter:TextualInversion": {"word": "cat"},
}
"""The options of factories whose adapters have the sizes of released files, or do not act in the
prompts, by default."""
PICTURE: Final = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
TOGETHER, REFUSED, SAME = "+", "x", "."


class Fault(AssertionError):
    """Adapters do not keep the laws of composition."""


@dataclass
class Stage:
    """A tiny model, and adapters with random weights that were built for it.

    Args:
        plugins: The adapters, all of which have a variant for the model.
    """

    plugins: Sequence[Installed[Any]]
    model: LatentDiffusion = field(init=False)
    adapters: dict[str, Adapter] = field(default_factory=dict[str, Adapter], init=False)
    alone: dict[str, Any] = field(default_factory=dict[str, Any], init=False)
    """The edits of each adapter, and its own layers, while it is worn alone."""
    outcomes: dict[frozenset[str], Any] = field(default_factory=dict[Any, Any], init=False)
    """The bits of the latents that the model generates with each set of adapters."""
    layers: dict[str, tuple[int, int]] = field(default_factory=dict[str, Any], init=False)

    def __post_init__(self) -> None:
        self.model = bare_model()
        noise = torch.Generator().manual_seed(3)
        for plugin in self.plugins:
            adapter = self.adapters[plugin.name] = built(plugin)
            adapter.inject(self.model).eject()
            if (size := sum(weight.numel() for weight in adapter.parameters())) > LARGEST:
                raise Fault(f"{plugin.name} has {size} weights; give its factory options in SMALL")
            with torch.no_grad():
                for weight in adapter.parameters():
                    weight.copy_(torch.randn(weight.shape, generator=noise) * 0.2)
        self.layers = layers_of(self.model)
        self.outcomes[frozenset()] = self.generated()
        for name, adapter in self.adapters.items():
            adapter.inject(self.model)
            self.alone[name] = footprint(adapter, self.model)
            self.check_outcome((name,))
            adapter.eject()

    def refusal(self, names: Sequence[str], *, is_repeated: bool = False) -> str:
        """Returns why manifests refuse these adapters in this order; empty if they go together.

        Args:
            names: The adapters, in the order in which they are put on.
            is_repeated: Whether another order was checked before, so that the model need not
                generate again without each of them.

        Raises:
            Fault: The adapters conflict, but no manifest declares it, or another law is broken.
        """
        try:
            refusal = self.put_on(names)
            if not refusal:
                for name in names:
                    if footprint(self.adapters[name], self.model) != self.alone[name]:
                        raise Fault(f"{name} edits other places or layers in {' + '.join(names)}")
                self.check_outcome(names)
        except BaseException:
            self.model.eject_all()
            raise
        self.take_off(names, is_checked=not is_repeated)
        return refusal

    def put_on(self, names: Sequence[str]) -> str:
        """Injects adapters in this order, up to one that a manifest refuses; returns why.

        Raises:
            Fault: An adapter cannot be injected, but no manifest declares it.
        """
        plugins = {plugin.name: plugin for plugin in self.plugins}
        for name in names:
            try:
                variant_for(plugins[name], self.model)
            except IncompatibleError as error:
                return str(error.trace[0])
            try:
                self.adapters[name].inject(self.model)
            except Exception as error:
                raise Fault(f"{' + '.join(names)} is not refused by a manifest") from error
        return ""

    def check_outcome(self, names: Sequence[str]) -> None:
        """Generates with the worn adapters and compares with other orders and with fewer.

        Raises:
            Fault: The order matters, or one of the adapters changes nothing.
        """
        worn = frozenset(names)
        outcome = self.generated()
        if self.outcomes.setdefault(worn, outcome) != outcome:
            raise Fault(f"the order of {' + '.join(names)}, or what was worn before, matters")
        for name in names:
            if self.outcomes.get(worn - {name}) == outcome:
                raise Fault(f"{name} changes nothing in {' + '.join(names)}")

    def take_off(self, names: Sequence[str], *, is_checked: bool) -> None:
        """Ejects adapters in a random order, and checks the model in the end.

        Args:
            names: The adapters.
            is_checked: Whether to check what the model generates after each.

        Raises:
            Fault: An adapter leaves a trace.
        """
        worn = [name for name in names if self.adapters[name] in self.model.adapters]
        for name in random.Random(" ".join(names)).sample(worn, len(worn)):
            self.adapters[name].eject()
            worn.remove(name)
            known = self.outcomes.get(frozenset(worn)) if is_checked else None
            if known is not None and self.generated() != known:
                raise Fault(f"{name} leaves a trace in {' + '.join(names)}")
        if layers_of(self.model) != self.layers:
            raise Fault(f"the model is not what it was after {' + '.join(names)}")

    def generated(self) -> Any:
        """Returns the bits of the latents that the model generates with the worn adapters."""
        worn = self.model.adapters
        words = " ".join(word for adapter in worn for word in adapter.advice.trigger_words)
        with torch.random.fork_rng():
            latents = self.model.generate(
                [f"a cat {words}", "a dog"],
                conditions={a: condition_of(a) for a in worn if a.takes_condition},
                **{"steps": 1, "guidance": 3.0, "sampler": "ddim", "seed": 7},
                **{"output": "latents", "progress": False},
            )
        if not latents.isfinite().all():
            raise Fault(f"{[adapter.key for adapter in worn]} make numbers that are not finite")
        return bits(latents)


def bare_model() -> LatentDiffusion:
    """Returns a tiny model that states the facts of Stable Diffusion 1.5."""
    (published,) = (model for model in refiners.models() if model.name == BASE)
    return tiny_model(facts=published.spec.facts)


def suitable() -> list[Installed[Any]]:
    """Returns the installed adapters that have a variant for Stable Diffusion 1.5, by name."""
    model = bare_model()
    return [plugin for plugin in refiners.adapters() if _suits(plugin, model)]


def _suits(plugin: Installed[Any], model: LatentDiffusion) -> bool:
    try:
        variant_for(plugin, model)
    except IncompatibleError:
        return False
    return True


def built(plugin: Installed[Any]) -> Adapter:
    """Returns an adapter of a package, without weights."""
    options = dict(SMALL.get(plugin.spec.factory, {}))
    adapter = build_adapter(plugin, None, options)
    introduce(adapter, plugin, options)
    return adapter


def condition_of(adapter: Adapter) -> Any:
    """Returns a picture, or one for each input."""
    names = adapter.inputs or adapter.optional_inputs[:1]
    return dict.fromkeys(names, PICTURE) or PICTURE


def layers_of(model: LatentDiffusion) -> dict[str, tuple[int, int]]:
    """Returns the identities of layers and of their mappings of children, by path."""
    return {name: (id(m), id(m._modules)) for name, m in model.named_modules()}


def footprint(adapter: Adapter, model: LatentDiffusion) -> Any:
    """Returns the places and base layers that an adapter edits, and its own layers."""
    edits: Any = adapter.edits(model)
    places = [
        (seat.path, edit.kind, edit.stage, id(seat.layer)) for edit in edits for seat in edit.seats
    ]
    parts = {name: (id(m), id(m._modules)) for name, m in adapter.named_modules()}
    return places, parts


def check_pairs(stage: Stage, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Returns the refusal of each ordered pair, which is empty if the two go together.

    Raises:
        Fault: A pair breaks a law, or is refused in one order only.
    """
    refusals = {pair: stage.refusal(pair) for pair in pairs}
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


def page(names: Sequence[str], refusals: Mapping[tuple[str, str], str], refused: int) -> str:
    """Returns the page of the guide.

    Args:
        names: The adapters, in the order of rows.
        refusals: The refusal of each ordered pair.
        refused: How many of the random sets are refused.
    """
    words = sorted({f"- `{a}` + `{b}`: {text}" for (a, b), text in refusals.items() if text})
    title = "Refused:" if words else "No pair is refused."
    return f"""\
# Adapters together

Any adapters go together, in any number and any order, unless the manifest of one of them declares
a conflict. `make matrix` checks this for all {len(names)} adapters of this repository that suit
Stable Diffusion 1.5, with random weights on a tiny model, and writes this page:

| sets | checked |
|---|---|
| {len(refusals)} ordered pairs | all |
| triples, quadruples | {RANDOM_SETS} random ones each, in two orders; {refused} are refused |

- The picture does not depend on the order in which adapters are put on, bit for bit.
- An adapter edits the same places as alone: layers of the model, never layers of another adapter.
- Each adapter changes the picture.
- They come off in a random order, and leave no trace: after each, the picture is bit for bit that
  of the adapters left, and at the end the layers of the model are the same objects as before.
- What does not go together is refused in both orders by a manifest, before the model is touched.

A row is the adapter that is put on first, a column the second: `{TOGETHER}` goes together,
`{REFUSED}` is refused, `{SAME}` is the adapter itself.

```text
{table(names, refusals)}
```

{title}
{"".join(f"{chr(10)}{line}" for line in words)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="the adapters to pair")
    only = parser.parse_args().only
    plugins = [plugin for plugin in suitable() if only is None or plugin.name in only]
    stage = Stage(plugins)
    names = [*stage.adapters]
    try:
        refusals = check_pairs(stage, itertools.permutations(names, 2))
        print(table(names, refusals))
        if only is None:
            counts = [check_sets(stage, refusals, size, RANDOM_SETS) for size in (3, 4)]
            PAGE.write_text(page(names, refusals, sum(counts)).rstrip() + "\n")
            print(f"wrote {PAGE}")
    except Fault as fault:
        sys.exit(f"{fault}: {fault.__cause__ or 'see the laws of composition'}")


if __name__ == "__main__":
    main()
