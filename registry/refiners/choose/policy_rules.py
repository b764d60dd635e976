"""The tables of a policy and of a list of advisories, and the files that they are read from."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from refiners.errors import PolicyError
from refiners.manifest.toml import decoded, load_toml, parse_toml
from refiners.manifest.version import specifiers

T = TypeVar("T")


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab", kw_only=True):
    """A table of a policy or of a list of advisories."""


class Names(_Table, frozen=True, kw_only=True):
    """Names that are allowed and denied, with `*` for any letters; an empty `allow` allows all."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def refuses(self, name: str, spell: Callable[[str], str] = str.lower) -> str:
        """Returns the rule that refuses a name, or nothing.

        Args:
            name: Of a package, an organisation or a licence.
            spell: Brings names and rules to the one spelling in which they are compared.
        """
        name = spell(name)
        if any(fnmatchcase(name, spell(rule.strip())) for rule in self.deny):
            return "deny"
        if self.allow and not any(fnmatchcase(name, spell(rule.strip())) for rule in self.allow):
            return "allow"
        return ""


class Files(_Table, frozen=True, kw_only=True):
    """What files may be."""

    max_size: Annotated[int, Meta(gt=0)] | None = None
    """The largest that may be fetched, in bytes."""
    pickles: bool = True
    """Whether pinned pickles may be opened."""


class Policy(_Table, frozen=True, kw_only=True):
    """One policy file."""

    schema: Annotated[int, Meta(ge=1, le=1)]
    packages: Names = Names()
    organisations: Names = Names()
    licenses: Names = Names()
    files: Files = Files()
    advisories: tuple[str, ...] = ()
    """More lists of advisories, as paths beside the policy file."""


class Advisory(_Table, frozen=True, kw_only=True):
    """Something that was found out about a package or about weights after they were published."""

    id: str
    reason: str
    status: Literal["blocked", "yanked", "deprecated"] = "blocked"
    package: str = ""
    versions: str = ""
    """Which versions of the package, as PEP 440 has it; all by default."""
    lowest: str = ""
    """The lowest version of the package that is good."""
    repository: str = ""
    sha256: str = ""
    instead: str = ""
    """What to use in its place."""

    @property
    def wanted(self) -> str:
        """The versions that are meant, as PEP 440 has it; empty for all."""
        return self.versions or (f"<{self.lowest}" if self.lowest else "")


class Advisories(_Table, frozen=True, kw_only=True):
    """A list of advisories."""

    schema: Annotated[int, Meta(ge=1, le=1)]
    advisory: tuple[Advisory, ...] = ()


def read_rules(path: Path, kind: type[T]) -> T:
    """Reads a policy or a list of advisories.

    Raises:
        PolicyError: It is damaged.
    """
    try:
        return _rules_in(load_toml(path)[0], kind)
    except (OSError, ValueError, RecursionError) as error:  # a ValidationError is a ValueError
        raise _unreadable(path, error) from error


def parse_rules(content: bytes, kind: type[T], origin: str) -> T:
    """Does what `read_rules` does, for what was read from elsewhere.

    Raises:
        PolicyError: It is damaged.
    """
    try:
        return _rules_in(parse_toml(decoded(content)), kind)
    except (ValueError, RecursionError) as error:
        raise _unreadable(origin, error) from error


def _rules_in(table: dict[str, Any], kind: type[T]) -> T:
    rules = msgspec.convert(table, kind)
    if isinstance(rules, Advisories):
        for advisory in rules.advisory:
            specifiers(advisory.wanted)
    return rules


def _unreadable(origin: Path | str, error: Exception) -> PolicyError:
    what = str(error).replace("\n", " ").removeprefix("cannot be read: ")
    return PolicyError(
        f"the rules in {origin} cannot be read: {what}.",
        hint=f"{_way_out(error)}; until then nothing is fetched.",
    )


def _way_out(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "Mend the permissions, or set XDG_CONFIG_HOME to a folder of yours"
    return "Mend the file"
