"""Links the verified files of a repository into a folder that holds nothing else.

The cache of huggingface_hub may hold unverified files of the same commit, so models are not loaded
from its folder but from a folder of links to the verified files.
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

_FOLDERS: Final = "folders"


def linked(files: Mapping[str, Path], receipts: Path) -> Path:
    """Returns a folder in which each file has its path in the repository.

    Args:
        files: Verified files by their paths in the repository.
        receipts: The folder of the receipts; the folder of links is created beside it.

    Raises:
        CacheError: The folder cannot be created, or holds an unverified file.
    """
    # resolved, because one content may have several equivalent names in the cache
    names = "\n".join(f"{name}\t{path.resolve()}" for name, path in sorted(files.items()))
    folder = receipts.parent / _FOLDERS / hashlib.sha256(names.encode()).hexdigest()[:32]
    try:
        for name, path in files.items():
            _link(folder / name, path)
        # names that begin with a dot are links that another process is creating
        present = (path for path in folder.rglob("[!.]*") if not path.is_dir())
        others = {path.relative_to(folder).as_posix() for path in present} - files.keys()
    except OSError as error:
        raise CacheError(
            f"no link to a verified file can be created in {folder}: {error}.",
            hint="Change its permissions, or set HF_HOME to a folder of yours.",
        ) from error
    if others:
        raise CacheError(
            f"{folder} holds unverified files: {', '.join(sorted(others))}.",
            hint=f"Remove it: {quoted('rm', '-r', folder)}",
        )
    return folder


def _link(link: Path, file: Path) -> None:
    if link.exists() and link.samefile(file):
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(
        f".{link.name}.{uuid4().hex}"
    )  # unique, because other processes may do the same
    try:
        temporary.symlink_to(file)
    except OSError:  # Windows requires a rare privilege for symbolic links, but none for hard links
        os.link(file.resolve(), temporary)
    temporary.replace(link)
    temporary.unlink(missing_ok=True)  # replace() leaves it if both are hard links to one file
