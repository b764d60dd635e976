"""`refiners fetch`: fetches files now, to work offline later."""

from __future__ import annotations

from typing import Any

import click

from refiners.cli.lock import dtype_option
from refiners.cli.report import json_option


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--model", metavar="NAME", help="Only the variant of adapters that suits it.")
@click.option("--lock", type=click.Path(dir_okay=False), envvar="REFINERS_LOCK",
              help="Hold everything to this lock.")  # fmt: skip
@dtype_option
@json_option
def fetch(
    names: tuple[str, ...], model: str | None, lock: str | None, dtype: str | None, as_json: bool
) -> None:
    """Fetch and verify the files of adapters and models, to use them offline later.

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
    from refiners.cli.lock import named, print_states
    from refiners.hub.client import Hub
    from refiners.installed.inventory import Installed, scan
    from refiners.manifest.schema import AdapterSpec
    from refiners.sources.repository import RepositoryModel, held_repository
    from refiners.sync import fetch_files

    guard = Guard.from_environment(is_locked=lock is not None)
    hub = Hub.from_environment(largest=guard.largest)
    plugins: list[Installed[Any]] = []
    on = find_model(model) if model else None

    def repository(what: str) -> RepositoryModel:
        return held_repository(what, hub, lock, dtype, guard)

    for one in named(names, scan(), repository, hub, guard):
        plugin: Installed[Any] = one if isinstance(one, RepositoryModel) else held(one, lock)
        if on is not None and isinstance(plugin.spec, AdapterSpec):
            facts = ModelFacts(on.name, on.spec.base or on.name, on.spec.facts)
            variant = choose(plugin, facts, verdicts(plugin, facts, hub, guard))
            wanted = {name: plugin.spec.weights[name] for name in variant.files.values()}
            spec = msgspec.structs.replace(plugin.spec, weights=wanted)
            plugin = msgspec.structs.replace(plugin, spec=spec)
        plugins.append(plugin)
    print_states("Files", fetch_files(plugins, hub, guard), as_json)
