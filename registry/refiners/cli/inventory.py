"""`refiners list` and `refiners info`: the installed plugins, read without running their code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from refiners.cli.advice import advice_facts, print_advice
from refiners.cli.completion import complete_plugin
from refiners.cli.file_info import print_file_info
from refiners.cli.location import name_or_path
from refiners.cli.output import say
from refiners.cli.recipe import is_picture, print_recipe
from refiners.cli.report import json_option, print_json, print_table
from refiners.errors import NotInstalledError
from refiners.host.shell import quoted
from refiners.installed.example import examples
from refiners.installed.inventory import Installed, Inventory, package_file, scan
from refiners.manifest.schema import MANIFESTS, AdapterSpec, ModelSpec, Spec, WeightsFile


@click.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the installed adapters, models and preprocessors.

    \b
    Examples:
      refiners list
      refiners list --json
    """
    from refiners.choose.publisher import notice
    from refiners.choose.publisher_review import publisher_changes_here

    inventory = scan()
    if as_json:
        print_json(_inventory(inventory))
        return
    if inventory.adapters:
        rows = [
            (a.name, ", ".join(a.spec.bases), a.spec.summary, _owner(a)) for a in inventory.adapters
        ]
        print_table("Adapters", ("name", "bases", "summary", "package"), rows)
    if inventory.models:
        rows = [(m.name, m.spec.family, m.spec.summary, _owner(m)) for m in inventory.models]
        print_table("Models", ("name", "family", "summary", "package"), rows)
    if inventory.preprocessors:
        rows = [(p.name, p.spec.summary, _owner(p)) for p in inventory.preprocessors]
        print_table("Preprocessors", ("name", "summary", "package"), rows)
    if not inventory.plugins:
        click.echo("No adapters or models are installed. Try pip install refiners-playground.")
    notice(publisher_changes_here(inventory.plugins), stacklevel=1)
    for broken in inventory.broken:
        say(f"broken: {broken.dist} ({broken.name}): {broken.error}", color="yellow", err=True)


@click.command()
@click.argument("name", shell_complete=complete_plugin)
@json_option
def info(name: str, as_json: bool) -> None:
    """Show the facts about an adapter, a model, a preprocessor or a picture.

    NAME may also be a file, a folder, or hf:ORG/NAME[/FILE]: shows what a file is and which adapter
    reads it, from its header alone. Of a picture it shows the recipe. For what is published but not
    installed, shows the facts in the catalog.

    \b
    Examples:
      refiners info controlnet-canny
      refiners info refiners-controlnet:controlnet-canny --json
      refiners info style.safetensors
      refiners info hf:org/name/style.safetensors --json
      refiners info picture.png
    """
    from refiners.choose.lookup import look_up
    from refiners.sources.given import is_file, is_model_folder

    if is_picture(name):
        print_recipe(name, as_json=as_json)
        return
    if is_file(path := name_or_path(name)):
        if is_model_folder(path):
            _print_path(path, as_json)
        else:
            print_file_info(path, as_json)
        return
    inventory = scan()
    try:
        plugin: Installed[Any] | None = look_up(name, inventory.plugins, inventory.broken)
    except NotInstalledError as error:
        plugin = _published(name)
        if plugin is None:
            raise
        if not as_json:
            say(f"{error.message} {error.hint}", color="yellow", err=True)
    facts = _described(plugin)
    if as_json:
        print_json(facts)
        return
    rows = [(key, value) for key, value in facts.items() if isinstance(value, str) and value]
    if facts["examples"]:
        rows.append(("examples", quoted("refiners", "examples", plugin.name)))
    print_table(plugin.id, ("", ""), rows)
    if isinstance(plugin.spec, AdapterSpec):
        print_advice(plugin.spec)
    if variants := facts.get("variants"):
        keys = ("label", "base", "facts", "files")
        print_table("Variants", keys, [[_flat(v[key]) for key in keys] for v in variants])
    if weights := facts["weights"]:
        keys = ("name", "source", "size", "license", "here")
        columns = ("name", "source", "size", "license", "on disk")
        licences = [w | {"license": _licence(w["license"], w["terms"])} for w in weights]
        print_table("Weights", columns, [[_flat(w[key]) for key in keys] for w in licences])


def _print_path(path: str, as_json: bool) -> None:
    """Prints the facts about the folder of a model, from its headers and configurations."""
    from refiners.choose.variant import facts_of
    from refiners.load import outline
    from refiners_core import Model

    model = outline(path)
    assert isinstance(model, Model), "an outline is a model"
    files = sorted(Path(path).rglob("*.safetensors"))
    known = facts_of(model)
    facts: dict[str, Any] = {
        "path": path,
        "base": model.base,
        "dtype": known.dtype,
        "facts": dict(known.facts),
        "parts": {
            name: sum(weight.numel() for weight in part.parameters())
            for name, part in model.named_children()
        },
        "files": {str(file): file.stat().st_size for file in files},
    }
    if as_json:
        print_json(facts)
        return
    rows = [(key, _flat(facts[key])) for key in ("base", "dtype", "facts")]
    rows += [(name, f"{count / 1e6:.1f} M weights") for name, count in facts["parts"].items()]
    rows += [(name, _flat(size)) for name, size in facts["files"].items()]
    print_table(path, ("", ""), rows)


def _published(name: str) -> Installed[Any] | None:
    """Returns the newest release in the catalog, as if it were installed."""
    import msgspec

    from refiners.catalog import listed, releases

    entry = next((e for e in listed() if name in (e.name, e.id, *e.aliases)), None)
    versions = {release.version: release for release in releases(entry)} if entry else {}
    if entry is None or entry.version not in versions:
        return None
    newest = versions[entry.version]
    try:
        spec: Any = msgspec.convert(newest.spec, MANIFESTS[entry.kind].spec)
    except msgspec.ValidationError:  # published with a later schema
        return None
    return Installed(entry.name, entry.distribution, newest.version, Path("not installed"), spec)


def _owner(plugin: Installed[Any]) -> str:
    return f"{plugin.dist} {plugin.version}"


def _inventory(inventory: Inventory) -> dict[str, Any]:
    return {
        "adapters": [_summary(a) | {"bases": list(a.spec.bases)} for a in inventory.adapters],
        "models": [_summary(m) | {"family": m.spec.family} for m in inventory.models],
        "preprocessors": [*map(_summary, inventory.preprocessors)],
        "broken": [{"dist": b.dist, "name": b.name, "error": b.error} for b in inventory.broken],
    }


def _summary(plugin: Installed[Any]) -> dict[str, str]:
    return {
        "id": plugin.id,
        "name": plugin.name,
        "dist": plugin.dist,
        "version": plugin.version,
        "summary": plugin.spec.summary,
    }


def _described(plugin: Installed[Any]) -> dict[str, Any]:
    from refiners.choose.publisher import identity_of

    spec: Spec = plugin.spec
    facts: dict[str, Any] = _summary(plugin) | {
        "paper": spec.paper,
        "license": spec.license,
        "core-api": spec.core_api,
        "aliases": ", ".join(spec.aliases),
        "factory": spec.factory,
        "publisher": identity_of(plugin.dist, plugin.version) or "",
        "manifest": str(plugin.path),
        "examples": [e.name for e in examples(plugin.dist) if plugin.name in e.loads],
    }
    if isinstance(spec, AdapterSpec):
        facts["kind"] = spec.kind
        facts["conflicts"] = ", ".join(spec.conflicts)
        facts["advice"] = advice_facts(spec.advice)
        for name, given in spec.input.items():
            summary = "; ".join(text for text in (given.summary, given.preprocessor) if text)
            low_high = f", {given.range[0]:g} to {given.range[1]:g}" if given.range else ""
            facts[f"input {name}"] = f"{summary}{low_high}"
        for name, external in spec.external.items():
            license = _licence(external.license, external.terms)
            licence = f" ({license})" if license else ""
            facts[f"you supply {name}"] = f"{external.summary}{licence} {external.home}".strip()
        facts["variants"] = [
            {
                "label": variant.label,
                "base": variant.base or "any",
                "facts": variant.facts,
                "slots": [target.slot for target in variant.targets],
                "files": dict(variant.files),
                "advice": advice_facts(spec.advice_for(variant)),
            }
            for variant in spec.variant
        ]
    elif isinstance(spec, ModelSpec):
        facts |= {"family": spec.family, "base": spec.base or plugin.name}
    facts["weights"] = [_weights(name, file) for name, file in spec.weights.items()]
    return facts


def _weights(name: str, file: WeightsFile) -> dict[str, Any]:
    return {
        "name": name,
        "source": str(file),
        "revision": file.revision,
        "sha256": file.sha256,
        "size": file.size,
        "license": file.license,
        "terms": file.terms,
        "here": _is_here(file),
    }


def _licence(license: str, terms: str) -> str:
    """Returns a licence with its terms, unless its name says them."""
    return license if terms in license else f"{license or 'no licence'}: {terms} use only"


def _is_here(file: WeightsFile) -> bool:
    from refiners.hub.client import Hub
    from refiners.hub.receipts import pinned

    if file.scheme == "pkg":
        try:
            return package_file(*file.package_path) is not None
        except OSError:  # this user cannot read the folder
            return False
    receipts = Hub.from_environment().receipts
    return receipts.find(pinned(file, receipts.resolution(file)).sha256) is not None


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} = {item}" for key, item in value.items()) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value / 1e6:.1f} MB"
    return str(value or "-")
