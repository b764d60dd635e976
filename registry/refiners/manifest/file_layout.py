"""The tables that describe the files of an adapter or a model, so that a header finds its reader.

A layout states conditions on the header of a safetensors file: names of tensors, shapes, metadata,
and fields of the JSON files beside it. A file has the layout if all conditions hold.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from refiners.manifest.term import END, Fact, Name

ANY: Final = "*"
"""A dimension of any size."""
REST: Final = "..."
"""Any number of further dimensions, at the end of a shape."""

Pattern = Annotated[
    str,
    Meta(
        pattern=rf"^[^*\n]*(\*[^*\n]*){{0,6}}{END}",
        min_length=1,
        max_length=200,
        description='the name of a tensor, with up to six "*" for any characters',
    ),
]
Size = Annotated[
    int | str | tuple[int, ...],
    Meta(
        description='a number, a list of numbers, the name of a fact, "*" for any, '
        'or "..." for all further dimensions'
    ),
]
_PART = r"(?!\.{1,2}(/|$))[^/\\:*]+"
CompanionFile = Annotated[
    str,
    Meta(
        pattern=rf"^(\.\./)?{_PART}(/{_PART})*{END}",
        description="a path relative to the folder of the file",
    ),
]


class _Table(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename="kebab",
    kw_only=True,
    omit_defaults=True,  # so that keys added by later versions leave digests unchanged
):
    """A table of a manifest."""


class Layout(_Table, frozen=True, kw_only=True):
    """One layout of a file, and what an adapter needs beside a file of this layout."""

    name: str
    """The name of the layout in messages, such as `kohya`."""
    what: str = ""
    """The kind of file in words, such as `a LoHa`; that of the whole table by default."""
    base: Name | None = None
    """The base of every file of this layout; None if facts or metadata decide."""
    keys: tuple[Pattern, ...] = ()
    """Patterns of which each matches a tensor."""
    any: tuple[Pattern, ...] = ()
    """Patterns of which one matches a tensor."""
    without: tuple[Pattern, ...] = ()
    """Patterns that match no tensor."""
    shapes: dict[Pattern, tuple[Size, ...]] = {}
    """The shape of all tensors with a name, of which there is at least one."""
    metadata: dict[str, Pattern] = {}
    """Keys of the header's metadata and patterns of their values."""
    config: dict[str, Fact] = {}
    """Fields of a `config.json` or `adapter_config.json` beside the file, and their values."""
    weights: dict[Name, Name] = {}
    """The names of pinned files by role, in place of those of the variant."""
    settings: dict[str, Any] = {}
    """Settings in place of those of the variant."""
    asks: tuple[Name, ...] = ()
    """The names in `asks` that a user of such a file decides."""
    refuses: str = ""
    """Why the adapter cannot read such a file, as the end of a sentence; empty if it can."""

    @property
    def conditions(self) -> int:
        """The number of conditions; of two layouts that fit, the one with more is meant.

        A shape counts twice: the tensor exists, and has these sizes.
        """
        several = (self.keys, self.without, self.metadata, self.config)
        return bool(self.any) + 2 * len(self.shapes) + sum(map(len, several))


class Companion(_Table, frozen=True, kw_only=True):
    """A file that belongs to another one and lies beside it, such as an image encoder."""

    files: Annotated[tuple[CompanionFile, ...], Meta(min_length=1, description="at least one path")]
    """The places to look at, in order."""
    shapes: dict[Pattern, tuple[Size, ...]] = {}
    """The shapes that the right file has; a word stands for a fact of the main file."""


class Choice(_Table, frozen=True, kw_only=True):
    """One answer to a question that a file leaves open."""

    weights: dict[Name, Name] = {}
    settings: dict[str, Any] = {}


class Ask(_Table, frozen=True, kw_only=True):
    """A question that a file leaves open, answered by an option of `load_adapter`."""

    summary: str
    choices: Annotated[dict[Name, Choice], Meta(min_length=1, description="at least one choice")]
    default: Name | None = None
    """The answer that is assumed; None if the user has to choose."""


class FileTable(_Table, frozen=True, kw_only=True):
    """The layouts of the files of an adapter or a model."""

    what: str = ""
    """The kind of file in words, such as `a LoRA`."""
    layout: tuple[Layout, ...] = ()
    methods: dict[Annotated[str, Meta(min_length=1)], tuple[Pattern, ...]] = {}
    """Kinds of file in words, such as `a DoRA`, that any layout may have, and the patterns of
    tensors of which one suffices; the first counts, before `what`."""
    facts: dict[Annotated[str, Meta(min_length=1)], dict[Pattern, int]] = {}
    """Facts that shapes show: the axis of the tensors that match a pattern."""
    values: dict[Annotated[str, Meta(min_length=1)], tuple[str, ...]] = {}
    """Numbers that `info` prints: patterns of one-element tensors, `metadata:KEY`,
    `metadata:KEY:FIELD` for a field of JSON text, or `config:FIELD`."""


class UserFile(FileTable, frozen=True, kw_only=True):
    """The file that an adapter reads and the user names: a path, or a file of a Hub repository."""

    summary: str
    """A description of the file, such as `a LoRA in any of the layouts that trainers write`."""
    optional: bool = False
    """Whether the adapter has pinned weights, which a file of the user replaces."""
    beside: dict[Name, Companion] = {}
    """The files that belong to the user's file, by role."""
    asks: dict[Name, Ask] = {}
