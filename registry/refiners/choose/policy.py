"""Applies policies of projects and users, and published advisories, to packages and files.

Policies are TOML files: the one that REFINERS_POLICY names, and `policy.toml` in the configuration
folder of the user. A refusal by any of them is final.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from refiners.catalog import SHIPPED, steadily
from refiners.choose.policy_rules import Advisories, Advisory, Policy, read_rules
from refiners.errors import PolicyError
from refiners.installed.distribution import canonical
from refiners.installed.inventory import Installed
from refiners.manifest.schema import WeightsFile
from refiners.manifest.version import is_within

VARIABLE: Final = "REFINERS_POLICY"
_SHIPPED: Final = SHIPPED / "advisories.toml"


class Package(Protocol):
    """An adapter, a model or a command of a package."""

    @property
    def dist(self) -> str:
        """The distribution; empty for a repository of the Hub."""
        ...

    @property
    def version(self) -> str:
        """Its version."""
        ...

    @property
    def id(self) -> str:
        """The canonical name, for messages."""
        ...


class Refusal(NamedTuple):
    """A rule that refuses a package or a file, with the reason."""

    rule: str
    reason: str
    hint: str = ""


@dataclass(frozen=True)
class Guard:
    """The policies and advisories that apply on this machine.

    Args:
        policies: The policy files with their paths.
        advisories: All known advisories.
        is_locked: Whether a lock is in use, which keeps yanked packages and files usable.
    """

    policies: tuple[tuple[str, Policy], ...] = ()
    advisories: tuple[Advisory, ...] = ()
    is_locked: bool = False

    @classmethod
    def from_environment(cls, *, is_locked: bool = False) -> Guard:
        """Reads the policies of this project and user, and the known advisories.

        Raises:
            PolicyError: A policy or a list of advisories is damaged; nothing is allowed then.
        """
        policies = tuple((str(path), read_rules(path, Policy)) for path in _policy_files())
        named = [Path(path).parent / name for path, rules in policies for name in rules.advisories]

        def read(places: tuple[Path, ...]) -> tuple[Advisory, ...]:
            lists = [_SHIPPED]
            lists += [path for place in places if _may_exist(path := place / _SHIPPED.name)]
            paths = dict.fromkeys((*lists, *named))
            return tuple(a for path in paths for a in read_rules(path, Advisories).advisory)

        return cls(policies, tuple(dict.fromkeys(steadily(read))), is_locked)

    @property
    def largest(self) -> int | None:
        """The largest file that may be fetched, in bytes; None for any."""
        sizes = [policy.files.max_size for _, policy in self.policies if policy.files.max_size]
        return min(sizes, default=None)

    def package_refusals(self, plugin: Package) -> Iterator[Refusal]:
        """Yields the refusals of a package, regardless of its files."""
        if not plugin.dist:  # a repository of the Hub, which has no package
            return
        for path, policy in self.policies:
            if rule := policy.packages.refuses(plugin.dist, canonical):
                yield Refusal(
                    f"packages.{rule} of {path}", f"the package {plugin.dist} is not allowed"
                )
        for advisory in self.about(plugin):
            if advisory.status == "blocked" or (advisory.status == "yanked" and not self.is_locked):
                lowest = f">={advisory.lowest}" if advisory.lowest else ""
                way_out = f"Run pip install -U '{plugin.dist}{lowest}'." if lowest else ""
                yield Refusal(
                    f"advisory {advisory.id}",
                    f"{plugin.dist} {plugin.version} is {advisory.status}: {advisory.reason}",
                    (advisory.instead and f"Use {advisory.instead}.") or way_out,
                )

    def file_refusals(self, file: WeightsFile) -> Iterator[Refusal]:
        """Yields the refusals of a file."""
        yield from self._source_refusals(file)
        for path, policy in self.policies:
            if rule := policy.licenses.refuses(file.license or "none", group=file.terms):
                subject = f"its licence, {file.license}," if file.license else "a missing licence"
                subject += f" for {file.terms} use only," if file.terms else ""
                yield Refusal(f"licenses.{rule} of {path}", f"{subject} is not allowed: {file}")
            largest = policy.files.max_size
            if largest and file.size and file.size > largest:
                reason = f"{file} has {file.size} bytes, the limit is {largest}"
                yield Refusal(f"files.max-size of {path}", reason)
            if file.format == "pickle" and not policy.files.pickles:
                yield Refusal(f"files.pickles of {path}", f"{file} is a pickle")
        for advisory in self.advisories:
            if (
                advisory.status != "deprecated"
                and not (advisory.status == "yanked" and self.is_locked)
                and names_file(advisory, file)
            ):
                reason = f"{file} is {advisory.status}: {advisory.reason}"
                hint = advisory.instead and f"Use {advisory.instead}."
                yield Refusal(f"advisory {advisory.id}", reason, hint)

    def _source_refusals(self, file: WeightsFile) -> Iterator[Refusal]:
        for path, policy in self.policies:
            if file.scheme == "hf" and (rule := policy.organisations.refuses(file.organisation)):
                yield Refusal(f"organisations.{rule} of {path}", f"{file.source} is not allowed")

    def admit_source(self, file: WeightsFile) -> None:
        """Checks only the organisation that publishes a file, for files other than weights.

        Raises:
            PolicyError: A rule refuses the organisation.
        """
        for refusal in self._source_refusals(file):
            message = f"{refusal.reason} ({refusal.rule})."
            raise PolicyError(message, hint="Ask the maintainer of these rules.")

    def warnings(self, plugin: Installed[Any]) -> Iterator[str]:
        """Yields the notices on a package that is deprecated but allowed."""
        for advisory in self.about(plugin):
            if advisory.status == "deprecated":
                instead = f" Use {advisory.instead}." if advisory.instead else ""
                yield f"{plugin.id} is deprecated ({advisory.id}): {advisory.reason}.{instead}"

    def admit(self, plugin: Package, files: Iterable[WeightsFile] = ()) -> None:
        """Checks a package and its files.

        Raises:
            PolicyError: A rule refuses them; the message names every such rule.
        """
        refusals = [*self.package_refusals(plugin)]
        refusals += [refusal for file in files for refusal in self.file_refusals(file)]
        if refusals:
            lines = "".join(f"\n  {refusal.reason} ({refusal.rule})" for refusal in refusals)
            hints = dict.fromkeys(refusal.hint for refusal in refusals if refusal.hint)
            raise PolicyError(
                f"{plugin.id} is refused:{lines}\n",
                hint=" ".join(hints)
                or "Ask the maintainer of these rules, or choose another adapter.",
                dist=plugin.dist,
            )

    def about(self, plugin: Package) -> Iterator[Advisory]:
        """Yields the advisories on a package, of any status."""
        name = canonical(plugin.dist)
        for advisory in self.advisories:
            is_about = advisory.package and fnmatchcase(name, canonical(advisory.package.strip()))
            if is_about and is_within(plugin.version, advisory.wanted) is not False:
                yield advisory  # also for versions that cannot be compared


def names_file(advisory: Advisory, file: WeightsFile) -> bool:
    """Whether an advisory is about a file, by its hash or its repository."""
    if advisory.sha256:
        return advisory.sha256.strip().lower() == file.sha256.lower()
    if not advisory.repository or file.scheme != "hf":
        return False
    repository = advisory.repository.strip().lower().removeprefix("hf:")
    return repository.strip("/") == file.address.lower()  # the Hub ignores case


def _policy_files() -> Iterator[Path]:
    if named := os.environ.get(VARIABLE):
        yield Path(named)
    import click

    path = Path(click.get_app_dir("refiners")) / "policy.toml"
    if _may_exist(path):
        yield path


def _may_exist(path: Path) -> bool:
    """Whether a file exists or is inaccessible: an unreadable policy still applies."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
