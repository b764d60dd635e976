"""Prints the advice of a manifest: how its publisher recommends to use an adapter."""

from __future__ import annotations

from typing import Any

import msgspec

from refiners.cli.report import print_table
from refiners.manifest.advice import AdviceTable
from refiners.manifest.schema import AdapterSpec


def advice_facts(advice: AdviceTable | None) -> dict[str, Any]:
    """Returns the keys of advice that have a value, as manifests spell them."""
    return {} if advice is None else msgspec.to_builtins(advice)


def print_advice(spec: AdapterSpec) -> None:
    """Prints the advice for each group of variants that have the same; nothing without any."""
    groups: dict[AdviceTable, list[str]] = {}
    for variant in spec.variant:
        if (advice := spec.advice_for(variant)) is not None:
            groups.setdefault(advice, []).append(variant.label)
    is_common = [len(labels) for labels in groups.values()] == [len(spec.variant)]
    for advice, labels in groups.items():
        rows = [(name.replace("-", " "), _shown(name, value))
                for name, value in advice_facts(advice).items()]  # fmt: skip
        print_table("Advice" if is_common else f"Advice for {', '.join(labels)}", ("", ""), rows)


def _shown(name: str, value: Any) -> str:
    if name == "required":
        return "yes: a generation follows it"
    if name == "strength":
        return ", ".join(f"{key} {number:g}" for key, number in value.items())
    values: list[Any] = [*value] if isinstance(value, list | tuple) else [value]
    texts = [f"{item:g}" if isinstance(item, float) else str(item) for item in values]
    return f"{' x '.join(texts)} pixels" if name == "size" else ", ".join(texts)
