"""Checks the model cards of the repositories that have the weights of a package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from refiners.authoring.card import FOUND_BY
from refiners.authoring.outcome import Outcome
from refiners.authoring.package import Package
from refiners.hub.card import card_fields
from refiners.hub.client import Hub
from refiners.hub.documents import read_documents
from refiners.manifest.schema import AdapterSpec, Spec

_CARD: Final = "README.md"


def card_checks(package: Package, specs: Mapping[str, Spec], hub: Hub) -> Iterator[Outcome]:
    """Yields the fields that the cards lack by which the Hub finds adapters.

    Raises:
        NetworkError: The Hub does not answer.
    """
    repositories = {
        file.address: isinstance(spec, AdapterSpec)
        for spec in specs.values()
        for file in spec.weights.values()
        if file.scheme == "hf"
    }
    fix = f"refiners pin {package.path if package.is_folder else 'FOLDER'} --card {_CARD}"
    for repository, is_adapter in repositories.items():
        contents = hub.contents(repository)
        if _CARD not in contents.files:
            yield "warning", f"{repository} has no model card", f"{fix}, then hf upload"
            continue
        fields = card_fields(read_documents(hub, repository, contents, (_CARD,))[_CARD])
        needed = FOUND_BY if is_adapter else ("library_name", "license", "tags")
        if missing := [name for name in needed if not fields.get(name)]:
            yield "warning", f"the card of {repository} lacks {', '.join(missing)}", fix
