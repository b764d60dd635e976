"""The errors of the registry, from a name to verified weights; all derive from `RefinersError`.

Each has a `code` for programs, a `hint` to type, the `dist` at fault and an `exit_code`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from refiners_core.errors import GLOSSARY, Notice, RefinersError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "AccessError",
    "AmbiguousNameError",
    "CacheError",
    "CatalogError",
    "DeprecationNotice",
    "FaultyEntry",
    "IncompatibleError",
    "IntegrityError",
    "LockError",
    "MachineError",
    "ManifestError",
    "MissingError",
    "NetworkError",
    "NotInstalledError",
    "Notice",
    "OfflineError",
    "OptionError",
    "PluginError",
    "PolicyError",
    "PublisherNotice",
    "RefinersError",
    "RejectedCandidate",
    "SettingError",
    "UnknownNameError",
    "UnsupportedError",
]

_MANY: Final = 100
"""The number of faults that the error of a manifest prints."""


class FaultyEntry(Protocol):
    """An entry of a manifest that breaks the schema; `str()` of it is its line in the error."""

    @property
    def place(self) -> tuple[str | int, ...]:
        """The keys and list positions that lead to the value."""
        ...

    @property
    def what(self) -> str:
        """The fault in words."""
        ...

    @property
    def hint(self) -> str:
        """The correction to write; empty if unknown."""
        ...

    @property
    def line(self) -> int | None:
        """The line of the nearest key, from 1; None where the text has no such line."""
        ...


class RejectedCandidate(Protocol):
    """A variant that does not suit a model; `str()` of it is its line in the error."""

    @property
    def candidate(self) -> str:
        """The adapter and its variant."""
        ...

    @property
    def reason(self) -> str:
        """Why it does not suit."""
        ...

    @property
    def hint(self) -> str:
        """The next step for the user; empty if there is none."""
        ...

    @property
    def rule(self) -> str:
        """The rule or the advisory that refuses it; empty if none does."""
        ...


class UnknownNameError(RefinersError):
    """No installed or published adapter or model has this name."""

    code = "name-unknown"
    exit_code = 2
    page = f"{GLOSSARY}#short-name"


class NotInstalledError(RefinersError):
    """The name is known, but the distribution that provides it is not installed."""

    code = "not-installed"
    exit_code = 2
    page = f"{GLOSSARY}#catalog"


class AmbiguousNameError(RefinersError):
    """Several installed distributions provide this short name."""

    code = "name-ambiguous"
    exit_code = 2
    page = f"{GLOSSARY}#short-name"
    choices: tuple[str, ...] = ()
    """The canonical names, of which each leads to one distribution."""


class OptionError(RefinersError):
    """An argument has an invalid value; nothing was loaded."""

    code = "option"
    exit_code = 2


class SettingError(RefinersError):
    """A setting of this machine blocks requests to the Hub: an address, a proxy, certificates."""

    code = "setting"
    exit_code = 2


class UnsupportedError(RefinersError):
    """The feature is designed, but this version does not have it."""

    code = "unsupported"
    exit_code = 2


class ManifestError(RefinersError):
    """A manifest breaks its schema; `faults` lists every fault.

    Args:
        path: The manifest.
        faults: The faults, in the order of the file.
        dist: The distribution that ships it.
    """

    code = "manifest"
    page = f"{GLOSSARY}#manifest"

    def __init__(
        self, path: Path, faults: tuple[FaultyEntry, ...], *, dist: str | None = None
    ) -> None:
        lines = "\n".join(f"  {fault}" for fault in faults[:_MANY])
        lines += f"\n  and {len(faults) - _MANY} more" if len(faults) > _MANY else ""
        super().__init__(
            f"{path} is not a valid manifest:\n{lines}\n",
            hint="Fix the manifest, or install a good version of the package.",
            dist=dist,
        )
        self.path = path
        self.faults = faults


class PluginError(RefinersError):
    """The code of a plugin failed during import or construction; the cause is attached."""

    code = "plugin"
    page = f"{GLOSSARY}#plugin"


class IncompatibleError(RefinersError):
    """An adapter has no variant that suits a model; `trace` lists the reason for each candidate.

    Args:
        message: The adapter and the model.
        trace: Every candidate with the reason and the hint of its refusal.
        dist: The distribution that provides the adapter.
    """

    code = "incompatible"
    page = f"{GLOSSARY}#variant"

    def __init__(
        self, message: str, trace: tuple[RejectedCandidate, ...], *, dist: str | None
    ) -> None:
        lines = "\n".join(f"  {rejected}" for rejected in trace)
        super().__init__(f"{message}\n{lines}", dist=dist)
        self.trace = trace


class NetworkError(RefinersError):
    """The Hub could not be reached, or the connection broke."""

    code = "network"
    exit_code = 3


class OfflineError(NetworkError):
    """A file is not on this machine, and network access is disabled."""

    code = "offline"


class AccessError(NetworkError):
    """The Hub requires a token, or the acceptance of a licence, for a file."""

    code = "access"


class MissingError(NetworkError):
    """The Hub does not have the repository, the revision or the file."""

    code = "missing"


class RevisionError(MissingError):
    """The repository does not have the commit, branch or tag."""


class MachineError(RefinersError):
    """This machine lacks a resource, such as memory; neither a package nor the Hub is at fault."""

    code = "machine"


class CacheError(MachineError):
    """A file on this machine cannot be written or read: a full disk, or missing permissions."""

    code = "cache"


class CatalogError(RefinersError):
    """The catalog, or a release to be added to it, is damaged or inconsistent."""

    code = "catalog"
    page = f"{GLOSSARY}#catalog"


class IntegrityError(RefinersError):
    """The bytes of a file, or what a server announces about them, differ from their pins."""

    code = "integrity"
    exit_code = 4
    page = f"{GLOSSARY}#pin"


class LockError(RefinersError):
    """The installed packages differ from the lock, or the lock file is damaged."""

    code = "lock"
    exit_code = 4
    page = f"{GLOSSARY}#lock"


class PolicyError(RefinersError):
    """A policy or an advisory forbids the request."""

    code = "policy"
    exit_code = 4
    page = f"{GLOSSARY}#policy"


class PublisherNotice(Notice):
    """A package has another attested publisher than an earlier version of it."""


class DeprecationNotice(Notice, DeprecationWarning):
    """An advisory recommends a replacement for a package that still works."""
