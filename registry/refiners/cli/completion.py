"""Completes the names of plugins with the tab key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem


def complete_adapter(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Returns the installed adapters whose names start with a text."""
    from refiners.installed.inventory import scan

    return _items(scan().adapters, incomplete)


def complete_model(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Returns the installed models whose names start with a text; without a match, files."""
    from refiners.installed.inventory import scan

    return _items(scan().models, incomplete) or [CompletionItem(incomplete, type="file")]


def complete_preprocessor(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Returns the installed preprocessors whose names start with a text."""
    from refiners.installed.inventory import scan

    return _items(scan().preprocessors, incomplete)


def complete_plugin(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Returns the installed plugins whose names start with a text."""
    from refiners.installed.inventory import scan

    return _items(scan().plugins, incomplete)


def complete_package(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Returns the installed packages and plugins whose names start with a text."""
    from refiners.installed.inventory import scan

    plugins = scan().plugins
    dists = sorted({plugin.dist for plugin in plugins if plugin.dist.startswith(incomplete)})
    return [*(CompletionItem(dist) for dist in dists), *_items(plugins, incomplete)]


def _items(plugins: Iterable[Any], incomplete: str) -> list[CompletionItem]:
    return [
        CompletionItem(plugin.name, help=plugin.spec.summary)
        for plugin in plugins
        if plugin.name.startswith(incomplete)
    ]
