"""`refiners search` and `refiners catalog`: what is published, offline."""

from __future__ import annotations

from pathlib import Path

import click

from refiners.catalog import Listed
from refiners.cli.report import json_option, print_json, print_table


@click.command()
@click.argument("terms", nargs=-1, required=True)
@json_option
def search(terms: tuple[str, ...], as_json: bool) -> None:
    """Search what is installed and what is published, by name, summary, base or kind.

    Every term has to occur. Ends with 1 if nothing does.

    \b
    Examples:
      refiners search edges
      refiners search sd15 picture --json
    """
    from refiners.catalog import listed
    from refiners.catalog import search as look
    from refiners.catalog.owner import unclaimed
    from refiners.installed.inventory import scan

    inventory = scan()
    here = {
        one.id: Listed(
            name=one.name,
            kind="adapter",
            distribution=one.dist,
            summary=one.spec.summary,
            version=one.version,
            bases=one.spec.bases,
            aliases=one.spec.aliases,
            does=one.spec.kind,
        )
        for one in inventory.adapters
    }
    here |= {
        one.id: Listed(
            name=one.name,
            kind="model",
            distribution=one.dist,
            summary=one.spec.summary,
            version=one.version,
            bases=(one.spec.family,),
            aliases=one.spec.aliases,
        )
        for one in inventory.models
    }
    owners = {name: one.distribution for one in here.values() for name in (one.name, *one.aliases)}
    published = tuple(one for one in unclaimed(listed(), owners) if one.id not in here)
    found = look(terms, (*here.values(), *published))
    if as_json:
        print_json(
            {
                "found": [
                    {
                        "id": one.id,
                        "name": one.name,
                        "kind": one.kind,
                        "version": one.version,
                        "summary": one.summary,
                        "bases": list(one.bases),
                        "installed": one.id in here,
                    }
                    for one in found
                ]
            }
        )
    elif found:
        rows = [
            (
                one.name,
                ", ".join(one.bases),
                one.summary,
                f"{one.distribution} {one.version}"
                if one.id in here
                else f"pip install {one.distribution}",
            )
            for one in found
        ]
        print_table("Found", ("name", "bases", "what it does", "from"), rows)
    else:
        click.echo(f"Nothing has {' and '.join(terms)}. Try fewer words, or refiners list.")
    if not found:
        click.get_current_context().exit(1)


@click.group()
def catalog() -> None:
    """Build the list of what is published, or fetch a newer one.

    \b
    Examples:
      refiners catalog build dist/*.whl --out catalog
      refiners catalog refresh hf:organisation/name
      refiners catalog forget
    """


@catalog.command()
@click.argument("source", required=False, envvar="REFINERS_CATALOG_SOURCE")
@json_option
def refresh(source: str | None, as_json: bool) -> None:
    """Fetch a newer catalog from a repository of the Hub; the one used last by default.

    It tells search, info and hints what is published, and which advisories there are; which bytes
    are loaded, installed packages say. One that lost or changed what is known here is refused.

    \b
    Examples:
      refiners catalog refresh hf:organisation/name
      refiners catalog refresh
    """
    from refiners.choose.policy import Guard
    from refiners.hub.client import Hub
    from refiners.refresh import refresh as bring

    found = bring(source, Hub.from_environment(), Guard.from_environment())
    if as_json:
        print_json(
            {
                "source": found.source,
                "commit": found.commit,
                "added": [str(one) for one in found.added],
                "advisories": [one.id for one in found.advisories],
            }
        )
        return
    rows = [(f"{o.distribution}:{o.name}", o.kind, o.version) for o in found.added]
    rows += [(one.id, "advisory", one.reason) for one in found.advisories]
    title = f"{len(rows)} new in {found.source} at {found.commit}"
    print_table(title, ("name", "kind", "version or reason"), rows)


@catalog.command()
@json_option
def forget(as_json: bool) -> None:
    """Remove the catalog that was fetched; the one that came with refiners is read again.

    \b
    Examples:
      refiners catalog forget
    """
    from refiners.catalog.copy import forget as remove

    is_removed = remove()
    if as_json:
        print_json({"forgotten": is_removed})
    else:
        click.echo("Forgotten." if is_removed else "No catalog was fetched.")


@catalog.command()
@click.argument("wheels", nargs=-1, required=True,
                type=click.Path(path_type=Path, exists=True, dir_okay=False))  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True,
              help="The folder of the catalog.")  # fmt: skip
@json_option
def build(wheels: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Add the adapters and models in wheels to a catalog, without installing them.

    What is in the catalog stays; a version with another content is refused, unless it is a
    development version.

    \b
    Examples:
      refiners catalog build dist/refiners_controlnet-1.0.0-py3-none-any.whl --out catalog
      REFINERS_CATALOG=catalog refiners search controlnet
    """
    from refiners.catalog.build import add, read_wheel

    releases = [one for wheel in wheels for one in read_wheel(wheel)]
    added = add(out, releases)
    if as_json:
        print_json({"catalog": str(out), "added": [f"{o.distribution}:{o.name}" for o in added]})
    else:
        rows = [(f"{o.distribution}:{o.name}", o.kind, o.version) for o in added]
        print_table(f"{len(added)} added to {out}", ("name", "kind", "version"), rows)
