"""`refiners fetch`: fetches the files of adapters and models, to use them offline later."""

from __future__ import annotations

from typing import Any

import click

from refiners.cli.lock import dtype_option
from refiners.cli.report import json_option


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--model", metavar="NAME",
              help="Fetch only the variant of each adapter for this model.")  # fmt: skip
@click.option("--lock", type=click.Path(dir_okay=False), envvar="REFINERS_LOCK",
              help="Fetch the files that this lock pins.")  # fmt: skip
@dtype_option
@json_option
def fetch(
    names: tuple[str, ...], model: str | None, lock: str | None, dtype: str | None, as_json: bool
) -> None:
    """Fetch and verify files for offline use.

    Each of NAMES is an adapter, a model, or hf:ORG/NAME@COMMIT, a repository with a model or an
    adapter. ADAPTER=hf:ORG/NAME names the adapter that reads it.

    \b
    Examples:
      refiners fetch playground controlnet-canny --model playground
      refiners fetch controlnet-canny ip-adapter
      refiners fetch hf:org/name@commit
    """
    import msgspec

    from refiners.choose.compatibility import ModelFacts, choose
    from refiners.choose.lock import held
    from refiners.choose.lookup import find_model
    from refiners.choose.policy import Guard
    from refiners.choose.variant import verdicts
    from refiners.cli.lock import find_plugins, print_states
    from refiners.hub.client import Hub
    from refiners.installed.inventory import Installed, scan
    from refiners.manifest.schema import AdapterSpec
    from refiners.sources.repository import RepositoryModel, held_repository
    from refiners.sync import fetch_files

    guard = Guard.from_environment(is_locked=lock is not None)
    hub = Hub.from_environment(largest=guard.largest)
    target = find_model(model) if model else None

    def find_repository(what: str) -> RepositoryModel:
        return held_repository(what, hub, lock, dtype, guard)

    plugins: list[Installed[Any]] = []
    for named in find_plugins(names, scan(), find_repository, hub, guard, lock or ""):
        is_repository = isinstance(named, RepositoryModel)
        plugin: Installed[Any] = named if is_repository else held(named, lock)
        if target is not None and isinstance(plugin.spec, AdapterSpec):
            facts = ModelFacts(target.name, target.spec.base or target.name, target.spec.facts)
            variant = choose(plugin, facts, verdicts(plugin, facts, hub, guard))
            needed = {name: plugin.spec.weights[name] for name in variant.files.values()}
            spec = msgspec.structs.replace(plugin.spec, weights=needed)
            plugin = msgspec.structs.replace(plugin, spec=spec)
        plugins.append(plugin)
    print_states("Files", fetch_files(plugins, hub, guard), as_json)
