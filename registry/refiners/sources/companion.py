"""The files that belong to a user's file: parts, a configuration, an image encoder."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, Final

from refiners.choose.policy import Guard
from refiners.errors import OptionError
from refiners.hub.client import Hub
from refiners.manifest.schema import WeightsFile
from refiners.recognition.recogniser import Evidence, Facts, fits_shapes
from refiners.sources.answer import answers_in
from refiners.sources.given import candidates, locate, pickle_refusal, some
from refiners.sources.place import INDEX, PICKLES, Place, header_at, shards_of
from refiners.sources.reader import Found

LABEL: Final = "file"
"""The name of a user's file among the adapter's weights; `file-ROLE` for those that belong to it,
`file-1`, `file-2`, ... for its parts."""


def companions(
    match: Found, hub: Hub, guard: Guard | None, options: Mapping[str, Any]
) -> Iterator[tuple[str, WeightsFile]]:
    """Yields the files that belong to a user's file, by their labels.

    Args:
        match: The file.
        hub: The Hub, for files that lie there.
        guard: The policy rules.
        options: The options of the user, which may name a file by its role.

    Raises:
        RefinersError: A file that the user names does not exist, or is refused.
    """
    file, table = match.file, match.adapter.spec.file
    answers = answers_in(table, options) if table is not None else {}
    if file.name.endswith(INDEX):
        for number, shard in enumerate(shards_of(file.place, file.name, hub), 1):
            yield f"{LABEL}-{number}", file.place.file(shard)
    facts: Facts = match.recognised.facts if match.recognised is not None else {}
    for role, companion in table.beside.items() if table is not None else ():
        if (path := answers.get(role)) is not None:
            yield f"{LABEL}-{role}", _named_by_user(os.fspath(path), hub, guard)
            continue
        folder = posixpath.dirname(file.name)
        for candidate in companion.files:
            name = posixpath.normpath(posixpath.join(folder, candidate))
            if file.place.has(name) and _has_shapes(file.place, name, companion.shapes, facts, hub):
                yield f"{LABEL}-{role}", file.place.file(name)
                break


def _has_shapes(place: Place, name: str, wanted: Mapping[str, Any], facts: Facts, hub: Hub) -> bool:
    if not wanted:
        return True
    header = header_at(place, name, hub)
    return header is not None and fits_shapes(wanted, Evidence(header), facts) is not None


def _named_by_user(given: str, hub: Hub, guard: Guard | None) -> WeightsFile:
    place, name = locate(given, hub, guard)
    if not name:
        names = [path for level in candidates(place)[:1] for path in level]
        if len(names) != 1:
            raise OptionError(f"{given} has {some(names)}.", hint="Name one of its files.")
        name = names[0]
    if name.endswith(PICKLES):
        raise pickle_refusal(given)
    return place.file(name)
