"""`refiners list` and `refiners info`: what is installed, read without running it."""

from __future__ import annotations

from typing import Any

import click

from refiners.cli.completion import complete_either
from refiners.cli.location import name_or_path
from refiners.cli.output import say
from refiners.cli.report import json_option, print_json, print_table
from refiners.errors import NotInstalledError
from refiners.installed.inventory import Installed, Inventory, package_file, scan
from refiners.manifest.schema import AdapterSpec, ModelSpec, WeightsFile


@click.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the adapters and models that are installed.

    \b
    Examples:
      refiners list
      refiners list --json
    """
    found = scan()
    if as_json:
        print_json(_inventory(found))
        return
    if found.adapters:
        rows = [
            (a.name, ", ".join(a.spec.bases), a.spec.summary, _owner(a)) for a in found.adapters
        ]
        print_table("Adapters", ("name", "bases", "what it does", "from"), rows)
    if found.models:
        rows = [(m.name, m.spec.family, m.spec.summary, _owner(m)) for m in found.models]
        print_table("Models", ("name", "family", "what it is", "from"), rows)
    if not found.adapters and not found.models:
        click.echo("No adapter and no model is installed. Try pip install refiners-playground.")
    for one in found.broken:
        say(f"broken: {one.dist} ({one.name}): {one.error}", color="yellow", err=True)


@click.command()
@click.argument("name", shell_complete=complete_either)
@json_option
def info(name: str, as_json: bool) -> None:
    """Show what is known of an adapter or a model, and where its weights are.

    NAME may be the path of a model, a folder or a file. What is published and not installed is
    shown from the catalog.

    \b
    Examples:
      refiners info controlnet-canny
      refiners info refiners-controlnet:controlnet-canny --json
      refiners info models/mine.safetensors
    """
    from refiners.choose.lookup import look_up
    from refiners.sources.local import is_local

    if is_local(path := name_or_path(name)):
        _print_path(path, as_json)
        return
    found = scan()
    both: tuple[Installed[Any], ...] = (*found.adapters, *found.models)
    try:
        one = look_up(name, both, found.broken, "adapter or model")
    except NotInstalledError as error:
        one = _published(name)
        if one is None:
            raise
        if not as_json:
            say(f"{error.message} {error.hint}", color="yellow", err=True)
    facts = _described(one)
    if as_json:
        print_json(facts)
        return
    rows = [(key, value) for key, value in facts.items() if isinstance(value, str) and value]
    print_table(one.id, ("", ""), rows)
    if variants := facts.get("variants"):
        keys = ("label", "base", "facts", "files")
        print_table("Variants", keys, [[_flat(v[key]) for key in keys] for v in variants])
    if weights := facts["weights"]:
        keys = ("name", "source", "size", "license", "here")
        print_table("Weights", keys, [[_flat(w[key]) for key in keys] for w in weights])


def _print_path(path: str, as_json: bool) -> None:
    """Prints what a folder or a file of a model is, as its header and configurations tell."""
    from pathlib import Path

    from refiners.choose.variant import facts_of
    from refiners.load import outline
    from refiners_core import Model

    built = outline(path)
    assert isinstance(built, Model), "an outline is one"
    place = Path(path)
    inside = sorted(one for one in place.rglob("*.safetensors")) if place.is_dir() else [place]
    known = facts_of(built)
    facts: dict[str, Any] = {
        "path": path,
        "base": built.base,
        "dtype": known.dtype,
        "facts": dict(known.facts),
        "parts": {
            name: sum(weight.numel() for weight in part.parameters())
            for name, part in built.named_children()
        },
        "files": {str(one): one.stat().st_size for one in inside},
    }
    if as_json:
        print_json(facts)
        return
    rows = [(key, _flat(facts[key])) for key in ("base", "dtype", "facts")]
    rows += [(name, f"{count / 1e6:.1f} M weights") for name, count in facts["parts"].items()]
    rows += [(name, _flat(size)) for name, size in facts["files"].items()]
    print_table(path, ("", ""), rows)


def _published(name: str) -> Installed[Any] | None:
    """Returns the newest release in the catalog as if it were installed, at no path."""
    from pathlib import Path

    import msgspec

    from refiners.catalog import listed, releases

    one = next((o for o in listed() if name in (o.name, o.id, *o.aliases)), None)
    known = {one.version: one for one in releases(one)} if one is not None else {}
    if one is None or one.version not in known:
        return None
    newest = known[one.version]
    kind = AdapterSpec if one.kind == "adapter" else ModelSpec
    try:
        spec: Any = msgspec.convert(newest.spec, kind)
    except msgspec.ValidationError:  # published for a later version of the schema
        return None
    return Installed(one.name, one.distribution, newest.version, Path("not installed"), spec)


def _owner(one: Installed[Any]) -> str:
    return f"{one.dist} {one.version}"


def _inventory(found: Inventory) -> dict[str, Any]:
    return {
        "adapters": [_summary(a) | {"bases": list(a.spec.bases)} for a in found.adapters],
        "models": [_summary(m) | {"family": m.spec.family} for m in found.models],
        "broken": [{"dist": b.dist, "name": b.name, "error": b.error} for b in found.broken],
    }


def _summary(one: Installed[Any]) -> dict[str, str]:
    return {
        "id": one.id,
        "name": one.name,
        "dist": one.dist,
        "version": one.version,
        "summary": one.spec.summary,
    }


def _described(one: Installed[Any]) -> dict[str, Any]:
    spec: AdapterSpec | ModelSpec = one.spec
    facts: dict[str, Any] = _summary(one) | {
        "paper": spec.paper,
        "license": spec.license,
        "core-api": spec.core_api,
        "aliases": ", ".join(spec.aliases),
        "factory": spec.factory,
        "manifest": str(one.path),
    }
    if isinstance(spec, AdapterSpec):
        facts["kind"] = spec.kind
        facts["conflicts"] = ", ".join(spec.conflicts)
        for name, given in spec.input.items():
            said = f"{given.summary}; {given.preprocessor}" if given.preprocessor else given.summary
            low_high = f", {given.range[0]:g} to {given.range[1]:g}" if given.range else ""
            facts[f"input {name}"] = f"{said}{low_high}"
        for name, wanted in spec.external.items():
            licence = f" ({wanted.license})" if wanted.license else ""
            facts[f"you supply {name}"] = f"{wanted.summary}{licence} {wanted.home}".strip()
        facts["variants"] = [
            {
                "label": variant.label,
                "base": variant.base or "any",
                "facts": variant.facts,
                "slots": [target.slot for target in variant.targets],
                "files": dict(variant.files),
            }
            for variant in spec.variant
        ]
    else:
        facts |= {"family": spec.family, "base": spec.base or one.name}
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
        "here": _is_here(file),
    }


def _is_here(file: WeightsFile) -> bool:
    from refiners.hub.client import Hub
    from refiners.hub.receipts import pinned

    if file.scheme == "pkg":
        package, _, path = file.address.partition("/")
        try:
            return package_file(package, path) is not None
        except OSError:  # this user may not look there
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
