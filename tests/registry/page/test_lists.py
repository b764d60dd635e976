"""Lists, the matrix, the feeds and the index of the search have every plugin, in small files."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from refiners.catalog import SHIPPED, shipped
from refiners.page.site import PAGE_BYTES

from .conftest import Page, built, record, release, site_of
from .test_foreign_text import rows_of

COUNT = 150


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of 150 adapters of two kinds and bases, some of which have reports."""
    folder = tmp_path_factory.mktemp("lists")
    many = [
        release(
            f"edges-{number}",
            distribution="refiners-many",
            kind=("control", "style")[number % 2],
            license=("MIT", "cc-by-nc-4.0")[number % 3 == 0],
            variant=[{"base": ("sd15", "sdxl")[number % 2]}] if number % 5 else [{}],
        )
        for number in range(COUNT)
    ]
    built(folder, *many)
    for number in (3, 5, 7):
        checks = [{"check": "eject", "verdict": "pass"}]
        date = f"2026-11-{number:02d}T10:00:00Z"
        record(folder / "catalog", many[number],
               conformance={"version": "1.0", "date": date, "checks": checks})  # fmt: skip
    return site_of(folder / "catalog", folder / "site")


def names(page: Page) -> list[str]:
    """Returns the paths of plugins that a page links, in order."""
    links = [link.rpartition("/")[2] for link in page.links() if "plugin/" in link]
    return [re.sub(r"adapter-|\.html", "", link) for link in links]


def walked(path: Path) -> list[str]:
    """Returns the plugins of a list, from page to page by its links."""
    known: list[str] = []
    while True:
        page = Page(path)
        known += names(page)
        after = [a["href"] for tag, a in page.elements if tag == "a" and a.get("rel") == "next"]
        if not after:
            return known
        path = path.parent / after[0]


def test_lists_reach_every_plugin_without_scripts(site: Path):
    everything = sorted(f"edges-{n}" for n in range(COUNT))
    assert sorted(walked(site / "list/all.html")) == everything
    assert sorted(walked(site / "matrix/matrix.html")) == everything
    styles = sorted(f"edges-{n}" for n in range(1, COUNT, 2))
    assert sorted(walked(site / "list/kind-style.html")) == styles
    assert sorted(walked(site / "list/base-any.html")) == sorted(
        f"edges-{n}" for n in range(0, COUNT, 5)
    )
    linked = {*Page(site / "index.html").links()}
    assert {"list/kind-style.html", "list/base-sdxl.html", "list/all.html"} <= linked


def test_the_index_of_the_search_has_every_plugin(site: Path):
    rows = rows_of(site)
    assert {f"edges-{n}" for n in range(COUNT)} == {row[0] for row in rows}
    for row in rows:
        assert (site / f"plugin/{row[6]}.html").is_file()
    options = [a["value"] for tag, a in Page(site / "index.html").elements if tag == "option"]
    for value in ("sd15", "sdxl", "any", "control", "style", "MIT", "cc-by-nc-4.0", "blocked"):
        assert value in options


def pages_of(site: Path, name: str) -> list[dict[str, object]]:
    """Returns the pages of a feed, by its own links."""
    pages = [json.loads((site / name).read_text())]
    while "next_url" in pages[-1]:
        pages.append(json.loads((site / pages[-1]["next_url"]).read_text()))
    return pages


def test_feeds_are_json_feeds(site: Path):
    pages = pages_of(site, "feeds/all.json")
    assert len(pages) == 2
    items = [item for page in pages for item in page["items"]]
    assert len({item["id"] for item in items}) == COUNT
    for page in pages:
        assert page["version"] == "https://jsonfeed.org/version/1.1"
    for item in items:
        assert (site / item["url"]).is_file()
        assert item["content_text"]
    newest = pages_of(site, "feeds/newest.json")[0]["items"]
    assert [item["title"] for item in newest] == ["edges-7 1.0", "edges-5 1.0", "edges-3 1.0"]
    assert newest[0]["date_published"] == "2026-11-07T00:00:00Z"
    assert newest[0]["_refiners"]["conformance"] == {
        "passed": 1, "failed": 0, "not_run": 0, "date": "2026-11-07"}  # fmt: skip
    sdxl = pages_of(site, "feeds/base-sdxl.json")[0]["items"]
    assert all("sdxl" in item["_refiners"]["bases"] for item in sdxl)
    documented = Page(site / "feeds.html").text
    assert all(key in documented for key in (*newest[0], *newest[0]["_refiners"]))


def test_the_first_page_shows_what_is_newest(site: Path):
    assert names(Page(site / "index.html")) == ["edges-7", "edges-5", "edges-3"]


def test_the_shipped_catalog_has_a_site_of_small_pages(tmp_path: Path):
    site = site_of(SHIPPED, tmp_path / "site")
    pages = [*site.glob("plugin/*/*.html")]
    assert len(pages) == len(shipped())
    assert all(path.stat().st_size <= PAGE_BYTES for path in site.rglob("*") if path.is_file())
    page = Page(site / "plugin/refiners-controlnet/adapter-controlnet-canny.html")
    assert "sd15, playground, sdxl 3 slots unet input branch skip write branch" in page.text
    for path in (site / "index.html", page_path(site), site / "matrix/matrix-2.html"):
        for link in Page(path).links():
            if not link.startswith(("https://", "#")):
                assert (path.parent / link).is_file(), link


def page_path(site: Path) -> Path:
    return site / "plugin/refiners-lora/adapter-lcm-lora.html"


def test_every_page_has_landmarks_headings_and_labels(site: Path, hostile: Path):
    for path in (*site.glob("*.html"), site / "list/all.html", *hostile.rglob("*.html")):
        page = Page(path)
        tags = [tag for tag, _ in page.elements]
        assert all(tags.count(tag) == 1 for tag in ("main", "footer", "h1", "title"))
        assert page.elements[0] == ("html", {"lang": "en"})
        levels = [int(tag[1]) for tag in tags if tag in ("h1", "h2", "h3")]
        assert all(b <= a + 1 for a, b in pairwise(levels)), path
        assert all(a.get("aria-label") for tag, a in page.elements if tag == "nav")
        assert all("alt" in a for tag, a in page.elements if tag == "img")
        ids = [a["id"] for _, a in page.elements if "id" in a]
        assert len(ids) == len({*ids})
