"""`refiners lock`, `sync` and `verify`: the same bytes on another machine, and proof of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refiners.cli.report import json_option, print_json, print_table
from refiners.errors import LockError
from refiners.installed.inventory import Installed, Inventory, scan

if TYPE_CHECKING:
    from refiners.choose.policy import Guard
    from refiners.hub.client import Hub
    from refiners.sources.repository import RepositoryModel

_PATH = click.Path(path_type=Path, dir_okay=False)
dtype_option = click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]),
                            help="Which files of a repository, where it has several.")  # fmt: skip


@click.command()
@click.argument("names", nargs=-1)
@click.option("--out", type=_PATH, default="refiners.lock", show_default=True,
              envvar="REFINERS_LOCK", help="The lock file.")  # fmt: skip
@click.option("--model", "on", multiple=True, metavar="NAME",
              help="Lock the files of adapters that go on this model; repeatable. By default the "
              "models among NAMES and in the lock, else those on this machine.")  # fmt: skip
@dtype_option
@click.option("--offline", is_flag=True, help="Open no socket.")
@json_option
def lock(
    names: tuple[str, ...],
    out: Path,
    on: tuple[str, ...],
    dtype: str | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Write down which plugins and which bytes this machine has.

    Without NAMES the models on this machine are locked, with the adapters that go on them, and the
    repositories and files in the lock stay; with NAMES these are locked, and all the rest stays. Of
    an adapter the files that suit the models are locked. The Hub is asked only where a manifest
    leaves a revision or a hash open.

    \b
    Examples:
      refiners lock
      refiners lock playground ip-adapter
      refiners lock controlnet-canny --model sd15 --out refiners.lock
      refiners lock hf:org/name@commit --dtype float16
      refiners lock sd15 lora=style.safetensors
    """
    from refiners.choose.lock import read_lock_or_empty
    from refiners.choose.lookup import find_model
    from refiners.choose.policy import Guard
    from refiners.choose.requirements import installed_models, models_beside, suitable_plugins
    from refiners.hub.client import Hub
    from refiners.sources.repository import find_repository
    from refiners.sync import lock_of, named_by_users, write_into

    inventory = scan()
    guard = Guard.from_environment()
    hub = Hub.from_environment(offline or None, largest=guard.largest)
    read = read_lock_or_empty if names else named_by_users
    before = read(out)
    models = tuple(find_model(name) for name in on)
    if names:
        plugins = named(
            names, inventory, lambda what: find_repository(what, hub, dtype, guard), hub, guard
        )
        models = models or models_beside(plugins, before, inventory, hub)
    else:
        models = models or installed_models(inventory, hub)
        plugins = suitable_plugins(inventory, models, guard)
    newer = lock_of(plugins, hub, guard, models, must_suit=bool(on))
    after = write_into(out, newer, read)  # reads again: another command may have written
    if as_json:
        print_json({"lock": str(out), "plugins": [one.id for one in after.plugin]})
    else:
        rows = [(one.id, one.kind, one.version, len(one.file)) for one in after.plugin]
        print_table(f"wrote {out}", ("name", "kind", "version", "files"), rows)


@click.command()
@click.option("--lock", "path", type=_PATH, default="refiners.lock", show_default=True,
              envvar="REFINERS_LOCK", help="The lock file.")  # fmt: skip
@click.option("--locked", is_flag=True, help="Change nothing of the lock; refuse what differs.")
@click.option("--offline", is_flag=True, help="Open no socket.")
@json_option
def sync(path: Path, locked: bool, offline: bool, as_json: bool) -> None:
    """Fetch and verify every file that a lock names.

    Without --locked, what is installed in another version is locked anew first; what is locked
    and not installed is an error either way.

    \b
    Examples:
      refiners sync --locked
      refiners sync --locked --offline
      refiners sync --lock ci/refiners.lock
    """
    from refiners.choose.lock import Lock, read_lock
    from refiners.choose.policy import Guard
    from refiners.hub.client import Hub
    from refiners.sync import fetch_files, installed_of, renewed

    inventory = scan()
    guard = Guard.from_environment(is_locked=True)
    hub = Hub.from_environment(offline or None, largest=guard.largest)
    found = Lock() if not locked and not path.exists() else read_lock(path)
    if not locked:
        found = renewed(found, inventory, hub, guard, path)
    states = fetch_files(installed_of(found, inventory, path), hub, guard)
    print_states(f"{path}: {len(found.plugin)} plugins", states, as_json)


@click.command()
@click.option("--lock", "path", type=_PATH, envvar="REFINERS_LOCK",
              help="Check what this lock names; everything installed by default.")  # fmt: skip
@click.option("--deep", is_flag=True, help="Hash every byte again, receipts notwithstanding.")
@json_option
def verify(path: Path | None, deep: bool, as_json: bool) -> None:
    """Check the files on this machine against their pins, without going online.

    Ends with 1 if a file is missing and with 4 if one has other bytes.

    \b
    Examples:
      refiners verify
      refiners verify --deep
      refiners verify --lock refiners.lock
    """
    from refiners.choose.lock import read_lock
    from refiners.hub.client import Hub
    from refiners.sync import examine_files, installed_of

    inventory = scan()
    plugins: tuple[Installed[Any], ...] = (*inventory.adapters, *inventory.models)
    if path is not None:
        plugins = installed_of(read_lock(path), inventory, path)
    hub = Hub.from_environment(offline=True)
    states = examine_files(plugins, hub, deep=deep, must_be_here=path is not None)
    print_states("Files", states, as_json)
    wrong = {one.state for one in states if not one.is_good}
    if wrong:
        click.get_current_context().exit(LockError.exit_code if "different" in wrong else 1)


def named(
    names: tuple[str, ...],
    inventory: Inventory,
    repository: Callable[[str], RepositoryModel],
    hub: Hub,
    guard: Guard,
) -> tuple[Installed[Any], ...]:
    """Returns the adapters, models and repositories that a command line names.

    `NAME=FILE` names an adapter with a file of the user's.
    """
    from refiners.choose.lookup import look_up
    from refiners.sources.repository import PREFIX
    from refiners.sources.user_file import split_file, with_file

    both: tuple[Installed[Any], ...] = (*inventory.adapters, *inventory.models)

    def of(name: str) -> Installed[Any]:
        if name.startswith(PREFIX):
            return repository(name)
        name, file = split_file(name)
        if file is not None:
            adapter = look_up(name, inventory.adapters, inventory.broken, "adapter")
            return with_file(adapter, file, hub, guard=guard)
        return look_up(name, both, inventory.broken, "adapter or model")

    return tuple(of(name) for name in names)


def print_states(title: str, states: Any, as_json: bool) -> None:
    """Prints what became of files."""
    if as_json:
        rows = [
            {
                "plugin": one.plugin,
                "name": one.name,
                "source": str(one.file),
                "sha256": one.file.sha256,
                "path": one.path and str(one.path),
                "state": one.state,
            }
            for one in states
        ]
        print_json({"files": rows})
        return
    cells = [(one.plugin, one.name, str(one.file), one.state) for one in states]
    print_table(title, ("plugin", "file", "source", "state"), cells)
