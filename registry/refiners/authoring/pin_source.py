"""The facts about files that a manifest pins: those that the Hub lists, and those on this disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from refiners.errors import MissingError, OptionError
from refiners.host.shell import quoted
from refiners.hub.client import Hub
from refiners.hub.documents import read_documents
from refiners.hub.metadata import Contents, Entry
from refiners.hub.receipts import sha256_of
from refiners.hub.tensor_header import read_header
from refiners.manifest.address import PREFIX, is_commit
from refiners.manifest.schema import UNKNOWN, WeightsFile

PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
"""The endings of files that can run code when they are opened."""
_SAFE: Final = ".safetensors"


class Facts(NamedTuple):
    """The pins of a file; None where the manifest needs none."""

    file: str | None
    revision: str | None
    sha256: str
    size: int
    header: Callable[[], Mapping[str, tuple[int, ...]]]
    """Reads the shapes of its tensors."""


class HubFiles:
    """The files of repositories at a revision; each list is asked for once.

    Args:
        hub: The Hub.
        revision: A branch, a tag or a commit; the main branch if empty, and then pins to a commit
            with the same bytes stay.
    """

    def __init__(self, hub: Hub, revision: str = "") -> None:
        self._hub: Final = hub
        self._revision: Final = revision
        self._lists: Final[dict[tuple[str, str], Contents]] = {}

    def facts(self, label: str, table: Mapping[str, Any]) -> Facts:
        """Returns the pins of a file of the Hub.

        Args:
            label: The name of the file in messages.
            table: The table of the file in the manifest.

        Raises:
            OptionError: The file is a pickle, or the table does not name one file.
            NetworkError, IntegrityError: The Hub does not answer, or contradicts itself.
        """
        repository = str(table["source"]).removeprefix(PREFIX)
        contents = self._contents(repository, self._revision or "main")
        name = _file_in(contents, str(table.get("file", "")), repository, label)
        _check_safe(contents, name, repository, label, str(table.get("format", "")))
        sha256 = self._sha256(repository, contents, name)
        commit = contents.commit
        pinned = table.get("revision")
        if (
            not self._revision
            and isinstance(pinned, str)
            and pinned != commit
            and is_commit(pinned)
            and table.get("sha256") == sha256
            and self._has(repository, pinned, name, contents.files[name])
        ):
            commit = pinned

        def header() -> Mapping[str, tuple[int, ...]]:
            file = WeightsFile(source=f"{PREFIX}{repository}", file=name, revision=contents.commit)
            return self._hub.header(file) or {}

        return Facts(name, commit, sha256, contents.files[name].size, header)

    def _contents(self, repository: str, revision: str) -> Contents:
        key = repository, revision
        if key not in self._lists:
            self._lists[key] = self._hub.contents(
                repository, UNKNOWN if revision == "main" else revision
            )
        return self._lists[key]

    def _sha256(self, repository: str, contents: Contents, name: str) -> str:
        entry = contents.files[name]
        if entry.sha256 != UNKNOWN:
            return entry.sha256
        # the Hub lists small texts by git's SHA-1, so their bytes are read, and compared with it
        content = read_documents(self._hub, repository, contents, (name,))[name]
        return hashlib.sha256(content).hexdigest()

    def _has(self, repository: str, commit: str, name: str, entry: Entry) -> bool:
        """Whether a commit still exists and has a file with the same bytes."""
        try:
            return self._contents(repository, commit).files.get(name) == entry
        except MissingError:
            return False


def facts_in_package(label: str, source: str, root: Path) -> Facts:
    """Returns the pins of a file that comes in the wheel.

    Args:
        label: The name of the file in messages.
        source: Its source in the manifest, `pkg:package/path`.
        root: The folder that has the package.

    Raises:
        OptionError: The file does not exist, or is a pickle.
    """
    path = root / source.removeprefix("pkg:")
    if not path.is_file():
        raise OptionError(
            f"{label} is {source}, and {path} does not exist.",
            hint="Put the file there, or correct source.",
        )
    if path.suffix in PICKLES:
        raise _pickle(label, str(path), sha256_of(path), "")
    return Facts(None, None, sha256_of(path), path.stat().st_size, lambda: read_header(path))


def _file_in(contents: Contents, name: str, repository: str, label: str) -> str:
    """Returns the file that a table names, or the only safe one in the folder that it names."""
    if name in contents.files:
        return name
    folder = f"{name.rstrip('/')}/" if name else ""
    inside = [file for file in contents.files if file.startswith(folder)]
    safe = [file for file in inside if file.endswith(_SAFE)]
    if len(safe) == 1 and (not name or inside):
        return safe[0]
    if safe or inside:
        shown = safe or inside
        names = ", ".join(sorted(shown)[:12]) + (", ..." if len(shown) > 12 else "")
        what = f"{repository}/{name}" if name else repository
        raise OptionError(
            f"{label} needs one file, and {what} has {len(shown)}: {names}.",
            hint=f'Write file = "{sorted(shown)[0]}", and a table of its own for each other file.',
        )
    known = ", ".join(sorted(contents.files)[:12]) or "no files"
    raise OptionError(
        f"{repository} has no file {name!r} at {contents.commit[:12]}; it has {known}.",
        hint=f"Correct file in {label}, or upload it: "
        f"{quoted('hf', 'upload', repository, name or 'FILE')}",
    )


def _check_safe(contents: Contents, name: str, repository: str, label: str, format: str) -> None:
    """Refuses a pickle.

    Raises:
        OptionError: The file is a pickle; the hint has the safe file to name, or how to make it.
    """
    path = PurePosixPath(name)
    if path.suffix not in PICKLES and format != "pickle":
        return
    twin = str(path.with_suffix(_SAFE))
    folder = [
        file for file in contents.files if str(PurePosixPath(file).parent) == str(path.parent)
    ]
    safe = [twin] if twin in folder else [file for file in folder if file.endswith(_SAFE)]
    if len(safe) == 1:
        raise OptionError(
            f"{label} is {repository}/{name}, a pickle, which can run code when it is opened; "
            f"the repository has {safe[0]}.",
            hint=f'Write file = "{safe[0]}", and no format.',
        )
    raise _pickle(label, f"{repository}/{name}", contents.files[name].sha256, repository)


def _pickle(label: str, where: str, sha256: str, repository: str) -> OptionError:
    name = PurePosixPath(where.replace("\\", "/")).name
    twin = str(PurePosixPath(name).with_suffix(_SAFE))
    code = (
        "from refiners_core.weights import rewrite_pickle; "
        f"rewrite_pickle('{name}', '{twin}', sha256='{sha256}')"
    )
    fetch = (
        f"{quoted('hf', 'download', repository, where[len(repository) + 1 :])} --local-dir . && "
    )
    send = f" && {quoted('hf', 'upload', repository, twin)}"
    convert = quoted("python", "-c", code)
    return OptionError(
        f"{label} is {where}, a pickle, which can run code when it is opened.",
        hint=f"Convert it, and name {twin}: "
        + (f"{fetch}{convert}{send}" if repository else convert),
    )
