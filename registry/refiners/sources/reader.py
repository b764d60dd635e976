"""Finds the installed adapter that reads a file, or the reason why none does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from refiners.choose.policy import Guard
from refiners.errors import (
    AmbiguousNameError,
    IntegrityError,
    NotInstalledError,
    OfflineError,
    OptionError,
    PolicyError,
    RefinersError,
    UnsupportedError,
)
from refiners.host.shell import quoted
from refiners.hub.client import Hub
from refiners.hub.receipts import sha256_of
from refiners.installed.inventory import Installed, scan
from refiners.manifest.pattern import LOCAL
from refiners.manifest.schema import UNKNOWN, AdapterSpec, WeightsFile
from refiners.recognition.recogniser import Evidence, Recognised, recognise
from refiners.sources.given import (
    GivenFile,
    candidates,
    check_not_model,
    examine,
    locate,
    pickle_refusal,
    some,
)
from refiners.sources.place import PICKLES, LocalPlace, Place
from refiners.sources.recognition import (
    UnknownKindError,
    identify_kind,
    known_bases,
    reader_of,
    refusal,
    short,
    unknown,
)

ROLE: Final = "weights"
"""The role of a user's file for the adapter."""
_MOST: Final = 16
"""The most files of a folder or a repository whose headers are read to find the adapter in it."""


_REFUSALS: Final = (
    *(AmbiguousNameError, NotInstalledError, UnsupportedError),
    *(IntegrityError, PolicyError),
)
"""The errors about one file of a folder that leave the choice of another one open."""


class Found(NamedTuple):
    """A file of a user, the adapter that reads it, and how it was recognised."""

    file: GivenFile
    adapter: Installed[AdapterSpec]
    recognised: Recognised | None = None
    """The layout of the file; None where the user named the reader, or a manifest pins the file."""
    pin: WeightsFile | None = None
    """The file as the manifest of the adapter pins it."""


def find_reader(given: str, hub: Hub, guard: Guard | None = None) -> Found:
    """Finds a file and the installed adapter that reads it.

    Args:
        given: A path, or an address on the Hub; of a file, or of a folder with one adapter.
        hub: The Hub, for the header of a file there.
        guard: The policy rules, checked before the Hub is asked.

    Raises:
        OptionError, MissingError: The file does not exist, or a folder has several adapters.
        AmbiguousNameError: Two installed adapters read such files; the error names both.
        NotInstalledError: A published adapter reads it; the hint installs it.
        UnsupportedError: No adapter reads it, or its reader refuses this layout; the message has
            the kind of file.
        PolicyError: The file is a pickle that no manifest pins.
    """
    place, name = locate(given, hub, guard)
    if name:
        return _identified(examine(given, place, name, hub))
    check_not_model(given, place)
    levels = candidates(place)
    refusals: list[RefinersError] = []
    for level in levels:
        if len(level) > _MOST:
            raise OptionError(
                f"{given} has {len(level)} files of weights: {some(level)}.",
                hint=f'Name one: load_adapter("{place.written(level[0])}", model).',
            )
        matches: list[Found] = []
        for path in level:
            try:
                matches.append(_identified(examine(given, place, path, hub)))
            except _REFUSALS as error:
                refusals.append(error)
        if len(matches) == 1:
            return matches[0]
        if matches:
            readable = [match.file.name for match in matches]
            raise OptionError(
                f"{given} has several files that an adapter reads: {some(readable)}.",
                hint=f'Name one: load_adapter("{place.written(readable[0])}", model).',
            )
    if (error := _telling(refusals)) is not None:
        raise error
    names = [path for level in levels for path in level]
    raise UnsupportedError(
        f"{given} has no file that an installed adapter reads; it has {some(names)}.",
        hint=f"To see what one is: refiners info {place.written(names[0])}"
        if names
        else "Name a folder or a repository with a safetensors file.",
    )


def find_for(
    adapter: Installed[AdapterSpec], given: str, hub: Hub, guard: Guard | None = None
) -> Found:
    """Finds a file for an adapter that the user named.

    Raises:
        OptionError, MissingError: The file does not exist, or a folder has several files.
        UnsupportedError: The file is of a kind that another reader knows, or that this one refuses.
        PolicyError: The file is a pickle that no manifest pins.
    """
    place, name = locate(given, hub, guard)
    if not name:
        name = _only_file(given, adapter, place, hub)
    file = examine(given, place, name, hub)
    if pinned := _pinned(file, (adapter,)):
        return pinned
    if file.name.endswith(PICKLES):
        raise pickle_refusal(file.written)
    if file.header is None:  # offline, and not on this machine: fetching it raises the error
        return Found(file, adapter)
    return Found(file, adapter, judge(adapter, given, file.evidence))


def judge(adapter: Installed[AdapterSpec], given: str, evidence: Evidence) -> Recognised | None:
    """Returns how an adapter reads a file; None if no layout decides, so that its code has to.

    Raises:
        UnsupportedError: The adapter refuses the layout, or the file is of another kind.
    """
    if adapter.spec.file is None or not adapter.spec.file.layout:
        return None
    fits = recognise(evidence, [reader_of(adapter)], known_bases())
    if fits and fits[0].layout.refuses:
        raise refusal(given, fits)
    if fits:
        return fits[0]
    if evidence.kind == adapter.name:
        return None
    what = adapter.spec.file.what or adapter.name
    others = identify_kind(evidence)
    if not others or (others[0].reader.kind == "known" and str(others[0]).startswith(f"{what} (")):
        return None
    problem = f"which {adapter.name} does not read" if others[0].what == what else f"not {what}"
    raise UnsupportedError(
        f"{short(given)} is {others[0]}, {problem}.",
        hint=f'Try load_adapter("{given}", model).'
        if others[0].is_readable
        else f"Give {adapter.spec.file.summary}.",
        dist=adapter.dist,
    )


def _identified(file: GivenFile) -> Found:
    inventory = scan()
    if pinned := _pinned(file, inventory.adapters):
        return pinned
    if file.header is None:
        if file.name.endswith(PICKLES):
            raise pickle_refusal(file.written)
        raise OfflineError(
            f"{file.given} is not on this machine, so its kind is unknown offline.",
            hint=f"Go online once: {quoted('refiners', 'fetch', file.given)}.",
        )
    kind = file.evidence.kind
    trained = [it for it in inventory.adapters if it.name == kind and it.spec.file is not None]
    if len(trained) == 1:
        return Found(file, trained[0], judge(trained[0], file.given, file.evidence))
    fits = identify_kind(file.evidence)
    readable = [fit for fit in fits if fit.is_readable]
    if len(readable) == 1:
        plugins = (plugin for plugin in inventory.adapters if plugin.id == readable[0].reader.id)
        return Found(file, next(plugins), readable[0])
    if readable:
        ids = [fit.reader.id for fit in readable]
        names = " and ".join(ids)
        raise AmbiguousNameError(
            f"{short(file.given)} is {readable[0]}, which {len(ids)} adapters read: {names}.",
            hint=f'Name one: load_adapter("{ids[0]}", model, file="{file.given}").',
        )
    raise refusal(file.given, fits) if fits else unknown(file.given, file.evidence)


def _telling(refusals: Sequence[RefinersError]) -> RefinersError | None:
    """Returns the error about one file of a folder that speaks for all of it; None without one.

    A file of a known kind goes before pickles, and these before files of unknown kinds, such as the
    head of a classifier.
    """
    for error in refusals:
        if len(refusals) == 1 or isinstance(error, AmbiguousNameError):
            return error
    known = [error for error in refusals if not isinstance(error, UnknownKindError)]
    pickles = [error for error in known if isinstance(error, PolicyError)]
    named = [error for error in known if error not in pickles]
    if len(named) == 1:
        return named[0]
    return pickles[0] if pickles and not named else None


def pin_of(adapter: Installed[AdapterSpec], sha256: str) -> WeightsFile | None:
    """Returns the file that a manifest pins by a hash as the weights of its adapter."""
    names = {variant.files.get(ROLE) for variant in adapter.declared.variant}
    pins = (file for name, file in adapter.declared.weights.items() if name in names)
    return None if sha256 == UNKNOWN else next((pin for pin in pins if pin.sha256 == sha256), None)


def _pinned(file: GivenFile, adapters: Sequence[Installed[AdapterSpec]]) -> Found | None:
    """Returns the adapter whose manifest pins the bytes of a file as its weights."""
    sha256 = file.file.sha256
    if file.header is None and file.file.scheme == LOCAL:
        sha256 = sha256_of(file.file.local_path)
    for plugin in adapters:
        if pin := pin_of(plugin, sha256):
            return Found(file, plugin, pin=pin)
    return None


def _only_file(given: str, adapter: Installed[AdapterSpec], place: Place, hub: Hub) -> str:
    """Returns the file of a folder that an adapter reads.

    Raises:
        OptionError: The folder has none, or several.
    """
    check_not_model(given, place)
    names = [name for level in candidates(place) for name in level]
    fitting = names
    for level in candidates(place):
        fitting = [name for name in level if _may_read(adapter, given, place, name, hub)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            break
    if isinstance(place, LocalPlace):
        hint = f"Name a file in it: {some(fitting or names)}."
        raise OptionError(f"{given} is a folder.", hint=hint)
    example = place.written((fitting or names)[0]) if names else "another repository"
    raise OptionError(
        f"{given} has {some(fitting or names)}, but the adapter needs one file.",
        hint=f"Try {example}.",
    )


def _may_read(
    adapter: Installed[AdapterSpec], given: str, place: Place, name: str, hub: Hub
) -> bool:
    if adapter.spec.file is None or not adapter.spec.file.layout:
        return not name.endswith(PICKLES)
    try:
        evidence = examine(given, place, name, hub).evidence
    except IntegrityError:
        return False
    fits = recognise(evidence, [reader_of(adapter)], known_bases())
    return bool(fits) and not fits[0].layout.refuses
