"""Adapters that read a file of the user's: a path, or one file of a repository of the Hub.

The manifest of such an adapter has a `file` table and does not pin the weights: the user's file
takes the role `weights`. A commit in an address fixes the bytes; without one the first load
resolves the branch, and later loads use the same commit. A lock pins either kind by its hash.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from refiners.choose.lock import LockedPlugin, lock_command, named, read_lock
from refiners.choose.policy import Guard
from refiners.errors import LockError, MissingError, OptionError, PolicyError
from refiners.host.shell import quoted
from refiners.hub.client import Hub
from refiners.hub.tensor_header import read_header
from refiners.installed.inventory import Installed
from refiners.manifest.address import PREFIX, parse_address
from refiners.manifest.schema import LOCAL, UNKNOWN, AdapterSpec, Variant, WeightsFile
from refiners.sources.listing import contents_of, means

ROLE: Final = "weights"
"""The role of the file for the adapter."""
LABEL: Final = "file"
"""The name of the file among the adapter's weights."""
_SUFFIX: Final = ".safetensors"


class WithFile(Installed[AdapterSpec], frozen=True):
    """An installed adapter and the file that it reads."""

    given: str
    """The file as the user wrote it."""
    manifest: AdapterSpec
    """The adapter's table in the manifest, without the file."""

    @property
    def id(self) -> str:
        """The canonical name and the file, `refiners-lora:lora=style.safetensors`."""
        return f"{self.dist}:{self.name}={self.given}"

    @property
    def declared(self) -> AdapterSpec:
        """The adapter's table in the manifest."""
        return self.manifest


def check_file(adapter: Installed[AdapterSpec], file: object) -> None:
    """Checks that a file is given if and only if the adapter reads one.

    Raises:
        OptionError: The file is missing, unexpected, or neither a path nor an address.
    """
    if adapter.spec.file is None:
        if file is not None:
            raise OptionError(
                f"{adapter.name} takes no file: its manifest names its weights.",
                hint="Leave file= out.",
            )
    elif file is None:
        raise OptionError(
            f"{adapter.name} needs a file: {adapter.spec.file.summary}.",
            hint=f'Try load_adapter("{adapter.name}", model, file="style.safetensors").',
        )
    elif not isinstance(file, str | os.PathLike) or not os.fspath(file):
        raise OptionError(
            f"file is a path or hf:organisation/name@commit/file.safetensors, not {file!r}.",
            hint='Try file="style.safetensors".',
        )


def with_file(
    adapter: Installed[AdapterSpec],
    file: str | os.PathLike[str],
    hub: Hub,
    lock: str | Path | None = None,
    guard: Guard | None = None,
) -> WithFile:
    """Returns an adapter with the user's file among its weights, without a download.

    Args:
        adapter: An adapter whose manifest has a `file` table.
        file: A path, or `hf:organisation/name[@revision]/file.safetensors`.
        hub: The Hub, which is asked for the list of the repository unless a lock pins the file.
        lock: The lock file; None reads REFINERS_LOCK.
        guard: The policy rules, checked before the Hub is asked.

    Raises:
        OptionError: The file is missing, a folder, or of another kind.
        IntegrityError: The file is not a readable safetensors file.
        LockError: The lock does not name the file.
        NetworkError: The Hub does not list the repository.
        PolicyError: The file is a pickle, or a rule refuses the organisation.
    """
    check_file(adapter, file)
    given = os.fspath(file)
    path = named(lock)
    if path is not None:
        locked = read_lock(path).get("adapter", f"{adapter.dist}:{adapter.name}={given}")
        if locked is None:
            raise LockError(
                f"{adapter.name} with {given} is not in {path}.",
                hint=f"Run {lock_command(path, f'{adapter.name}={given}')}.",
                dist=adapter.dist,
            )
        return of_locked_file(adapter, locked, path)
    if given.startswith(PREFIX):
        return _joined(adapter, given, _of_repository(given, hub, guard))
    local = _checked(Path(given).expanduser())
    size = local.stat().st_size
    return _joined(adapter, given, WeightsFile(source=f"{LOCAL}:{given}", size=size))


def of_locked_file(adapter: Installed[AdapterSpec], locked: LockedPlugin, path: Path) -> WithFile:
    """Returns an adapter with the file that a lock pins, without asking the Hub.

    Raises:
        LockError: The lock does not pin the file that it names.
    """
    given = locked.id.partition("=")[2]
    file = next((file for file in locked.file if file.name == LABEL), None)
    is_local = not given.startswith(PREFIX)
    if (
        file is None
        or file.sha256 == UNKNOWN
        or not (file.source == f"{LOCAL}:{given}" if is_local else means(given, file))
    ):
        raise LockError(
            f"{path} does not pin the file of {locked.id}.",
            hint=f"Run {lock_command(path, f'{adapter.name}={given}')}.",
            dist=adapter.dist,
        )
    pinned = WeightsFile(
        source=file.source,
        file=file.file,
        revision=file.revision or UNKNOWN,
        sha256=file.sha256,
        size=file.size,
        license=file.license or "",
    )
    return _joined(adapter, given, pinned)


def located(adapter: Installed[AdapterSpec]) -> Installed[AdapterSpec]:
    """Makes the path of a local file absolute, so that the working folder may change later."""
    file = adapter.spec.weights.get(LABEL)
    if file is None or file.scheme != LOCAL:
        return adapter
    absolute = msgspec.structs.replace(file, source=f"{LOCAL}:{file.local_path.absolute()}")
    weights = {**adapter.spec.weights, LABEL: absolute}
    spec = msgspec.structs.replace(adapter.spec, weights=weights)
    return msgspec.structs.replace(adapter, spec=spec)


def _joined(adapter: Installed[AdapterSpec], given: str, file: WeightsFile) -> WithFile:
    spec = msgspec.structs.replace(
        adapter.spec,
        weights={**adapter.spec.weights, LABEL: file},
        variant=tuple(_with_role(variant) for variant in adapter.spec.variant),
    )
    return WithFile(
        adapter.name, adapter.dist, adapter.version, adapter.path, spec, given, adapter.spec
    )


def _with_role(variant: Variant) -> Variant:
    return msgspec.structs.replace(variant, weights={**variant.files, ROLE: LABEL})


def _checked(path: Path) -> Path:
    """Returns the path of a safetensors file."""
    if path.is_dir():
        raise OptionError(
            f"{path} is a folder.", hint=f"Name a file in it: {_some(_beside(path / 'any'))}."
        )
    if not path.is_file():
        names = _beside(path)
        close = get_close_matches(path.name, names, n=1)
        raise OptionError(
            f"the file {path} does not exist.",
            hint=f"Did you mean {quoted(path.with_name(close[0]))}?"
            if close
            else f"The folder {path.parent} has {_some(names)}."
            if path.parent.is_dir()
            else f"The folder {path.parent} does not exist either.",
        )
    _check_kind(str(path), path.suffix)
    read_header(path)
    return path


def _check_kind(name: str, suffix: str) -> None:
    from refiners_core.weights.pickle_file import PICKLES, rewriting_hint

    if suffix in PICKLES:
        raise PolicyError(
            f"{name} is a pickle, which could run any code; only safetensors files are read.",
            hint=rewriting_hint(name, f"{name.removesuffix(suffix)}{_SUFFIX}"),
        )
    if suffix != _SUFFIX:
        raise OptionError(
            f"{name} is not a safetensors file.", hint="Use a file that ends in .safetensors."
        )


def _beside(path: Path) -> list[str]:
    """Returns the names of the safetensors files in the folder of a path."""
    try:
        return sorted(file.name for file in path.parent.iterdir() if file.suffix == _SUFFIX)
    except OSError:
        return []


def _some(names: Iterable[str]) -> str:
    names = [*names]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") or "no safetensors files"


def _of_repository(given: str, hub: Hub, guard: Guard | None) -> WeightsFile:
    address = parse_address(given)
    if address.path:
        _check_kind(given, PurePosixPath(address.path).suffix)
    address, contents = contents_of(given, address, hub, guard)
    names = [name for name in contents.files if name.endswith(_SUFFIX)]
    if not address.path and len(names) != 1:
        example = f"{given}/{names[0]}" if names else "another repository"
        raise OptionError(
            f"{given} has {_some(names)}, but the adapter needs one file.", hint=f"Try {example}."
        )
    path = address.path or names[0]
    if path not in contents.files:
        close = get_close_matches(path, names, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"It has {_some(names)}."
        raise MissingError(f"{address.repository} has no file {path}.", hint=hint)
    entry = contents.files[path]
    return WeightsFile(
        source=f"{PREFIX}{address.repository}",
        file=path,
        revision=contents.commit,
        sha256=entry.sha256,
        size=entry.size,
        license=contents.license,
    )


def split_file(name: str) -> tuple[str, str | None]:
    """Splits `lora=style.safetensors`, the form on the shell and in locks, into name and file."""
    name, equals, file = name.partition("=")
    return name, file if equals else None
