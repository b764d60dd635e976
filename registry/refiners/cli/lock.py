"""`refiners lock`, `sync` and `verify`: the same versions and files on every machine."""

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
                            help="The precision to fetch, if a repository has several.",
)  # fmt: skip


@click.command()
@click.argument("names", nargs=-1)
@click.option("--out", type=_PATH, default="refiners.lock", show_default=True,
              envvar="REFINERS_LOCK", help="The lock file.")  # fmt: skip
@click.option("--model", "on", multiple=True, metavar="NAME",
              help="Lock the files of adapters for this model; repeatable. By default, for the "
              "models among NAMES and in the lock, or else for those on this machine.")  # fmt: skip
@dtype_option
@click.option("--offline", is_flag=True, help="Do not go online.")
@json_option
def lock(
    names: tuple[str, ...],
    out: Path,
    on: tuple[str, ...],
    dtype: str | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Record versions and hashes in a lock file.

    With NAMES, locks these and keeps the other entries. Without NAMES, locks the models on this
    machine and the adapters for them, and keeps entries for repositories and for your files. Locks
    the files of an adapter that suit the models. Asks the Hub only for revisions and hashes that a
    manifest leaves open.

    \b
    Examples:
      refiners lock
      refiners lock playground ip-adapter
      refiners lock controlnet-canny --model sd15 --out refiners.lock
      refiners lock hf:org/name@commit --dtype float16
      refiners lock sd15 style.safetensors
    """
    from refiners.choose.lock import read_lock_or_empty
    from refiners.choose.lookup import find_model
    from refiners.choose.policy import Guard
    from refiners.choose.publisher_review import review_publishers
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
        plugins = find_plugins(
            names, inventory, lambda what: find_repository(what, hub, dtype, guard), hub, guard
        )
        models = models or models_beside(plugins, before, inventory, hub)
    else:
        models = models or installed_models(inventory, hub)
        plugins = suitable_plugins(inventory, models, guard)
    newer = lock_of(plugins, hub, guard, models, must_suit=bool(on))
    review_publishers(out, plugins)
    after = write_into(out, newer, read)  # reads the file again, which may have changed
    if as_json:
        print_json({"lock": str(out), "plugins": [plugin.id for plugin in after.plugin]})
    else:
        rows = [(p.id, p.kind, p.version, len(p.file)) for p in after.plugin]
        print_table(f"wrote {out}", ("name", "kind", "version", "files"), rows)


@click.command()
@click.option("--lock", "path", type=_PATH, default="refiners.lock", show_default=True,
              envvar="REFINERS_LOCK", help="The lock file.")  # fmt: skip
@click.option(
    "--locked", is_flag=True, help="Do not update the lock; fail if a plugin differs from it."
)
@click.option("--offline", is_flag=True, help="Do not go online.")
@json_option
def sync(path: Path, locked: bool, offline: bool, as_json: bool) -> None:
    """Fetch and verify every file in a lock.

    Without --locked, first updates the entries of plugins that are installed in another version. A
    plugin in the lock that is not installed is an error.

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
    lock = Lock() if not locked and not path.exists() else read_lock(path)
    if not locked:
        lock = renewed(lock, inventory, hub, guard, path)
    states = fetch_files(installed_of(lock, inventory, path), hub, guard)
    print_states(f"{path}: {len(lock.plugin)} plugins", states, as_json)


@click.command()
@click.option("--lock", "path", type=_PATH, envvar="REFINERS_LOCK",
              help="Check the files in this lock; all installed plugins by default.")  # fmt: skip
@click.option("--deep", is_flag=True, help="Hash every file again, even verified ones.")
@json_option
def verify(path: Path | None, deep: bool, as_json: bool) -> None:
    """Check files against their pins, offline.

    Exits with 1 if a file is missing or unreadable, and with 4 if a file has another hash.

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
    plugins = inventory.plugins
    if path is not None:
        plugins = installed_of(read_lock(path), inventory, path)
    hub = Hub.from_environment(offline=True)
    states = examine_files(plugins, hub, deep=deep, must_be_here=path is not None)
    print_states("Files", states, as_json)
    wrong = {state.state for state in states if not state.is_good}
    if wrong:
        click.get_current_context().exit(LockError.exit_code if "different" in wrong else 1)


def find_plugins(
    names: tuple[str, ...],
    inventory: Inventory,
    repository: Callable[[str], RepositoryModel],
    hub: Hub,
    guard: Guard,
    lock: str = "",
) -> tuple[Installed[Any], ...]:
    """Returns the plugins and repositories that a command line names.

    A path or an address is a file of an adapter, or a repository with a whole model; `NAME=FILE`
    names the reader of the file as well.
    """
    from refiners.choose.lookup import look_up
    from refiners.sources.address import is_model
    from refiners.sources.repository import PREFIX
    from refiners.sources.user_file import split_file, with_file

    def find(name: str) -> Installed[Any]:
        if name.startswith(PREFIX) and is_model(name, hub, guard, lock):
            return repository(name)
        reader, file = split_file(name)
        if file is not None:
            adapters, broken = inventory.adapters, inventory.broken
            adapter = look_up(reader, adapters, broken, ("adapter",)) if reader else None
            return with_file(adapter, file, hub, lock, guard)
        return look_up(reader, inventory.plugins, inventory.broken)

    return tuple(find(name) for name in names)


def print_states(title: str, states: Any, as_json: bool) -> None:
    """Prints the state of files."""
    if as_json:
        rows = [
            {
                "plugin": state.plugin,
                "name": state.name,
                "source": str(state.file),
                "sha256": state.file.sha256,
                "path": state.path and str(state.path),
                "state": state.state,
            }
            for state in states
        ]
        print_json({"files": rows})
        return
    if not states:
        click.echo(f"{title}: none")
        return
    cells = [(state.plugin, state.name, str(state.file), state.state) for state in states]
    print_table(title, ("plugin", "file", "source", "state"), cells)
