"""`refiners samplers`: lists the samplers, with the names that other programs use."""

from __future__ import annotations

import click

from refiners.cli.report import json_option, print_json
from refiners_core.sampler_name import NAMES, SPACING_NAMES


@click.command()
@json_option
def samplers(as_json: bool) -> None:
    """List the samplers and spacings with all their names.

    Each name is one of `generate --sampler`: ours, those of A1111's and ComfyUI's interfaces, and
    the class of diffusers. Case and separators do not matter, and a spacing may follow. Torch is
    not imported.

    \b
    Examples:
      refiners samplers
      refiners samplers --json
      refiners generate "a red circle" --sampler "DPM++ 2M Karras"
    """
    rows = [
        (entry.name, entry.aliases, "" if entry.is_borrowed else entry.scheduler) for entry in NAMES
    ]
    if as_json:
        print_json(
            {
                "samplers": [
                    {"name": name, "aliases": [*aliases], "scheduler": scheduler or None}
                    for name, aliases, scheduler in rows
                ],
                "spacings": [
                    {"name": name, "aliases": [*aliases]} for name, aliases in SPACING_NAMES.items()
                ],
            }
        )
        return
    width = max(len(name) for name, _, _ in rows) + 2
    for name, aliases, scheduler in rows:
        click.echo(f"{name:<{width}}{', '.join(filter(None, [*aliases, scheduler]))}")
    click.echo("\nA spacing may follow, as in dpm++-2m-karras:")
    for name, aliases in SPACING_NAMES.items():
        click.echo(f"{name:<{width}}{', '.join(aliases)}")
