"""What may be fetched and run here: the rules of a project or a user, and published advisories.

Rules are in TOML files: the one that REFINERS_POLICY names, and `policy.toml` in the user's own
configuration folder. What one of them refuses is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NamedTuple

from refiners.catalog import SHIPPED, steadily
from refiners.choose.policy_rules import Advisories, Advisory, Policy, read_rules
from refiners.errors import PolicyError
from refiners.installed.distribution import canonical
from refiners.installed.inventory import Installed
from refiners.manifest.schema import WeightsFile
from refiners.manifest.version import is_within

VARIABLE: Final = "REFINERS_POLICY"
_SHIPPED: Final = SHIPPED / "advisories.toml"


class Refusal(NamedTuple):
    """What a rule has against a package or a file."""

    rule: str
    reason: str
    hint: str = ""


@dataclass(frozen=True)
class Guard:
    """The rules that hold here.

    Args:
        policies: Policy files by their paths.
        advisories: All that are known.
        is_locked: Whether a lock is in use: what was yanked since stays usable then.
    """

    policies: tuple[tuple[str, Policy], ...] = ()
    advisories: tuple[Advisory, ...] = ()
    is_locked: bool = False

    @classmethod
    def from_environment(cls, *, is_locked: bool = False) -> Guard:
        """Reads the rules of this project and user.

        Raises:
            PolicyError: A file of rules is damaged; nothing is allowed then.
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

    def package_refusals(self, plugin: Installed[Any]) -> Iterator[Refusal]:
        """Yields what speaks against a package, whatever it fetches."""
        if not plugin.dist:  # a repository of the Hub that no package names
            return
        for path, policy in self.policies:
            if rule := policy.packages.refuses(plugin.dist, canonical):
                yield Refusal(
                    f"packages.{rule} of {path}", f"the package {plugin.dist} is not allowed"
                )
        for one in self._about(plugin):
            if one.status == "blocked" or (one.status == "yanked" and not self.is_locked):
                lowest = f">={one.lowest}" if one.lowest else ""
                way_out = f"Run pip install -U '{plugin.dist}{lowest}'." if lowest else ""
                yield Refusal(
                    f"advisory {one.id}",
                    f"{plugin.dist} {plugin.version} is {one.status}: {one.reason}",
                    (one.instead and f"Use {one.instead}.") or way_out,
                )

    def file_refusals(self, file: WeightsFile) -> Iterator[Refusal]:
        """Yields what speaks against a file."""
        yield from self._source_refusals(file)
        for path, policy in self.policies:
            if rule := policy.licenses.refuses(file.license or "none"):
                said = f"its licence, {file.license}," if file.license else "that it has no licence"
                yield Refusal(f"licenses.{rule} of {path}", f"{said} is not allowed: {file}")
            largest = policy.files.max_size
            if largest and file.size and file.size > largest:
                reason = f"{file} has {file.size} bytes, allowed are {largest}"
                yield Refusal(f"files.max-size of {path}", reason)
            if file.format == "pickle" and not policy.files.pickles:
                yield Refusal(f"files.pickles of {path}", f"{file} is a pickle")
        for one in self.advisories:
            if (
                one.status != "deprecated"
                and not (one.status == "yanked" and self.is_locked)
                and _names(one, file)
            ):
                yield Refusal(f"advisory {one.id}", f"{file} is {one.status}: {one.reason}",
                              one.instead and f"Use {one.instead}.")  # fmt: skip

    def _source_refusals(self, file: WeightsFile) -> Iterator[Refusal]:
        for path, policy in self.policies:
            if file.scheme == "hf" and (rule := policy.organisations.refuses(file.organisation)):
                yield Refusal(f"organisations.{rule} of {path}", f"{file.source} is not allowed")

    def admit_source(self, file: WeightsFile) -> None:
        """Lets what is no weights pass, if the organisation that publishes it may.

        Raises:
            PolicyError: A rule refuses the organisation.
        """
        for one in self._source_refusals(file):
            raise PolicyError(f"{one.reason} ({one.rule}).", hint="Ask whoever keeps these rules.")

    def warnings(self, plugin: Installed[Any]) -> Iterator[str]:
        """Yields what a user of a package should know though nothing is refused."""
        for one in self._about(plugin):
            if one.status == "deprecated":
                instead = f" Use {one.instead}." if one.instead else ""
                yield f"{plugin.id} is deprecated ({one.id}): {one.reason}.{instead}"

    def admit(self, plugin: Installed[Any], files: Iterable[WeightsFile] = ()) -> None:
        """Lets a package and its files pass.

        Raises:
            PolicyError: A rule refuses them; the message names every such rule.
        """
        found = [*self.package_refusals(plugin)]
        found += [one for file in files for one in self.file_refusals(file)]
        if found:
            lines = "".join(f"\n  {one.reason} ({one.rule})" for one in found)
            hints = dict.fromkeys(one.hint for one in found if one.hint)
            raise PolicyError(
                f"{plugin.id} is refused:{lines}\n",
                hint=" ".join(hints) or "Ask whoever keeps these rules, or take another adapter.",
                dist=plugin.dist,
            )

    def _about(self, plugin: Installed[Any]) -> Iterator[Advisory]:
        name = canonical(plugin.dist)
        for one in self.advisories:
            is_about = one.package and fnmatchcase(name, canonical(one.package.strip()))
            if is_about and is_within(plugin.version, one.wanted) is not False:
                yield one  # which a version is meant by that cannot be compared


def _names(advisory: Advisory, file: WeightsFile) -> bool:
    if advisory.sha256:
        return advisory.sha256.strip().lower() == file.sha256.lower()
    if not advisory.repository or file.scheme != "hf":
        return False
    repository = advisory.repository.strip().lower().removeprefix("hf:")
    return repository.strip("/") == file.address.lower()  # the Hub has one name for all cases


def _policy_files() -> Iterator[Path]:
    if named := os.environ.get(VARIABLE):
        yield Path(named)
    import click

    own = Path(click.get_app_dir("refiners")) / "policy.toml"
    if _may_exist(own):
        yield own


def _may_exist(path: Path) -> bool:
    """Whether a file is there, or nobody can tell: rules that are out of sight still hold."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
