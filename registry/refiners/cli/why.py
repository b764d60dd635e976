"""`refiners why`: every candidate for a name and a model, with the reasons against it."""

from __future__ import annotations

from dataclasses import replace

import click

from refiners.choose.compatibility import Accepted, ModelFacts, Verdict
from refiners.cli.completion import complete_adapter, complete_model
from refiners.cli.location import name_or_path
from refiners.cli.report import json_option, print_json, print_table


@click.command()
@click.argument("name", shell_complete=complete_adapter)
@click.option("--model", metavar="NAME|PATH", shell_complete=complete_model,
              help="What it should go on, by name or as a folder or file; any model by default.",
)  # fmt: skip
@click.option("--with", "worn", multiple=True, metavar="ADAPTER",
              help="What the model wears already; repeatable.")  # fmt: skip
@click.option("--online", is_flag=True, help="Ask the Hub for the shapes in files not here yet.")
@json_option
def why(name: str, model: str | None, worn: tuple[str, ...], online: bool, as_json: bool) -> None:
    """Say which variant of an adapter suits a model, and why the others do not.

    Ends with 0 if one does and with 1 if none does.

    \b
    Examples:
      refiners why controlnet-canny --model playground
      refiners why ip-adapter --model playground --with controlnet-canny
      refiners why controlnet-canny --model models/mine.safetensors
      refiners why controlnet-canny
    """
    from refiners.choose.lookup import find_adapter
    from refiners.choose.policy import Guard
    from refiners.choose.variant import verdicts as judged
    from refiners.choose.variant import worn_by_manifest
    from refiners.hub.client import Hub
    from refiners.sources.user_file import split_file

    found = find_adapter(name)
    hub = Hub.from_environment(offline=not online)
    beside = tuple(worn_by_manifest(find_adapter(split_file(one)[0])) for one in worn)
    said: dict[str, tuple[Verdict, ...]] = {}
    for on, facts in _models(model).items():
        facts = replace(facts, worn=beside)
        said[on] = judged(found, facts, hub, Guard.from_environment())
    suits = any(isinstance(one, Accepted) for found in said.values() for one in found)
    if as_json:
        traces = {
            on: [
                {
                    "candidate": one.candidate,
                    "accepted": isinstance(one, Accepted),
                    "reason": getattr(one, "reason", ""),
                    "hint": getattr(one, "hint", ""),
                }
                for one in trace
            ]
            for on, trace in said.items()
        }
        print_json({"adapter": found.id, "manifest": str(found.path), "models": traces})
    else:
        click.echo(f"{name} is {found.id} {found.version} ({found.path})")
        for on, trace in said.items():
            rows = [_row(one) for one in trace]
            print_table(f"on {on}", ("candidate", "", "why", "what to do"), rows)
    if not suits:
        click.get_current_context().exit(1)


def _models(model: str | None) -> dict[str, ModelFacts]:
    """Returns the facts of a model by name or path, or of every installed one."""
    from refiners.choose.lookup import find_model
    from refiners.installed.inventory import scan
    from refiners.sources.local import is_local

    model = None if model is None else name_or_path(model)
    if model is not None and is_local(model):
        from refiners.choose.variant import facts_of
        from refiners.load import outline

        return {model: replace(facts_of(outline(model)), name=model)}
    models = scan().models if model is None else [find_model(model)]
    return {
        one.name: ModelFacts(one.name, one.spec.base or one.name, one.spec.facts) for one in models
    }


def _row(one: Verdict) -> tuple[str, str, str, str]:
    if isinstance(one, Accepted):
        return one.candidate, "yes", "base, facts and packages fit", ""
    return one.candidate, "no", one.reason, one.hint
