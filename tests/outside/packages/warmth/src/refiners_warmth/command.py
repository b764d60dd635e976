"""The command `refiners warmth`."""

import click

from refiners_core.command import Report


@click.command()
def warmth() -> Report:
    """Print how warm the weights are."""
    return Report("warmth", ("name", "value"), [("warmth", "2")], {"warmth": 2})
