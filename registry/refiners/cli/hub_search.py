"""`refiners search hf:WORDS`: the adapters on the Hub, by the base model that their card names."""

from __future__ import annotations

import click

from refiners.cli.report import print_json, print_table


def search_hub(words: str, base: str | None, as_json: bool) -> None:
    """Prints the adapters on the Hub that match words; nothing is fetched or installed.

    Args:
        words: The words of the repository's name.
        base: The base model; None for any.
        as_json: Whether to print JSON.

    Raises:
        NetworkError: The Hub does not answer.
        OptionError: No installed model or known base has this name.
    """
    from refiners.hub.client import Hub
    from refiners.hub.search import find_on_hub
    from refiners.sources.recognition import repositories_of

    matches = find_on_hub(
        Hub.from_environment(), words, () if base is None else repositories_of(base)
    )
    if as_json:
        print_json(
            {
                "found": [
                    {
                        "address": match.address,
                        "base_models": list(match.bases),
                        "license": match.license,
                        "downloads": match.downloads,
                    }
                    for match in matches
                ]
            }
        )
    elif matches:
        rows = [
            (match.address, ", ".join(match.bases), match.license, match.downloads)
            for match in matches
        ]
        title = "On the Hub; to see what one is: refiners info ADDRESS"
        print_table(title, ("address", "base model", "licence", "downloads"), rows)
    else:
        click.echo("Nothing on the Hub matches. Try fewer words, or leave --base out.")
    if not matches:
        click.get_current_context().exit(1)
