"""The files of an adapter for the model that it is put on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from refiners.choose.policy import Guard
from refiners.choose.variant import advice_for, variant_for
from refiners.hub.client import Hub
from refiners.installed.inventory import Installed
from refiners.manifest.schema import AdapterSpec
from refiners.sources.fetch import fetch_source
from refiners.sources.user_file import with_parts

if TYPE_CHECKING:
    from refiners_core import Chain, Source


@dataclass(frozen=True)
class WeightsOf:
    """Chooses, fetches and verifies the files of an adapter for a model.

    Args:
        adapter: The installed adapter.
        offline: Whether to stay offline.
        guard: The policies and advisories.
    """

    adapter: Installed[AdapterSpec]
    offline: bool | None
    guard: Guard

    def __call__(self, model: Chain) -> Source:
        """Returns the verified files and the settings of the variant that suits the model.

        Raises:
            IncompatibleError: The adapter has no such variant.
        """
        hub = Hub.from_environment(self.offline)
        variant = variant_for(self.adapter, model, hub, guard=self.guard)
        chosen = variant.files, variant.label, variant.settings
        source = fetch_source(self.adapter, *chosen, offline=self.offline, guard=self.guard)
        files = {role: self.adapter.spec.weights[name] for role, name in variant.files.items()}
        source = with_parts(source, files, hub.receipts.folder)
        return replace(source, advice=advice_for(self.adapter.spec, variant))


@dataclass(frozen=True)
class FilesBeside:
    """Fetches the files of an adapter that training does not make, such as its image encoder.

    Args:
        adapter: The installed adapter.
        learned: The roles of the files that training makes.
        offline: Whether to stay offline.
        guard: The policies and advisories.
    """

    adapter: Installed[AdapterSpec]
    learned: Collection[str]
    offline: bool | None
    guard: Guard

    def __call__(self, model: Chain) -> Source:
        """Returns these files and the settings of the variant that suits the model.

        Raises:
            IncompatibleError: The adapter has no such variant.
        """
        variant = variant_for(self.adapter, model, guard=self.guard)
        roles = {role: name for role, name in variant.files.items() if role not in self.learned}
        chosen = roles, variant.label, variant.settings
        source = fetch_source(self.adapter, *chosen, offline=self.offline, guard=self.guard)
        return replace(source, advice=advice_for(self.adapter.spec, variant), begins=True)
