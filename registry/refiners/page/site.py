"""Which files the site has, and how they are written: all of them, or none."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

from refiners.errors import OptionError
from refiners.page.card import Card, card_of
from refiners.page.extras import Extras, Picture
from refiners.page.feed import feed_pages, newest
from refiners.page.link import base_address
from refiners.page.listing import Listing, list_pages
from refiners.page.notice import AVAILABLE, Notices
from refiners.page.published import Plugin
from refiners.page.shard import Facets, shards
from refiners.page.sheet import LIMITS, sheet_of
from refiners.page.slot_tree import KnownSlots
from refiners.page.template import Templates
from refiners.page.text import slug

PAGE_BYTES: Final = 100_000
"""The most bytes of a page."""
_MARK: Final = "catalog-page.txt"
"""The file with the names of all others, by which a later build knows what it may replace."""
_ASSETS: Final = ("style.css", "search.js", "icon.svg")
_LISTED: Final = 60
"""The plugins of one page of a list."""
_SHOWN: Final = 24
"""The plugins of the first page."""
_IN_MATRIX: Final = 80
"""The rows of one page of the matrix."""


class Site(NamedTuple):
    """The counts of a site that was written."""

    plugins: int
    pages: int
    files: int
    largest_page: int
    """The size of the largest page in bytes."""


def write_site(
    out: Path,
    plugins: Sequence[Plugin],
    notices: Notices | None = None,
    extras: Extras | None = None,
    *,
    base_url: str = "",
) -> Site:
    """Writes the site of a catalog.

    Args:
        out: The folder; a site that is there is replaced, and files beside it are kept.
        plugins: The plugins, sorted by name.
        notices: The advisories on them.
        extras: What their wheels carry besides manifests.
        base_url: The address where the site will be; only feeds and canonical links need it.

    Raises:
        OptionError: The folder has files of others alone or cannot be written, or the address is
            not one.
    """
    address = base_address(base_url)
    out = out.resolve() if out.is_symlink() else out
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / _MARK).is_file())):
        raise OptionError(
            f"{out} has files that are not of a catalog's page.", hint="Name a new folder."
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            fresh.chmod(0o755)
            site = _fill(fresh, _files(plugins, notices or Notices(), extras or Extras(), address))
            _keep_others(out, fresh)
            _replace(out, fresh)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise OptionError(
            f"{out} cannot be written: {error}.", hint="Name another folder."
        ) from error
    return site._replace(plugins=len(plugins))


def _fill(folder: Path, content: Iterable[tuple[str, bytes]]) -> Site:
    pages = count = largest = 0
    names: list[str] = []
    made: set[Path] = set()
    for name, data in content:
        path = folder / name
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        path.write_bytes(data)
        count += 1
        if name.endswith(".html"):
            pages += 1
            largest = max(largest, len(data))
        names.append(name)
    text = "Written by refiners catalog page; the next build replaces these files:\n"
    (folder / _MARK).write_text(text + "\n".join([*names, _MARK, ""]), "utf-8")
    return Site(0, pages, count + 1, largest)


def _keep_others(out: Path, fresh: Path) -> None:
    """Copies what an earlier build did not write, such as a repository, to the new site.

    Raises:
        OptionError: A file has a name that the new site needs.
    """
    if not (out / _MARK).is_file():
        return
    written = {*(out / _MARK).read_text("utf-8").splitlines()[1:]}
    folders = {name.partition("/")[0] for name in written if "/" in name}
    for path in out.iterdir():
        if path.name not in folders:
            inside = [] if path.name in written else [path]
        else:
            inside = [file for file in path.rglob("*") if file.is_symlink() or not file.is_dir()]
        for other in inside:
            name = other.relative_to(out)
            if name.as_posix() in written:
                continue
            target = fresh / name
            if target.exists():
                raise OptionError(
                    f"{other} is not of the catalog's page, which needs its name.",
                    hint="Move it away, or name a new folder.",
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            if other.is_dir() and not other.is_symlink():
                shutil.copytree(other, target, symlinks=True)
            else:
                shutil.copy2(other, target, follow_symlinks=False)


def _replace(out: Path, fresh: Path) -> None:
    """Moves a complete site into its place, and removes the one that was there."""
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        if out.exists():
            out.rename(old / "site")
        fresh.rename(out)
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _files(
    plugins: Sequence[Plugin], notices: Notices, extras: Extras, address: str
) -> Iterator[tuple[str, bytes]]:
    """Yields the path and the content of every file."""
    cards = [card_of(plugin, notices, extras) for plugin in plugins]
    facets = Facets(cards)
    groups = _groups(cards)
    scripts = [*shards(cards, facets)]
    fits_any = any(group.stem == "base-any" for group in groups)
    templates = Templates(address, scripts=len(scripts), count=len(cards), fits_any=fits_any)
    for name in _ASSETS:
        yield f"assets/{name}", (files("refiners.page") / "assets" / name).read_bytes()
    for number, script in enumerate(scripts):
        yield f"data/{number}.js", script.encode()
    yield (
        "index.html",
        templates.index(newest(cards)[:_SHOWN] or _sample(cards), cards, facets, groups),
    )
    for group in groups:
        yield from list_pages(group, _LISTED, templates.list_page)
    rows = sorted(cards, key=lambda card: (card.category, card.name))
    table = Listing("matrix", "Capabilities", "", rows, "matrix")
    yield from list_pages(table, _IN_MATRIX, templates.matrix)
    yield "feeds.html", templates.feeds(groups)
    yield from feed_pages("feeds/all.json", "All plugins", cards, address)
    yield from feed_pages("feeds/newest.json", "Newest releases", newest(cards), address)
    for group in groups:
        if group.kind == "base":
            yield from feed_pages(f"feeds/{group.stem}.json", group.title, group.cards, address)
    yield from _plugin_pages(cards, KnownSlots(plugins), notices, extras, templates)


def _plugin_pages(
    cards: Iterable[Card],
    slots: KnownSlots,
    notices: Notices,
    extras: Extras,
    templates: Templates,
) -> Iterator[tuple[str, bytes]]:
    written: set[str] = set()
    for card in cards:
        pictures: dict[str, Picture] = {
            _picture_path(card, picture): picture
            for picture in extras.pictures_of(card.dist, card.plugin.entry.name)
        }
        for path, picture in pictures.items():
            if path not in written:
                written.add(path)
                yield path, picture.content
        page = b""
        for limit in LIMITS:
            page = templates.plugin(card, sheet_of(card, slots, notices, limit), pictures)
            if len(page) <= PAGE_BYTES:
                break
        yield card.path, page


def _picture_path(card: Card, picture: Picture) -> str:
    digest = hashlib.sha256(picture.content).hexdigest()[:16]
    return f"plugin/{card.dist}/pictures/{digest}.{picture.ending}"


def _groups(cards: Sequence[Card]) -> tuple[Listing, ...]:
    """Returns the lists: of all plugins, by kind and by base."""
    kinds = Counter(card.category for card in cards)
    bases = Counter(base for card in cards for base in card.bases)
    of_kind: Mapping[str, list[Card]] = {name: [] for name in kinds}
    of_base: Mapping[str, list[Card]] = {name: [] for name in bases}
    for card in cards:
        of_kind[card.category].append(card)
        for base in dict.fromkeys(card.bases):
            of_base[base].append(card)
    return (
        Listing("all", "All plugins", "", cards, "all"),
        *(Listing("kind", f"Kind: {name}", name, of_kind[name], f"kind-{slug(name)}")
          for name, _ in kinds.most_common()),
        *(Listing("base", f"For {name}" if name != "any" else "For any model", name,
                  of_base[name], f"base-{slug(name)}")
          for name, _ in bases.most_common()),
    )  # fmt: skip


def _sample(cards: Sequence[Card]) -> tuple[Card, ...]:
    """Returns some plugins of each kind, for a catalog without dates."""
    available = [card for card in cards if card.status == AVAILABLE]
    places: Counter[str] = Counter()
    ordered: list[tuple[int, int]] = []
    for number, card in enumerate(available):
        ordered.append((places[card.category], number))
        places[card.category] += 1
    return tuple(available[number] for _, number in sorted(ordered)[:_SHOWN])
