"""The list of files of a repository: asked for once, and what a lock may have of it."""

from __future__ import annotations

import warnings

from refiners.choose.lock import LockedFile
from refiners.choose.policy import Guard
from refiners.errors import Notice, OptionError, RevisionError
from refiners.hub.client import Hub
from refiners.hub.metadata import Contents
from refiners.manifest.address import PREFIX, Address, is_commit, parse_address, readings
from refiners.manifest.schema import UNKNOWN, WeightsFile


def contents_of(
    what: str, address: Address, hub: Hub, guard: Guard | None = None
) -> tuple[Address, Contents]:
    """Returns the list of files of a repository as the Hub gave it at the first load.

    Args:
        what: The address as the user wrote it, for messages.
        address: The same, parsed.
        hub: Asked where this machine has not seen the repository yet.
        guard: The rules that hold, consulted before the Hub is asked.

    Returns:
        The address, read so that its revision exists, and the list.

    Raises:
        NetworkError, IntegrityError: The Hub does not say, or contradicts itself.
        PolicyError: A rule refuses the organisation.
    """
    wanted = WeightsFile(source=f"{PREFIX}{address.repository}", file="*")
    (guard or Guard()).admit_source(wanted)
    for reading in readings(address):
        if known := hub.receipts.contents(reading.repository, reading.revision):
            return reading, known
    address, contents = _ask(address, hub)
    hub.receipts.list(address.repository, address.revision, contents)
    if address.revision != contents.commit:
        warnings.warn(
            f"{what} is commit {contents.commit} and stays so on this machine; to say so "
            f"everywhere, write hf:{address.repository}@{contents.commit}.",
            Notice,
            stacklevel=6,
        )
    return address, contents


def _ask(address: Address, hub: Hub) -> tuple[Address, Contents]:
    """Asks for the first reading of an address of which there is a revision."""
    refusals: list[tuple[str, RevisionError]] = []
    for reading in readings(address):
        try:
            return reading, hub.contents(reading.repository, reading.revision)
        except RevisionError as error:
            refusals.append((reading.revision, error))
    first = refusals[0][1]
    if len(refusals) == 1:
        raise first
    raise RevisionError(
        f"{address.repository} has no revision {', nor '.join(name for name, _ in refusals)}.",
        hint=f"{first.hint} A slash in a revision may be written %2F.",
    ) from first


def means(what: str, file: LockedFile) -> bool:
    """Whether a locked file is pinned, and is one that an address means."""
    if not file.file or UNKNOWN in (file.revision or UNKNOWN, file.sha256):
        return False
    try:
        address = parse_address(what)
    except OptionError:
        return False
    return any(
        file.source == f"{PREFIX}{reading.repository}"
        and (reading.revision == file.revision or not is_commit(reading.revision))
        and (not reading.path or f"{file.file}/".startswith(f"{reading.path}/"))
        for reading in readings(address)
    )
