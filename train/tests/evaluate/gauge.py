"""A measure and a result that tests use."""

from typing import Any

from refiners_train.evaluate.estimate import Estimate
from refiners_train.evaluate.result import Result, Row

from refiners_core import Adapter
from refiners_core.measure import Figure, Measure, Samples, Settings


class Gauge(Measure):
    """Counts what a run was given."""

    base = "playground"
    adapter = "lora-ink"
    figures = (
        Figure("hits", least=0.5, most_without=0.2, together=0.9),
        Figure("number", is_share=False, statistic=max),
    )

    def __init__(self) -> None:
        self.runs: list[tuple[bool, Settings, tuple[str, ...]]] = []

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        worn = tuple(each.name for each in model.adapters)
        self.runs.append((adapter is not None, settings, worn))
        hits = [float(adapter is not None)] * count
        return Samples({"hits": hits, "number": [float(i) for i in range(count)]})


def result(adapter: str, value: float = 0.9, **changes: Any) -> Result:
    row = Row(
        adapter=adapter,
        measure=adapter,
        figure="hits",
        base="playground",
        without=Estimate(0.1, 0.05, 0.2),
        value=Estimate(value, value - 0.1, min(value + 0.1, 1)),
        n=96,
        bar=">= 0.50",
        is_kept=value >= 0.5,
    )
    fields: dict[str, Any] = {
        "adapter": adapter,
        "rows": (row,),
        "seconds": 12.3,
        "memory": 400.0,
        "seed": 0,
        "count": 96,
        "device": "CPU",
        "versions": {},
        "files": {},
    }
    return Result(**fields | changes)
