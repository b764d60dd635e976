"""The templates of the site, which escape whatever they print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from refiners.page.card import Card
from refiners.page.extras import Picture
from refiners.page.listing import Listing, Pager
from refiners.page.shard import Facets
from refiners.page.sheet import Sheet
from refiners.page.slot_tree import Node
from refiners.page.text import clean, clipped, slug

_MANY: Final = 120
"""The most lists that a page links."""


class Templates:
    """Makes pages.

    Args:
        address: The address where the site will be; empty if unknown.
        scripts: The number of scripts of the search index.
        count: The number of plugins.
        fits_any: Whether the site has a list of adapters for any model.
    """

    def __init__(self, address: str, *, scripts: int, count: int, fits_any: bool) -> None:
        self._environment = environment()
        self._common = {"address": address, "scripts": scripts, "count": count,
            "fits_any": fits_any,
                        "tree": self._tree, "listed": self._card}  # fmt: skip
        self._made: dict[tuple[str, str, int], Markup] = {}
        """The markup that several pages have, by template, root and the identity of a value."""
        self._kept: list[object] = []
        """These values, so that no other gets the identity of one of them."""

    def index(
        self,
        shown: Sequence[Card],
        cards: Sequence[Card],
        facets: Facets,
        groups: Sequence[Listing],
    ) -> bytes:
        """Returns the first page: search, filters, lists, and some plugins."""
        distributions = len({card.dist for card in cards})
        return self._page(
            "index.html", "index.html", cards=shown, facets=facets, distributions=distributions,
            kinds=self._some(groups, "kind"), bases=self._some(groups, "base"),
        )  # fmt: skip

    def list_page(self, listing: Listing, cards: Sequence[Card], pager: Pager) -> bytes:
        """Returns one page of a list."""
        path = listing.path_of(pager.number)
        return self._page("list.html", path, listing=listing, cards=cards, pager=pager)

    def matrix(self, listing: Listing, cards: Sequence[Card], pager: Pager) -> bytes:
        """Returns one page of the matrix of capabilities."""
        path = listing.path_of(pager.number)
        return self._page("matrix.html", path, listing=listing, cards=cards, pager=pager)

    def feeds(self, groups: Sequence[Listing]) -> bytes:
        """Returns the page that documents the feeds."""
        return self._page("feeds.html", "feeds.html", bases=self._some(groups, "base"))

    def plugin(self, card: Card, sheet: Sheet, pictures: Mapping[str, Picture]) -> bytes:
        """Returns the page of a plugin."""
        return self._page("plugin.html", card.path, card=card, sheet=sheet, pictures=pictures)

    def _page(self, template: str, path: str, **values: Any) -> bytes:
        root = "../" * path.count("/")
        page = self._environment.get_template(template)
        return page.render(root=root, path=path, **self._common, **values).encode(
            "utf-8", "replace"
        )

    def _tree(self, nodes: Sequence[Node]) -> Markup:
        """Returns the markup of a tree of slots, which many adapters share."""
        return self._part("tree.html", "", nodes, nodes=nodes)

    def _card(self, item: Card, root: str) -> Markup:
        """Returns the markup of a plugin in lists."""
        return self._part("card.html", root, item.plugin, item=item, root=root)

    def _part(self, template: str, place: str, identity: object, **values: Any) -> Markup:
        key = template, place, id(identity)
        if key not in self._made:
            self._kept.append(identity)
            self._made[key] = Markup(self._environment.get_template(template).render(values))
        return self._made[key]

    @staticmethod
    def _some(groups: Sequence[Listing], kind: str) -> list[Listing]:
        return [group for group in groups if group.kind == kind][:_MANY]


@cache
def environment() -> Environment:
    """Returns the environment of the templates, which escapes whatever they print."""
    shared = Environment(
        loader=PackageLoader("refiners.page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=clean,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    shared.filters.update(clipped=clipped, slug=slug)
    return shared
