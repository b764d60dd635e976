"""`refiners why`: the variants of an adapter, and the reasons why a model does not suit them."""

from __future__ import annotations

from dataclasses import replace

import click

from refiners.choose.compatibility import Accepted, ModelFacts, Verdict
from refiners.cli.completion import complete_adapter, complete_model
from refiners.cli.failure import option_names
from refiners.cli.location import name_or_path
from refiners.cli.report import json_option, print_json, print_table
from refiners.cli.shell_words import shell_words
from refiners.installed.inventory import Installed
from refiners.manifest.schema import AdapterSpec


@click.command()
@click.argument("name", shell_complete=complete_adapter)
@click.argument("on", required=False, metavar="[MODEL]", shell_complete=complete_model)
@click.option("--model", metavar="NAME|PATH", shell_complete=complete_model,
              help="Check this model, as MODEL; all installed models by default.")  # fmt: skip
@click.option("--with", "worn", multiple=True, metavar="ADAPTER",
              shell_complete=complete_adapter,
              help="Check with this adapter on the model already; repeatable.")  # fmt: skip
@click.option("--online", is_flag=True,
              help="Read the shapes of files that are not fetched yet from the Hub.")  # fmt: skip
@json_option
def why(
    name: str, on: str | None, model: str | None, worn: tuple[str, ...], online: bool, as_json: bool
) -> None:
    """Show which variants suit a model, and why.

    NAME is an adapter, or the file of one. Prints each of its variants, with the reason why the
    model does not suit the variant. Exits with 1 if no variant suits any model.

    \b
    Examples:
      refiners why controlnet-canny --model playground
      refiners why ip-adapter --model playground --with controlnet-canny
      refiners why controlnet-canny --model models/mine.safetensors
      refiners why controlnet-canny
      refiners why style.safetensors sd15
    """
    from refiners.choose.policy import Guard
    from refiners.choose.variant import verdicts, worn_by_manifest
    from refiners.hub.client import Hub
    from refiners.sources.user_file import WithFile

    if on is not None and model is not None:
        raise click.UsageError("the model is given twice; leave --model out.")
    adapter = _adapter(name)
    # the header of a file on the Hub has been read already
    hub = Hub.from_environment(offline=not online)
    on_model = tuple(worn_by_manifest(_adapter(other)) for other in worn)
    traces: dict[str, tuple[Verdict, ...]] = {}
    for target, facts in _models(model or on).items():
        facts = replace(facts, worn=on_model)
        traces[target] = verdicts(adapter, facts, hub, Guard.from_environment())
    is_suitable = any(isinstance(v, Accepted) for trace in traces.values() for v in trace)
    if as_json:
        models = {target: [_facts(v) for v in trace] for target, trace in traces.items()}
        print_json({"adapter": adapter.id, "manifest": str(adapter.path), "models": models})
    else:
        click.echo(f"{name} is {adapter.id} {adapter.version} ({adapter.path})")
        if isinstance(adapter, WithFile) and adapter.recognised is not None:
            click.echo(f"{name} is {adapter.recognised}")
        for target, trace in traces.items():
            rows = [
                (v.candidate, "yes", "base, facts and packages match", "")
                if isinstance(v, Accepted)
                else (v.candidate, "no", v.reason, _hint(v))
                for v in trace
            ]
            print_table(f"on {target}", ("variant", "suits", "reason", "hint"), rows)
    if not is_suitable:
        click.get_current_context().exit(1)


def _adapter(name: str) -> Installed[AdapterSpec]:
    """Returns an adapter by name, or the one that reads a file."""
    from refiners.choose.lookup import find_adapter
    from refiners.choose.policy import Guard
    from refiners.hub.client import Hub
    from refiners.sources.user_file import split_file, with_file

    reader, file = split_file(name)
    adapter = find_adapter(reader) if reader else None
    if file is None:
        assert adapter is not None, "an argument is a name or a file"
        return adapter
    return with_file(adapter, file, Hub.from_environment(), "", Guard.from_environment())


def _facts(verdict: Verdict) -> dict[str, object]:
    return {
        "candidate": verdict.candidate,
        "accepted": isinstance(verdict, Accepted),
        "reason": getattr(verdict, "reason", ""),
        "hint": _hint(verdict),
    }


def _hint(verdict: Verdict) -> str:
    return shell_words(getattr(verdict, "hint", ""), option_names(why))


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
        installed.name: ModelFacts(
            installed.name, installed.spec.base or installed.name, installed.spec.facts
        )
        for installed in models
    }
