"""`refiners catalog page`: the catalog as a static site."""

from __future__ import annotations

from pathlib import Path

import click

from refiners.cli.report import json_option, print_json


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--from", "source", type=click.Path(path_type=Path, exists=True, file_okay=False),
              metavar="CATALOG", help="The folder of a catalog; by default, that of search.",
)  # fmt: skip
@click.option("--wheel", "wheels", multiple=True, metavar="WHEEL",
              type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="A wheel whose pictures and report to show; repeatable.")  # fmt: skip
@click.option("--pictures", type=click.Path(path_type=Path, exists=True, file_okay=False),
              metavar="FOLDER", help="A folder of pictures for each distribution.")  # fmt: skip
@click.option("--base-url", default="", metavar="URL", help="The address of the site, for feeds.")
@json_option
def page(
    out: Path,
    source: Path | None,
    wheels: tuple[Path, ...],
    pictures: Path | None,
    base_url: str,
    as_json: bool,
) -> None:
    """Write the catalog as a static site.

    OUT is a new folder, or that of an earlier site, which is replaced. The site has a page for each
    plugin, lists, a matrix of capabilities, JSON feeds, and a search. It needs no server: open
    OUT/index.html. Wheels are read as archives; nothing is installed or fetched.

    \b
    Examples:
      refiners catalog page site
      refiners catalog page site --from catalog --wheel dist/refiners_edges-1.0-py3-none-any.whl
      refiners catalog page site --base-url https://example.org/catalog/
    """
    from refiners.page import Notices, read_extras, read_plugins, write_site

    site = write_site(
        out,
        read_plugins(source),
        Notices.of(source),
        read_extras(wheels, pictures),
        base_url=base_url,
    )
    if as_json:
        print_json({"page": str(out / "index.html"), **site._asdict()})
    else:
        click.echo(f"{site.plugins} plugins on {site.pages} pages: {out / 'index.html'}")
