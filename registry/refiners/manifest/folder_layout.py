"""The table that describes the folders of a family of models, so that a folder finds its opener.

All patterns are of paths relative to the folder; `*` stands for any characters but a slash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from refiners.manifest.term import END, Fact

TOP: Final = "."
"""The folder itself, among the folders that have weights."""
_PART = r"(?!\.{1,2}(/|$))[^/\\:]+"
PathPattern = Annotated[
    str,
    Meta(
        pattern=rf"^{_PART}(/{_PART}){{0,3}}{END}",
        max_length=200,
        description='a path in the folder, with "*" for any characters but a slash',
    ),
]
Subfolder = Annotated[
    str,
    Meta(
        pattern=rf"^(\.|{_PART}(/{_PART}){{0,3}}){END}",
        description='the path of a folder, or "." for the whole',
    ),
]


class FolderTable(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab", kw_only=True
):
    """The folder in which the models of a family are published."""

    files: Annotated[tuple[PathPattern, ...], Meta(min_length=1, description="at least one path")]
    """Patterns of which each matches a file."""
    without: tuple[PathPattern, ...] = ()
    """Patterns that match no file."""
    fields: dict[PathPattern, dict[str, tuple[Fact, ...]]] = {}
    """By the path of a JSON file: its fields, and the values of which each has one."""
    texts: tuple[PathPattern, ...] = ()
    """The configurations and vocabularies to fetch from a repository, apart from indices."""
    weights: tuple[Subfolder, ...] = (TOP,)
    """The folders whose weights are read; those that a model lacks are left out."""

    @property
    def conditions(self) -> int:
        """The number of conditions; of two tables that fit, the one with more is meant."""
        return len(self.files) + len(self.without) + sum(map(len, self.fields.values()))

    def fits(self, names: Iterable[str]) -> bool:
        """Whether the names of the files in a folder fulfil the conditions on names.

        Args:
            names: Paths relative to the folder.
        """
        names = tuple(names)
        return all(any(is_path(name, pattern) for name in names) for pattern in self.files) and (
            not any(is_path(name, pattern) for name in names for pattern in self.without)
        )

    def has_fields(self, path: str, content: Mapping[str, Any]) -> bool:
        """Whether a JSON file fulfils the conditions on its fields.

        Args:
            path: The path of the file, as `fields` has it.
            content: Its content.
        """
        return all(content.get(field) in values for field, values in self.fields[path].items())


def is_path(name: str, pattern: str) -> bool:
    """Whether a path matches a pattern, whose stars do not match slashes.

    Example:
        >>> is_path("unet/config.json", "unet/*.json"), is_path("a/b.json", "*.json")
        (True, False)
    """
    names, patterns = name.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))
