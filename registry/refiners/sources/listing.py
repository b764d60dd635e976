"""The list of files of a repository, asked for once, and compared with a lock."""

from __future__ import annotations

import warnings

from refiners.choose.lock import LockedFile
from refiners.choose.policy import Guard
from refiners.errors import Notice, OptionError, RevisionError
from refiners.hub.client import Hub
from refiners.hub.metadata import ALL_FILES, Contents
from refiners.manifest.address import PREFIX, Address, is_commit, parse_address, readings
from refiners.manifest.schema import UNKNOWN, WeightsFile


def contents_of(
    what: str, address: Address, hub: Hub, guard: Guard | None = None
) -> tuple[Address, Contents]:
    """Returns the list of files of a repository as the Hub sent it at the first load.

    Args:
        what: The address as the user wrote it, for messages.
        address: The parsed address.
        hub: The Hub, which is asked if this machine has no list of the repository yet.
        guard: The policy rules, checked before the Hub is asked.

    Returns:
        The address, read so that its revision exists, and the list.

    Raises:
        NetworkError, IntegrityError: The Hub does not answer, or contradicts itself.
        PolicyError: A rule refuses the organisation.
    """
    wanted = WeightsFile(source=f"{PREFIX}{address.repository}", file=ALL_FILES)
    (guard or Guard()).admit_source(wanted)
    for reading in readings(address):
        if known := hub.receipts.contents(reading.repository, reading.revision):
            return reading, known
    address, contents = _ask(address, hub)
    hub.receipts.list(address.repository, address.revision, contents)
    if address.revision != contents.commit:
        warnings.warn(
            f"{what} is pinned to commit {contents.commit} on this machine; to pin it everywhere, "
            f"write hf:{address.repository}@{contents.commit}.",
            Notice,
            stacklevel=6,
        )
    return address, contents


def _ask(address: Address, hub: Hub) -> tuple[Address, Contents]:
    """Asks for each reading of an address until one has a revision that exists."""
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
        hint=f"{first.hint} A slash in a revision can be written as %2F.",
    ) from first


def means(what: str, file: LockedFile) -> bool:
    """Whether a locked file is pinned and belongs to an address."""
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
