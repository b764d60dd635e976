"""Writes the catalog as a static site: one page for each plugin, lists, a matrix, feeds, a search.

    published.py   the releases of a catalog, their conformance and their publishers
    extras.py      pictures and reports that wheels carry
    card.py        the facts of one plugin for lists, the search and the feeds
    sheet.py       the facts of its page
    site.py        which files the site has, and how they are written
    templates/     the pages; assets/ has the style sheet and the search

Everything that a manifest states is foreign. Templates escape it, `text.py` replaces characters
that reorder or hide words, `link.py` links only what it recognises, and pages run no script but
the search. Pages need neither a server nor, for reading, scripts; they request nothing from
elsewhere.
"""

from __future__ import annotations

from refiners.page.extras import Extras, read_extras
from refiners.page.notice import Notices
from refiners.page.published import Plugin, read_plugins
from refiners.page.site import Site, write_site

__all__ = ["Extras", "Notices", "Plugin", "Site", "read_extras", "read_plugins", "write_site"]
