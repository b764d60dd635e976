"""The facts about files that a manifest pins: those that the Hub lists, and those on this disk."""

from __future__ import annotations

import hashlib
import os
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
_TEXTS: Final = ("json", "text")
"""The formats of files that are not weights."""
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
        format = str(table.get("format", ""))
        name = _file_in(contents, str(table.get("file", "")), repository, label, format)
        sha256 = self._sha256(repository, contents, name)
        _check_safe(contents, name, repository, label, format, sha256)
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
        named = str(PurePosixPath(source).with_suffix(_SAFE))
        raise _pickle(label, source, f'source = "{named}"', _typed(path), sha256_of(path))
    return Facts(None, None, sha256_of(path), path.stat().st_size, lambda: read_header(path))


def _typed(path: Path) -> str:
    """Returns a path as it is typed from the current folder."""
    current = Path.cwd()
    full = Path(os.path.abspath(path))  # resolve() would follow links
    return str(full.relative_to(current) if full.is_relative_to(current) else full)


def _file_in(contents: Contents, name: str, repository: str, label: str, format: str) -> str:
    """Returns the file that a table names, or the only safe one in the folder that it names."""
    if name in contents.files:
        return name
    folder = f"{name.rstrip('/')}/" if name else ""
    inside = [file for file in contents.files if file.startswith(folder)]
    safe = [file for file in inside if file.endswith(_SAFE)]
    if len(safe) == 1 and (not name or inside):
        return safe[0]
    pickles = [file for file in inside if file.endswith(PICKLES)]
    if not safe and len(pickles) == 1 and format not in _TEXTS:
        return pickles[0]  # the refusal of a pickle says how to convert it
    what = f"{repository}/{name}" if name else repository
    shown = safe or (inside if format in _TEXTS else pickles)
    if shown:
        names = ", ".join(sorted(shown)[:12]) + (", ..." if len(shown) > 12 else "")
        kind = " pickles and no safetensors file" if shown is pickles else ""
        raise OptionError(
            f"{label} needs one file, and {what} has {len(shown)}{kind}: {names}.",
            hint=f'Write file = "{sorted(shown)[0]}", and a table of its own for each other file.',
        )
    if format not in _TEXTS and (inside or not name):
        place = f"{folder}model.safetensors"
        send = quoted("hf", "upload", repository, "model.safetensors", place)
        raise OptionError(
            f"{label} needs a safetensors file, and {what} has none.",
            hint=f"Upload one; for a file model.safetensors in this folder: {send}",
        )
    known = ", ".join(sorted(contents.files)[:12]) or "no files"
    raise OptionError(
        f"{repository} has no file {name!r} at {contents.commit[:12]}; it has {known}.",
        hint=f"Correct file in {label}, or upload it: "
        f"{quoted('hf', 'upload', repository, name or 'FILE', name or 'FILE')}",
    )


def _check_safe(
    contents: Contents, name: str, repository: str, label: str, format: str, sha256: str
) -> None:
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
    raise _pickle(
        label, f"{repository}/{name}", f'file = "{twin}"', name, sha256, repository=repository
    )


def _pickle(
    label: str, where: str, named: str, local: str, sha256: str, *, repository: str = ""
) -> OptionError:
    """Returns the refusal of a pickle, with commands that work in the current folder.

    Args:
        label: The name of the file in messages.
        where: The pickle.
        named: The line of the manifest that names the converted file.
        local: The path of the pickle on this disk; in a repository, also its path there.
        sha256: The hash of the pickle.
        repository: The repository from which it is downloaded; empty for a file on this disk.
    """
    twin = str((PurePosixPath if repository else Path)(local).with_suffix(_SAFE))
    code = (
        "from refiners_core.weights import rewrite_pickle; "
        f"rewrite_pickle({local!r}, {twin!r}, sha256='{sha256}')"
    )
    steps = [quoted("python", "-c", code)]
    if repository:
        fetch = quoted("hf", "download", repository, local)
        steps = [f"{fetch} --local-dir .", *steps, quoted("hf", "upload", repository, twin, twin)]
    return OptionError(
        f"{label} is {where}, a pickle, which can run code when it is opened.",
        hint=f"Convert it, and write {named}: {' && '.join(steps)}",
    )
