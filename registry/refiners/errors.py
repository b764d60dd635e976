"""What can go wrong between a name and verified weights; branches of the one tree of errors.

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
    "RefinersError",
    "RejectedCandidate",
    "SettingError",
    "UnknownNameError",
    "UnsupportedError",
]

_MANY: Final = 100
"""How many faults of a manifest its error prints."""


class FaultyEntry(Protocol):
    """An entry of a manifest that breaks the schema; `str()` of it is its line in the error."""

    @property
    def place(self) -> tuple[str | int, ...]:
        """The keys and list positions that lead to the value."""
        ...

    @property
    def what(self) -> str:
        """The fault."""
        ...

    @property
    def hint(self) -> str:
        """What to write instead, or nothing."""
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
        """What to do about it, or nothing."""
        ...

    @property
    def rule(self) -> str:
        """The rule or the advisory that refuses it, or nothing."""
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


class OptionError(RefinersError):
    """An argument has a value that is not understood; nothing was loaded."""

    code = "option"
    exit_code = 2


class SettingError(RefinersError):
    """A setting of this machine keeps requests from the Hub: an address, a proxy, certificates."""

    code = "setting"
    exit_code = 2


class UnsupportedError(RefinersError):
    """What was asked for is designed, but not in this version."""

    code = "unsupported"
    exit_code = 2


class ManifestError(RefinersError):
    """A manifest breaks its schema; `faults` has every fault that was found.

    Args:
        path: The manifest.
        faults: What is wrong, in the order of the file.
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
            hint="Mend the manifest, or install a good version of the package.",
            dist=dist,
        )
        self.path = path
        self.faults = faults


class PluginError(RefinersError):
    """A plugin's own code failed while it was imported or built; the cause is attached."""

    code = "plugin"
    page = f"{GLOSSARY}#plugin"


class IncompatibleError(RefinersError):
    """An adapter has no variant that suits a model; `trace` says why, candidate by candidate.

    Args:
        message: Which adapter does not suit which model.
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
    """The Hub could not be reached, or broke off."""

    code = "network"
    exit_code = 3


class OfflineError(NetworkError):
    """A file is not here and going online was forbidden."""

    code = "offline"


class AccessError(NetworkError):
    """The Hub wants a token, or the acceptance of a licence, before it hands out a file."""

    code = "access"


class MissingError(NetworkError):
    """The Hub does not know the repository, the revision or the file."""

    code = "missing"


class RevisionError(MissingError):
    """The repository has no such commit, branch or tag."""


class MachineError(RefinersError):
    """This machine lacks something, memory for instance; no package is at fault, nor the Hub."""

    code = "machine"


class CacheError(MachineError):
    """A file on this machine cannot be written or read: disk full, or somebody else's."""

    code = "cache"


class CatalogError(RefinersError):
    """The catalog, or what should be added to it, is no good."""

    code = "catalog"
    page = f"{GLOSSARY}#catalog"


class IntegrityError(RefinersError):
    """Bytes, or what a server announces about them, differ from what the manifest pins."""

    code = "integrity"
    exit_code = 4
    page = f"{GLOSSARY}#pin"


class LockError(RefinersError):
    """What is installed is not what was locked, or the lock file is no good."""

    code = "lock"
    exit_code = 4
    page = f"{GLOSSARY}#lock"


class PolicyError(RefinersError):
    """A rule forbids what was asked for, however intact it is."""

    code = "policy"
    exit_code = 4
    page = f"{GLOSSARY}#policy"


class DeprecationNotice(Notice, DeprecationWarning):
    """An advisory says that something should be replaced; it still works."""
