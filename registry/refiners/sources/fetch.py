"""Fetches and verifies the files of a manifest, from a package, the Hub or a hook module."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from refiners.choose.policy import Guard
from refiners.errors import (
    CacheError,
    IntegrityError,
    MissingError,
    PolicyError,
)
from refiners.host.machine import machine_fault
from refiners.host.parallel import together
from refiners.hub.client import Hub
from refiners.hub.receipts import Receipts, check_header, sha256_of
from refiners.installed.distribution import distribution_of
from refiners.installed.inventory import Installed, package_file
from refiners.manifest.pattern import LOCAL
from refiners.manifest.schema import UNKNOWN, WeightsFile
from refiners.sources.hooked_file import fetch_hooked
from refiners_core.errors import Notice

if TYPE_CHECKING:
    from refiners_core import Source

K = TypeVar("K")

_AT_ONCE: Final = 4
"""How many files are fetched at the same time."""


def fetch_source(
    plugin: Installed[Any],
    roles: Mapping[str, str],
    variant: str,
    settings: Mapping[str, Any],
    *,
    offline: bool | None,
    guard: Guard,
) -> Source:
    """Fetches the files of one variant.

    Args:
        plugin: The adapter or model whose manifest names the files.
        roles: The name of the file in the manifest for each role.
        variant: The label of the variant, for messages.
        settings: The settings that the plugin gets with the files.
        offline: Whether to stay offline; None reads the environment.
        guard: The policy rules, checked before anything is fetched.

    Raises:
        NetworkError, IntegrityError, CacheError, PolicyError: A file cannot be fetched as pinned.

    Warns:
        Notice: The licence of a file forbids commercial use.
    """
    from refiners_core import Source

    weights: Mapping[str, WeightsFile] = plugin.spec.weights
    wanted = {role: weights[name] for role, name in roles.items()}
    guard.admit(plugin, wanted.values())
    announce_terms(plugin.id, wanted.values())
    hub = Hub.from_environment(offline, largest=guard.largest)
    return Source(fetch_all(wanted, hub, dist=plugin.dist), settings, variant)


def announce_terms(name: str, files: Iterable[WeightsFile]) -> None:
    """Warns of files whose licences forbid commercial use, before they are fetched.

    Args:
        name: The canonical name of the adapter or model that reads them.
        files: All of its files.

    Warns:
        Notice: The licence of a file forbids commercial use.
    """
    limited = [file for file in files if file.terms]
    if limited:
        named = ", ".join(
            f"{file} ({file.license or 'without a named licence'})" for file in limited
        )
        warnings.warn(
            f"{name} is for {limited[0].terms} use only, by the licence of {named}.",
            Notice,
            stacklevel=4,
        )


def fetch_all(
    files: Mapping[K, WeightsFile], hub: Hub, *, dist: str | None = None
) -> dict[K, Path]:
    """Fetches files that belong together, several at once.

    Raises:
        NetworkError, IntegrityError, CacheError, PolicyError: A file cannot be fetched as pinned;
            no further download is started.
        KeyboardInterrupt: The user pressed Ctrl-C; running downloads are cancelled.
    """
    jobs = {key: partial(fetch_file, file, hub, dist=dist) for key, file in files.items()}
    if len(files) == 1 or all(file.scheme == "pkg" for file in files.values()):
        return {key: job() for key, job in jobs.items()}
    return together(jobs, _AT_ONCE)


def fetch_file(file: WeightsFile, hub: Hub, *, dist: str | None = None) -> Path:
    """Returns the path of a verified file.

    Args:
        file: The source of the file and its pins.
        hub: The Hub, for a file that is not in a package.
        dist: The distribution whose manifest names the file, for messages.

    Returns:
        The path of the file; for a pickle, of its tensors, which are converted to safetensors once.

    Raises:
        NetworkError, IntegrityError, CacheError: The file cannot be fetched as pinned.
        PolicyError: The file is a pickle without a pinned hash.
        WeightsError: A pickle holds more than tensors, or torch is too old to read it.
    """
    if file.format == "pickle":
        return _rewritten(file, hub, dist)
    path = _bytes_of(file, hub, dist)
    if file.format == "safetensors":
        check_header(path, dist=dist)
    return path


def _bytes_of(file: WeightsFile, hub: Hub, dist: str | None) -> Path:
    if file.scheme == "hf":
        return hub.fetch(file, dist=dist)
    if file.scheme == "pkg":
        return _packaged(file, hub.receipts, dist)
    if file.scheme == LOCAL:
        return _local(file, hub.receipts)
    return fetch_hooked(file, hub, dist)


def _rewritten(file: WeightsFile, hub: Hub, dist: str | None) -> Path:
    """Returns the tensors of a pickle as safetensors; converts the pickle at the first call."""
    if file.sha256 == UNKNOWN:
        raise PolicyError(
            f"{file} is a pickle without a pinned hash, and could run any code.",
            hint="Use a variant in safetensors (refiners info NAME), or pin its sha256.",
            dist=dist,
        )
    receipts = hub.receipts
    target = receipts.folder.parent / "rewritten" / f"{file.sha256}.safetensors"
    known = receipts.rewriting(file.sha256)
    if known and target.exists() and receipts.verify(target, known):
        return target
    pickled = _bytes_of(file, hub, dist)

    from refiners_core.weights.pickle_file import rewrite_pickle

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(
            f"the tensors of {file} cannot be written to {target.parent}: {error}.",
            hint="Change its permissions, or set HF_HOME to a folder of yours.",
            dist=dist,
        ) from error
    rewrite_pickle(pickled, target, sha256=file.sha256)
    receipts.rewrite(file.sha256, sha256_of(target))
    return target


def _packaged(file: WeightsFile, receipts: Receipts, dist: str | None) -> Path:
    package, name = file.package_path
    reinstall = f"Try pip install --force-reinstall {distribution_of(package)}."
    try:
        path = package_file(package, name)
        is_pinned = path is not None and receipts.verify(path, file.sha256)
    except OSError as error:
        place = error.filename or f"the package {package}"
        fault = machine_fault(error, f"reading {name}", place=str(place))
        raise fault or CacheError(f"{place} cannot be read: {error}.") from error
    if path is None:
        raise IntegrityError(
            f"the package {package} has no file {name}.", hint=reinstall, dist=dist
        )
    if not is_pinned:
        raise IntegrityError(
            f"{path} does not have the sha256 that {dist or 'its manifest'} pins, {file.sha256}.",
            hint=reinstall,
            dist=dist,
        )
    return path


def _local(file: WeightsFile, receipts: Receipts) -> Path:
    path = file.local_path
    if not path.is_file():
        raise MissingError(
            f"the file {path} no longer exists.", hint="Restore it, or load another."
        )
    if file.sha256 != UNKNOWN and not receipts.verify(path, file.sha256):
        raise IntegrityError(
            f"{path} does not have the locked sha256, {file.sha256}.",
            hint="Restore the locked file, or accept this one: refiners lock.",
        )
    return path
