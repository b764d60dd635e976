"""Searches the Hub for adapters of a base model, by the cards of their repositories."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from refiners.hub.client import Hub
from refiners.hub.errors import explained, patiently, shown_cause, unavailable
from refiners.hub.metadata import SEARCH
from refiners.manifest.address import PREFIX
from refiners.manifest.schema import WeightsFile

MOST: Final = 50
"""The most results of a search."""
_BASE: Final = "base_model:"
_LICENCE: Final = "license:"


class HubMatch(NamedTuple):
    """A repository that a search found."""

    name: str
    bases: tuple[str, ...]
    """The repositories of the base models that its card names."""
    license: str
    downloads: int

    @property
    def address(self) -> str:
        """The address by which it is loaded."""
        return f"{PREFIX}{self.name}"


def find_on_hub(hub: Hub, words: str, bases: Iterable[str] = ()) -> tuple[HubMatch, ...]:
    """Returns the repositories of adapters that match words, the most downloaded first.

    Args:
        hub: The Hub.
        words: The words of the name; all adapters if empty.
        bases: The repositories of a base model, of which the card names one; any if empty.

    Raises:
        NetworkError: The Hub does not answer.
        OfflineError: Going online is forbidden.
    """
    wanted = WeightsFile(source=f"{PREFIX}{words or 'adapters'}", file=SEARCH)
    if hub.is_offline:
        raise unavailable(wanted, None, hub.cache, None)
    matches: dict[str, HubMatch] = {}
    for base in (*bases,) or (None,):
        filters = None if base is None else f"{_BASE}adapter:{base}"
        try:
            for model in patiently(lambda filters=filters: _listed(hub, words, filters)):
                match = _match(model)
                matches.setdefault(match.name, match)
        except Exception as error:
            raise explained(error, wanted, hub.endpoint, None) from shown_cause(error)
    return tuple(sorted(matches.values(), key=lambda match: (-match.downloads, match.name)))[:MOST]


def _listed(hub: Hub, words: str, filters: str | None) -> list[Any]:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    return [*api.list_models(search=words or None, filter=filters, sort="downloads", limit=MOST)]


def _match(model: Any) -> HubMatch:
    tags = [tag for tag in model.tags or () if isinstance(tag, str)]
    bases = (tag.removeprefix(_BASE) for tag in tags if tag.startswith(_BASE))
    licences = (tag.removeprefix(_LICENCE) for tag in tags if tag.startswith(_LICENCE))
    named = dict.fromkeys(base.removeprefix("adapter:") for base in bases)
    return HubMatch(str(model.id), tuple(named), next(licences, ""), int(model.downloads or 0))
