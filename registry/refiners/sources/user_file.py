"""Adapters that read a file of the user's: a path, or one file of a repository of the Hub.

The manifest of such an adapter has a `file` table. The user's file takes the role `weights`, and
files that belong to it take theirs: a configuration, an image encoder, the parts of a large file. A
commit in an address fixes the bytes; without one the first load resolves the branch, and later
loads use the same commit. A lock pins all files by their hashes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from refiners.choose.lock import LockedPlugin, named, read_lock
from refiners.choose.policy import Guard
from refiners.errors import OptionError
from refiners.hub.client import Hub
from refiners.hub.shapes import header_of
from refiners.installed.inventory import Installed, Misfit
from refiners.manifest.file_layout import Choice
from refiners.manifest.pattern import LOCAL
from refiners.manifest.schema import AdapterSpec, Variant, WeightsFile
from refiners.recognition.recogniser import Evidence, Recognised, misfit
from refiners.sources.answer import choices_of
from refiners.sources.companion import LABEL, companions
from refiners.sources.given import is_file
from refiners.sources.links import linked
from refiners.sources.locked_file import locked_entry, locked_files
from refiners.sources.place import read_table
from refiners.sources.reader import ROLE, find_for, find_reader, judge, pin_of
from refiners.sources.recognition import short

if TYPE_CHECKING:
    from refiners_core import Source


class WithFile(Installed[AdapterSpec], frozen=True):
    """An installed adapter and the file that it reads."""

    given: str
    """The file as the user wrote it."""
    manifest: AdapterSpec
    """The adapter's table in the manifest, without the file."""
    recognised: Recognised | None = None
    """The layout of the file, if it decides which models the file suits."""

    @property
    def id(self) -> str:
        """The canonical name and the file, `refiners-lora:lora=style.safetensors`."""
        return f"{self.dist}:{self.name}={self.given}"

    @property
    def declared(self) -> AdapterSpec:
        """The adapter's table in the manifest."""
        return self.manifest

    def misfit(self, model: str, base: str | None, facts: Mapping[str, Any]) -> Misfit | None:
        """Returns why the file does not suit a model; None if nothing contradicts it."""
        if self.recognised is None or not (reason := misfit(self.recognised, base, facts)):
            return None
        bases = self.recognised.bases
        origin = self.recognised.trained_on
        hint = (
            f"Load a model of base {bases[0]}"
            if bases
            else f"Load the model that it was trained on, {origin}"
            if origin
            else "Load the model that it was made for"
        )
        heading = f"{short(self.given)} is {self.recognised}, not for {model}:"
        return Misfit(heading, reason, f"{hint}.")


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
        if not adapter.spec.file.optional:
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
    adapter: Installed[AdapterSpec] | None,
    file: str | os.PathLike[str],
    hub: Hub,
    lock: str | Path | None = None,
    guard: Guard | None = None,
    answers: Mapping[str, Any] | None = None,
) -> WithFile:
    """Returns an adapter with the user's file among its weights, without a download.

    Args:
        adapter: An adapter whose manifest has a `file` table; None for the one that reads the file.
        file: A path, or `hf:organisation/name[@revision][/path]`; a folder with one adapter too.
        hub: The Hub, which is asked for the list of the repository unless a lock pins the file, and
            for the header of the file.
        lock: The lock file; None reads REFINERS_LOCK.
        guard: The policy rules, checked before the Hub is asked.
        answers: Options, of which some answer what the file leaves open; None takes the files of
            every answer.

    Raises:
        OptionError: The file is missing or of another kind, or leaves something open.
        AmbiguousNameError, NotInstalledError, UnsupportedError: Not exactly one installed adapter
            reads the file.
        IntegrityError: The file is not a readable safetensors file.
        LockError: The lock does not name the file.
        NetworkError: The Hub does not list the repository, or does not send the header.
        PolicyError: The file is a pickle without a pin, or a rule refuses the organisation.
    """
    if adapter is not None:
        check_file(adapter, file)
    given = os.fspath(file)
    if path := named(lock):
        reader, locked = locked_entry(read_lock(path), path, adapter, given)
        files = locked_files(locked, path, reader.name)
        if pin := pin_of(reader, files[LABEL].sha256):
            return _with_pin(reader, given, files[LABEL], pin)
        evidence = _locked_evidence(files, hub)
        recognised = None if evidence is None else judge(reader, given, evidence)
        return _joined(reader, given, files, recognised, answers)
    match = (
        find_reader(given, hub, guard) if adapter is None else find_for(adapter, given, hub, guard)
    )
    main = match.file.file
    if match.pin is not None:
        return _with_pin(match.adapter, given, main, match.pin)
    files = {LABEL: main} | dict(companions(match, hub, guard, answers or {}))
    return _joined(match.adapter, given, files, match.recognised, answers)


def of_locked_file(adapter: Installed[AdapterSpec], locked: LockedPlugin, path: Path) -> WithFile:
    """Returns an adapter with the files that a lock pins, without asking the Hub.

    Raises:
        LockError: The lock does not pin the file that it names.
    """
    given = locked.id.partition("=")[2]
    return _joined(adapter, given, locked_files(locked, path, adapter.name), None, None)


def located(adapter: Installed[AdapterSpec]) -> Installed[AdapterSpec]:
    """Makes the paths of local files absolute, so that the working folder may change later."""
    weights = {
        label: msgspec.structs.replace(file, source=f"{LOCAL}:{file.local_path.absolute()}")
        if file.scheme == LOCAL
        else file
        for label, file in adapter.spec.weights.items()
    }
    spec = msgspec.structs.replace(adapter.spec, weights=weights)
    return msgspec.structs.replace(adapter, spec=spec)


def split_file(name: str) -> tuple[str, str | None]:
    """Splits `lora=style.safetensors`, the form on the shell and in locks, into name and file.

    The name is empty for a file without a named reader, and the file is None for a name.
    """
    head, equals, file = name.partition("=")
    if equals and not is_file(head):
        return head, file
    return ("", name) if is_file(name) else (name, None)


def with_parts(source: Source, files: Mapping[str, WeightsFile], receipts: Path) -> Source:
    """Returns a source in which the parts of a large file lie beside their index.

    A verified file may be one of another repository with the same bytes and another name.

    Args:
        source: The paths of the files by role.
        files: The files by role.
        receipts: The folder of the receipts; a folder of links may be created beside it.
    """
    names = {
        role: PurePosixPath(files[role].file or files[role].address).name
        for role in source.files
        if role == ROLE or role.startswith(f"{ROLE}-")
    }
    index = source.files.get(ROLE)
    paths = {role: source.files[role] for role in names}
    if index is None or len(names) == 1 or all(
        path == index.with_name(names[role]) for role, path in paths.items()
    ):  # fmt: skip
        return source
    folder = linked({names[role]: path for role, path in paths.items()}, receipts)
    return replace(source, files={**source.files, ROLE: folder / names[ROLE]})


def _joined(
    adapter: Installed[AdapterSpec],
    given: str,
    files: Mapping[str, WeightsFile],
    recognised: Recognised | None,
    answers: Mapping[str, Any] | None,
) -> WithFile:
    """Returns an adapter whose variants read the files of a user."""
    roles = {_role(label): label for label in files}
    choices = [*choices_of(adapter, given, recognised, answers)]
    spec = msgspec.structs.replace(
        adapter.spec,
        weights={**adapter.spec.weights, **files},
        variant=tuple(
            _with_roles(variant, roles, recognised, choices, is_open=answers is None)
            for variant in adapter.spec.variant
        ),
    )
    return _made(adapter, spec, given, recognised)


def _with_roles(
    variant: Variant,
    roles: Mapping[str, str],
    recognised: Recognised | None,
    choices: list[Choice],
    *,
    is_open: bool,
) -> Variant:
    """Returns a variant that reads the files of a user.

    Where the answers are open, the files of every answer get a role.
    """
    weights, settings, facts = dict(variant.files), dict(variant.settings), dict(variant.facts)
    if recognised is not None:
        weights |= recognised.layout.weights
        settings |= recognised.layout.settings
        facts = {name: fact for name, fact in facts.items() if name not in recognised.facts}
    for number, choice in enumerate(choices):
        settings |= choice.settings
        weights |= {
            f"{role}-{number}" if number and is_open else role: name
            for role, name in choice.weights.items()
        }
    return msgspec.structs.replace(
        variant, weights={**weights, **roles}, settings=settings, facts=facts
    )


def _with_pin(
    adapter: Installed[AdapterSpec], given: str, file: WeightsFile, pin: WeightsFile
) -> WithFile:
    """Returns an adapter with only the variants that use a pinned file, which the user named."""
    joined = msgspec.structs.replace(
        pin, source=file.source, file=file.file, revision=file.revision, size=file.size
    )
    using = tuple(
        msgspec.structs.replace(variant, weights={**variant.files, ROLE: LABEL})
        for variant in adapter.spec.variant
        if adapter.spec.weights.get(variant.files.get(ROLE, "")) == pin
    )
    spec = msgspec.structs.replace(
        adapter.spec, variant=using, weights={**adapter.spec.weights, LABEL: joined}
    )
    return _made(adapter, spec, given, None)


def _made(
    adapter: Installed[AdapterSpec], spec: AdapterSpec, given: str, recognised: Recognised | None
) -> WithFile:
    facts = (adapter.name, adapter.dist, adapter.version, adapter.path)
    return WithFile(*facts, spec, given, adapter.declared, recognised)


def _role(label: str) -> str:
    """Returns the role of a label: `file-encoder` is the encoder, `file-2` a part of the file."""
    rest = label.removeprefix(LABEL).removeprefix("-")
    return f"{ROLE}-{rest}" if rest.isdecimal() else rest or ROLE


def _locked_evidence(files: Mapping[str, WeightsFile], hub: Hub) -> Evidence | None:
    """Returns what is known of locked files; None if their header is not readable offline."""
    parts = [file for label, file in files.items() if _role(label).startswith(f"{ROLE}-")]
    shapes: dict[str, tuple[int, ...]] = {}
    metadata: dict[str, str] = {}
    for part in parts or [files[LABEL]]:
        header = header_of(part, hub)
        if header is None:
            return None
        shapes |= header
        metadata |= header.metadata
    config: dict[str, Any] = {}
    for label, file in files.items():
        if label != LABEL and file.format == "json":
            config |= read_table(file, hub)
    return Evidence(shapes, metadata, config)
