"""Tells the path of a model from its name."""

from __future__ import annotations

import os
from pathlib import Path


def name_or_path(what: str) -> str:
    """Returns a word as a path where it names a folder or file here, and nothing installed.

    Args:
        what: A name, a path, or the address of a repository.
    """
    from refiners.installed.inventory import scan
    from refiners.sources.local import is_local
    from refiners.sources.repository import PREFIX

    if is_local(what) or what.startswith(PREFIX) or not Path(what).exists():
        return what
    inventory = scan()
    names = {
        name
        for one in (*inventory.adapters, *inventory.models)
        for name in (one.name, one.id, *one.spec.aliases)
    }
    return what if what in names else os.path.join(os.curdir, what)
