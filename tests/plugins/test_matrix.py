"""The matrix of adapters finds faults of composition, and the page that it wrote is current."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from refiners.choose.conflict import check_conflicts
from refiners.choose.variant import made_from
from refiners.errors import IncompatibleError
from torch import nn

from refiners_core import Adapter, Chain, Lambda, Selection

from . import matrix, stage

SUITABLE = stage.suitable()
BY_BASE = {base: SUITABLE if base == "sd15" else stage.suitable(base) for base in stage.BASES}


def written(base: str) -> dict[tuple[str, str], str]:
    """Returns the signs on the page by pair."""
    section = matrix.PAGE.read_text().partition(f"## {matrix.TITLES[base]}\n")[2]
    block = section.partition("```text\n")[2].partition("```")[0]
    rows = [line.split() for line in block.splitlines() if len(line.split()) == 3]
    names = [name for _, name, _ in rows]
    return {
        (first, second): sign
        for _, first, signs in rows
        for second, sign in zip(names, signs, strict=True)
    }


@pytest.mark.parametrize("base", stage.BASES)
def test_the_page_has_every_adapter_for_its_base(base: str):
    names = [plugin.name for plugin in BY_BASE[base]]
    assert written(base).keys() == {*itertools.product(names, names)}, "run make matrix"


@pytest.mark.slow
@pytest.mark.parametrize("base", stage.BASES)
def test_the_page_is_current_for_pairs_of_all_kinds(base: str):
    of_each_factory = {plugin.spec.factory: plugin for plugin in BY_BASE[base]}
    company = stage.Stage([*of_each_factory.values()], base)
    cycle = itertools.pairwise([*company.adapters, next(iter(company.adapters))])
    refusals = matrix.check_pairs(company, [pair for a, b in cycle for pair in ((a, b), (b, a))])
    signs = written(base)
    assert all(signs[pair] == matrix.cell(refusals, *pair) for pair in refusals), "run make matrix"


@pytest.mark.slow
def test_the_page_is_what_the_command_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    before = matrix.PAGE.read_text()
    monkeypatch.setattr(matrix, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr("sys.argv", ["matrix.py"])
    matrix.main()
    assert matrix.PAGE.read_text() == before


# --- faults ---------------------------------------------------------------------------------------


class Doubling(Adapter):
    """An adapter that keeps the laws."""

    place = "unet.conv_in"

    def edits(self, model: Any) -> Any:
        return self.times(2, model.slot(self.place))

    def others(self, model: Any) -> list[Any]:
        return [adapter for adapter in model.adapters if adapter is not self]

    def times(self, factor: int, place: Selection) -> Any:
        scaled = Lambda(lambda x: factor * x)
        return place.wrap(lambda inner, seat: Chain(inner, scaled), stage="output")


class Tripling(Doubling):
    """Another that keeps the laws."""

    def edits(self, model: Any) -> Any:
        return self.times(3, model.slot(self.place))


class Replacing(Doubling):
    """An adapter that replaces a layer, so that no other can."""

    def edits(self, model: Any) -> Any:
        small = Lambda(lambda x: x[:, :4] / 2)
        return model.slot("unet.conv_out").replace(lambda seat: small)


class Renewing(Doubling):
    """An adapter that replaces the same layer."""

    def edits(self, model: Any) -> Any:
        large = Lambda(lambda x: x[:, :4] * 2)
        return model.slot("unet.conv_out").replace(lambda seat: large)


class Idle(Doubling):
    """An adapter that changes nothing."""

    def edits(self, model: Any) -> Any:
        return self.times(1, model.slot(self.place))


class Writing(Doubling):
    """An adapter that changes a weight of the model when another is worn."""

    def edits(self, model: Any) -> Any:
        if self.others(model):
            with torch.no_grad():
                next(model.unet.parameters()).add_(1)
        return super().edits(model)


class Counting(Doubling):
    """An adapter that acts by the number of those that were put on before."""

    def edits(self, model: Any) -> Any:
        return self.times(2 + len(self.others(model)), model.slot(self.place))


class Evading(Doubling):
    """An adapter that edits another place when another is worn."""

    def edits(self, model: Any) -> Any:
        place = "unet.conv_out" if self.others(model) else self.place
        return self.times(2, model.slot(place))


class Meddling(Doubling):
    """An adapter that changes the layers of others."""

    def edits(self, model: Any) -> Any:
        for other in self.others(model):
            other.extra = nn.Identity()
        return super().edits(model)


class Masking(Doubling):
    """An adapter that acts only alone."""

    def edits(self, model: Any) -> Any:
        alone = Lambda(lambda x: x if len(model.adapters) > 1 else 2 * x)
        return model.slot(self.place).wrap(lambda inner, seat: Chain(inner, alone), stage="output")


def check(company: stage.Stage) -> dict[tuple[str, str], str]:
    return matrix.check_pairs(company, itertools.permutations(company.adapters, 2))


def staged(
    monkeypatch: pytest.MonkeyPatch, kinds: Sequence[type[Adapter]], conflicts: tuple[str, ...] = ()
) -> stage.Stage:
    """Returns a stage with an adapter of each class, named by it; the first has conflicts."""
    by_name = {kind.__name__.lower(): kind for kind in kinds}
    plugin = next(plugin for plugin in SUITABLE if plugin.name == "style-aligned")
    plugins: list[Any] = []
    for name in by_name:
        spec = replace(plugin.spec, conflicts=() if plugins else conflicts)
        plugins.append(replace(plugin, name=name, spec=spec))

    def built(plugin: Any, model: Any) -> Adapter:
        adapter = by_name[plugin.name](name=plugin.name)
        made_from[adapter] = plugin
        return adapter

    monkeypatch.setattr(stage, "built", built)
    return stage.Stage(plugins)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([Replacing, Renewing], r"replacing \+ renewing is not refused by a manifest"),
        ([Writing, Doubling], "leaves a trace in writing"),
        ([Counting, Doubling], r"the order of doubling \+ counting"),
        ([Evading, Doubling], "evading edits other places"),
        ([Meddling, Doubling], "doubling edits other places or layers"),
        ([Idle], "idle changes nothing"),
        ([Masking, Doubling], "masking changes nothing in"),
    ],
)
def test_a_fault_is_found(
    monkeypatch: pytest.MonkeyPatch, kinds: Sequence[type[Adapter]], words: str
):
    with pytest.raises(stage.Fault, match=words):
        check(staged(monkeypatch, kinds))


def test_adapters_that_keep_the_laws_go_together(monkeypatch: pytest.MonkeyPatch):
    company = staged(monkeypatch, [Doubling, Tripling])
    assert matrix.table([*company.adapters], check(company)) == (
        "           12\n1 doubling .+\n2 tripling +."
    )


def test_a_declared_conflict_is_refused_in_both_orders_and_in_sets(
    monkeypatch: pytest.MonkeyPatch,
):
    company = staged(monkeypatch, [Replacing, Renewing, Doubling], conflicts=("renewing",))
    refusals = check(company)
    names = [*company.adapters]
    assert matrix.table(names, refusals).splitlines()[1:] == [
        *("1 replacing .x+", "2 renewing  x.+", "3 doubling  ++."),
    ]
    assert "its manifest lists renewing as a conflict" in refusals["renewing", "replacing"]
    assert matrix.check_sets(company, refusals, 3, 2) == 2
    text = matrix.page({"sd15": matrix.Outcome(names, refusals, 2)})
    assert "\n- `replacing` + `renewing`: renewing (any base): the manifest of replacing" in text
    refusals["replacing", "renewing"] = refusals["renewing", "replacing"] = ""
    with pytest.raises(stage.Fault, match="is refused, but no pair"):
        matrix.check_sets(company, refusals, 3, 1)


def test_a_conflict_is_refused_when_an_adapter_is_put_on_again(monkeypatch: pytest.MonkeyPatch):
    check_conflicts()  # as load_adapter does
    company = staged(monkeypatch, [Doubling, Tripling], conflicts=("tripling",))
    model, (first, second) = company.model, company.adapters.values()
    with second.on(model):
        with pytest.raises(IncompatibleError, match="its manifest lists tripling as a conflict"):
            first.inject(model)
        assert model.adapters == (second,)
    message = "doubling lists it as a conflict. Eject doubling first"
    with first.on(model), pytest.raises(IncompatibleError, match=message):
        second.inject(model)
    assert not model.adapters
