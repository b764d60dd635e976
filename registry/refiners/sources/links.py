"""Verified files of a repository under their own names, in a folder that holds nothing else.

The cache of huggingface_hub may have files of the same commit that nobody verified, so what is
loaded from is not its folder but one of links to the files that were.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from uuid import uuid4

from refiners.errors import CacheError
from refiners.host.shell import quoted

_SEVERAL: Final = "folders"


def linked(files: Mapping[str, Path], receipts: Path) -> Path:
    """Returns a folder in which each file has its name.

    Args:
        files: Verified files by their paths in the repository.
        receipts: The folder of the receipts; the folder of links is made beside it.

    Raises:
        CacheError: It cannot be made, or holds a file that nobody verified.
    """
    # resolved, for one content may have several names in the cache, any of which is as good
    names = "\n".join(f"{name}\t{path.resolve()}" for name, path in sorted(files.items()))
    folder = receipts.parent / _SEVERAL / hashlib.sha256(names.encode()).hexdigest()[:32]
    try:
        for name, path in files.items():
            _link(folder / name, path)
        # names that begin with a dot are links that another process is just making
        there = (path for path in folder.rglob("[!.]*") if not path.is_dir())
        others = {path.relative_to(folder).as_posix() for path in there} - files.keys()
    except OSError as error:
        raise CacheError(
            f"no link to a verified file can be made in {folder}: {error}.",
            hint="Mend its permissions, or set HF_HOME to a folder of yours.",
        ) from error
    if others:
        raise CacheError(
            f"{folder} holds files that nobody verified: {', '.join(sorted(others))}.",
            hint=f"Remove it: {quoted('rm', '-r', folder)}",
        )
    return folder


def _link(link: Path, file: Path) -> None:
    if link.exists() and link.samefile(file):
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".{link.name}.{uuid4().hex}")  # others may be doing the same
    try:
        temporary.symlink_to(file)
    except OSError:  # Windows asks for a right that few have; a second name of the file needs none
        os.link(file.resolve(), temporary)
    temporary.replace(link)
    temporary.unlink(missing_ok=True)  # which stays where both are names of the same file
