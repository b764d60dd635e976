"""Distinguishes the path of a model from a name."""

from __future__ import annotations

import os


def name_or_path(what: str) -> str:
    """Returns an argument as a path if it names an existing file and no installed plugin.

    Args:
        what: A name, a path, or the address of a repository.
    """
    from refiners.installed.inventory import scan
    from refiners.sources.local import is_local
    from refiners.sources.repository import PREFIX

    if is_local(what) or what.startswith(PREFIX) or not os.path.exists(what):
        return what
    inventory = scan()
    names = {
        name
        for plugin in inventory.plugins
        for name in (plugin.name, plugin.id, *plugin.spec.aliases)
    }
    return what if what in names else os.path.join(os.curdir, what)
