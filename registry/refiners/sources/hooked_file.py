"""Fetches a file whose source has a scheme of a hook module, which a package brings."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from refiners.errors import (
    IntegrityError,
    NetworkError,
    Notice,
    OfflineError,
    PluginError,
    RefinersError,
    UnsupportedError,
)
from refiners.host.text import reason_of
from refiners.hub.client import Hub
from refiners.installed.hook_modules import load_hooks
from refiners.manifest.schema import WeightsFile
from refiners_core.hookspecs import WeightRequest, culprit, manager

_HOOK = "fetch_weights"


def fetch_hooked(file: WeightsFile, hub: Hub, dist: str | None) -> Path:
    """Returns the verified path of a file, as a hook module fetched it.

    A hook that fails does not keep others from the request: it may not be the one that it is for.

    Args:
        file: The file, with a scheme that the registry does not know, and its hash.
        hub: The record of verified files, and whether going online is forbidden.
        dist: The distribution whose manifest names the file, for messages.

    Raises:
        UnsupportedError: No installed hook module fetches such files.
        OfflineError: No hook module had the file, and going online is forbidden.
        NetworkError: The hook that fetches them got no answer.
        PluginError: That hook failed, or returned something other than the path of a file.
        IntegrityError: The file does not have the pinned hash.

    Warns:
        Notice: Another hook failed.
    """
    if known := hub.verified_file(file):
        return known
    load_hooks()
    event = WeightRequest(file.source, file.file or "", file.revision, hub.is_offline)
    returned, failures = _ask(event)
    if returned is None and failures:
        raise _explained(file, *failures[-1]) from failures[-1][1]
    if returned is None:
        raise _unanswered(file, hub, dist)
    for name, error in failures:
        warnings.warn(
            f"the hook {_HOOK} of {name} failed and is skipped: "
            f"{type(error).__name__}: {reason_of(error)}",
            Notice,
            stacklevel=2,
        )
    path = _path(returned, file)
    if not hub.receipts.verify(path, file.sha256):
        raise IntegrityError(
            f"{path} does not have the sha256 that {dist or 'its manifest'} pins, {file.sha256}.",
            hint=f"It was fetched for {file}; nothing was loaded.",
            dist=dist,
        )
    return path


def _ask(event: WeightRequest) -> tuple[Any, list[tuple[str, BaseException]]]:
    """Asks all hook modules but those that fail; returns the first result, and the failures."""
    hooks, failures = manager(), list[tuple[str, BaseException]]()
    failed: list[Any] = []
    while True:
        try:
            return hooks.subset_hook_caller(_HOOK, failed)(event=event), failures
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # including SystemExit of a plugin
            name = culprit(error)
            if not name:
                raise
            failures.append((name, error))
            failed.append(hooks.get_plugin(name))


def _explained(file: WeightsFile, name: str, error: BaseException) -> RefinersError:
    dist = name.partition(":")[0]
    if isinstance(error, RefinersError):
        return type(error)(error.message, hint=error.hint, dist=error.dist or dist)
    what = f"{file} could not be fetched by the hooks {name}"
    reason = f"{type(error).__name__}: {reason_of(error)}"
    if isinstance(error, OSError):
        hint = "Check the network and the settings of that package, then try again."
        return NetworkError(f"{what}: {reason}.", hint=hint, dist=dist)
    hint = f"Try pip install -U {dist}, or report it to its author."
    return PluginError(f"{what}: {reason}.", hint=hint, dist=dist)


def _unanswered(file: WeightsFile, hub: Hub, dist: str | None) -> RefinersError:
    has_hooks = bool(manager().subset_hook_caller(_HOOK, []).get_hookimpls())
    if has_hooks and hub.is_offline:
        return OfflineError(
            f"{file} is not on this machine, and going online is forbidden.",
            hint="Go online once: unset REFINERS_OFFLINE and HF_HUB_OFFLINE, without --offline.",
            dist=dist,
        )
    return UnsupportedError(
        f"no installed hook module fetches {file.scheme}: sources such as {file}.",
        hint="Install the package that does; see the adapter's README.",
        dist=dist,
    )


def _path(returned: Any, file: WeightsFile) -> Path:
    try:
        path = Path(returned)
        is_file = path.is_file()
    except (TypeError, ValueError):
        is_file, path = False, Path()
    if not is_file:
        raise PluginError(
            f"a hook module returned {returned!r} for {file}, which is not a file.",
            hint="Report it to the author of the package; refiners doctor lists hook modules.",
        )
    return path
