"""The tables of policies and lists of advisories, and their readers."""

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
    """Allowed and denied names, with `*` for any characters; an empty `allow` allows all."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def refuses(
        self, name: str, spell: Callable[[str], str] = str.lower, *, group: str = ""
    ) -> str:
        """Returns the rule that refuses a name, `allow` or `deny`; empty if none does.

        Args:
            name: The name of a package, an organisation or a licence.
            spell: Normalises names and rules before they are compared.
            group: A group that the name belongs to, which rules may name in its place.
        """
        names = [spell(each) for each in (name, group) if each]

        def matches(rules: tuple[str, ...]) -> bool:
            patterns = [spell(rule.strip()) for rule in rules]
            return any(fnmatchcase(each, pattern) for each in names for pattern in patterns)

        if matches(self.deny):
            return "deny"
        return "allow" if self.allow and not matches(self.allow) else ""


class Files(_Table, frozen=True, kw_only=True):
    """Limits on files."""

    max_size: Annotated[int, Meta(gt=0)] | None = None
    """The maximum size of a fetched file in bytes."""
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
    """Additional lists of advisories, as paths relative to the policy file."""


class Advisory(_Table, frozen=True, kw_only=True):
    """A fault of a package or of weights that became known after they were published."""

    id: str
    reason: str
    status: Literal["blocked", "yanked", "deprecated"] = "blocked"
    package: str = ""
    versions: str = ""
    """The affected versions of the package, as PEP 440 specifiers; all by default."""
    lowest: str = ""
    """The lowest version of the package that is not affected."""
    repository: str = ""
    sha256: str = ""
    instead: str = ""
    """The replacement to use."""

    @property
    def wanted(self) -> str:
        """The affected versions as PEP 440 specifiers; empty for all."""
        return self.versions or (f"<{self.lowest}" if self.lowest else "")


class Advisories(_Table, frozen=True, kw_only=True):
    """A list of advisories."""

    schema: Annotated[int, Meta(ge=1, le=1)]
    advisory: tuple[Advisory, ...] = ()


def read_rules(path: Path, kind: type[T]) -> T:
    """Reads a policy or a list of advisories.

    Raises:
        PolicyError: The file is damaged.
    """
    try:
        return _rules_in(load_toml(path)[0], kind)
    except (OSError, ValueError, RecursionError) as error:  # a ValidationError is a ValueError
        raise _unreadable(path, error) from error


def parse_rules(content: bytes, kind: type[T], origin: str) -> T:
    """Parses the content of a policy or a list of advisories.

    Args:
        content: The bytes of the file.
        kind: `Policy` or `Advisories`.
        origin: The source of the bytes, for messages.

    Raises:
        PolicyError: The content is damaged.
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
        return "Fix the permissions, or set XDG_CONFIG_HOME to a folder of yours"
    return "Fix the file"
