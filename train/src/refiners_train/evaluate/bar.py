"""The bars of a figure: in words, and whether measured values keep them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from refiners_train.evaluate.estimate import Estimate, number

if TYPE_CHECKING:
    from refiners_core.measure import Figure


class Bar(NamedTuple):
    """A bar in words, and whether it is kept."""

    words: str
    is_kept: bool


def bars(
    figure: Figure,
    with_: Estimate,
    without: Estimate | None,
    others: Mapping[str, Estimate],
) -> Iterator[Bar]:
    """Yields the bars of a figure.

    Args:
        figure: The figure.
        with_: The value with the adapter, or that of the model itself.
        without: The value without the adapter.
        others: The values of all figures of the measure with the adapter.
    """
    value = with_.value
    if figure.least is not None:
        yield Bar(f">= {number(figure.least)}", value >= figure.least)
    if figure.most is not None:
        yield Bar(f"<= {number(figure.most)}", value <= figure.most)
    if figure.share_of is not None:
        name, share = figure.share_of
        yield Bar(f">= {share:g} x {name}", value >= share * others[name].value)
    if without is None:
        return
    if figure.most_without is not None:
        is_kept = without.value <= figure.most_without
        yield Bar(f"<= {number(figure.most_without)} without", is_kept)
    if figure.least_without is not None:
        is_kept = without.value >= figure.least_without
        yield Bar(f">= {number(figure.least_without)} without", is_kept)
    if figure.loss is not None:
        yield Bar(f">= without - {figure.loss:g}", value >= without.value - figure.loss)


def bars_together(figure: Figure, with_: Estimate, alone: float) -> Iterator[Bar]:
    """Yields the bar of a figure of an adapter that others are worn beside."""
    if figure.together is not None:
        is_kept = with_.value >= figure.together * alone
        yield Bar(f">= {figure.together:g} x alone", is_kept)
