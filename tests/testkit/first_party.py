"""The contracts of the adapters in this repository: one for each factory of each package."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FunctionType
from typing import Any

import refiners
from refiners.installed.inventory import Installed
from refiners_testkit import AdapterContract

from refiners_core import Adapter
from refiners_core.testing import tiny_language_model
from tests.plugins import stage

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))


class FirstParty(AdapterContract):
    """The contract of an adapter of this repository, with the sizes that the matrix uses."""

    def model(self, base: str) -> Any:
        if base in stage.BASES:
            return stage.bare_model(base)
        return tiny_language_model() if base == "language" else super().model(base)

    def options_for(self, base: str) -> Mapping[str, Any]:
        options = dict(stage.SMALL.get(self.plugin().spec.factory, {}))
        if "resampler" in options:
            width = self.model(base).unet.config.text_width
            options["resampler"] = replace(options["resampler"], out_width=width)
        made = {k: v(base) for k, v in options.items() if isinstance(v, FunctionType)}
        return options | made

    def value(self, adapter: Adapter) -> Any:
        return stage.condition_of(adapter) if adapter.takes_condition else None


def representatives(folder: Path) -> list[Installed[Any]]:
    """Returns an adapter for each factory of a package."""
    dist = f"refiners-{folder.name}"
    by_factory = {a.spec.factory: a for a in reversed(refiners.adapters()) if a.dist == dist}
    return [*by_factory.values()]


def contract_of(folder: Path, name: str, overruled: Mapping[str, str]) -> type[FirstParty]:
    """Returns the contract of an adapter of a package."""
    facts = {"name": name, "root": folder, "overruled": overruled, "__module__": __name__}
    return type(f"Test_{name.replace('-', '_')}", (FirstParty,), facts)
