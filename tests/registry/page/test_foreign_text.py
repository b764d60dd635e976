"""Whatever a manifest states is shown as text: no element, no link, no hidden character of its."""

import json
import re
from pathlib import Path

import pytest
from refiners.errors import OptionError
from refiners.host.text import is_plain
from refiners.manifest.schema import WeightsFile
from refiners.page.link import base_address, file_link, paper_link, web_link
from refiners.page.template import environment
from refiners.page.text import clipped, slug

from .conftest import HOSTILE, Page, adapter_page, built, release

ELEMENTS = """
    html head meta title link script body a header nav ul ol li main section h1 h2 h3 p form label
    input span kbd select option button noscript template footer code div table thead tbody tr th td
    dl dt dd pre aside figure figcaption img details summary strong q article
"""
HANDLER = re.compile(r"on\w+")


def test_foreign_text_adds_no_element_and_no_attribute(hostile: Path):
    pages = [*hostile.rglob("*.html")]
    assert len(pages) > len(HOSTILE) * 2
    for path in pages:
        page = Page(path)  # which fails if an element is left open
        for tag, attributes in page.elements:
            assert tag in ELEMENTS.split()
            assert not [name for name in attributes if HANDLER.fullmatch(name) or name == "style"]
        scripts = [attributes["src"] for tag, attributes in page.elements if tag == "script"]
        assert scripts == (["assets/search.js"] if path == hostile / "index.html" else [])
        images = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
        assert all(re.fullmatch(r"(\.\./)*(assets|plugin)/[\w./-]+", image) for image in images)


def test_foreign_text_is_shown_as_it_is(hostile: Path):
    for number, text in enumerate(HOSTILE):
        if not text.isprintable():
            continue
        page = adapter_page(hostile, f"bad-{number}")
        assert page.text.count(clipped(text)) >= 10
        assert page.text.count("49") == 0


def test_characters_that_hide_or_reorder_words_are_escaped(hostile: Path):
    for path in hostile.rglob("*"):
        if path.suffix in (".html", ".js", ".json") and path.parent.name != "assets":
            assert is_plain(path.read_text().replace("\n", "")), path
    assert r"\u202egnp.exe\u2066" in adapter_page(hostile, "bad-4").text
    assert r"\x1b[31m\x00\u200b\ufeff" in adapter_page(hostile, "bad-5").text


def test_a_template_escapes_what_nothing_else_has():
    template = environment().from_string("{{ text }}")
    assert template.render(text="<\u202e\x00&") == "&lt;\\u202e\\x00&amp;"


def test_links_lead_within_the_site_or_to_a_known_form_of_address(hostile: Path):
    for path in hostile.rglob("*.html"):
        for link in Page(path).links():
            if link.startswith("https://"):
                assert re.fullmatch(
                    r"https://(pypi\.org/project|huggingface\.co|jsonfeed\.org)/[\w./-]+", link
                )
            elif not link.startswith("#"):
                target = (path.parent / link).resolve()
                assert target.is_relative_to(hostile), link
                assert target.is_file(), f"{path}: {link}"


def test_every_page_allows_only_its_own_files(hostile: Path):
    for path in hostile.rglob("*.html"):
        (policy,) = (
            attributes["content"]
            for tag, attributes in Page(path).elements
            if attributes.get("http-equiv") == "Content-Security-Policy"
        )
        assert "default-src 'none'" in policy
        assert not re.search(r"unsafe|https?:|\*|data:", policy)


def test_the_index_of_the_search_is_data(hostile: Path):
    rows = rows_of(hostile)
    assert len(rows) == len(HOSTILE)
    assert {row[1] for row in rows} == {"Follow the edges of a picture"}
    for path in (hostile / "data").glob("*.js"):
        assert path.read_text().isascii()
        assert "</script" not in path.read_text().replace("<\\/", "")


def rows_of(site: Path) -> list[list[object]]:
    """Returns the rows of the index of a search."""
    scripts = [path.read_text() for path in sorted((site / "data").glob("*.js"))]
    bodies = [re.fullmatch(r"refinersCatalog\.add\(\d+,(.*)\);\n", s, re.DOTALL) for s in scripts]
    return [row for body in bodies if body for row in json.loads(body[1])]


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        " https://example.org",
        "https://example.org/\nx",
        "https://user@example.org/",
        "https://example.org\\@evil.org",
        "https://ex\u0430mple.org/",  # a Cyrillic letter
        "https://example.org/\u202e",
        "http://example.org",
        "//example.org",
        "data:text/html,x",
        "https://localhost/",
        'https://example.org/"onclick="x',
        "https://example.org/<b>",
        "https://example.org/" + "a" * 1000,
        None,
        7,
    ],
)
def test_an_address_of_another_form_is_not_linked(address: object):
    assert web_link(address) == ""
    assert paper_link(str(address)) == ""


def test_an_address_of_a_known_form_is_linked():
    assert web_link("https://example.org:8443/a/b.c?d=e&f=%20#g").endswith("#g")
    assert paper_link("arXiv:2302.05543") == "https://arxiv.org/abs/2302.05543"
    assert paper_link("arXiv:2302.05543/../x") == ""
    file = WeightsFile(source="hf:a/b", file="d e/f#g.safetensors", revision="a" * 40)
    assert file_link(file) == f"https://huggingface.co/a/b/blob/{'a' * 40}/d%20e/f%23g.safetensors"
    assert file_link(WeightsFile(source="civitai:1234")) == ""


@pytest.mark.parametrize("address", ["javascript:x", "https://a b/", "https://a/?q", "example.org"])
def test_a_site_has_a_plain_address(address: str, tmp_path: Path):
    with pytest.raises(OptionError, match="not the address of a site"):
        built(tmp_path, release(), base_url=address)
    assert not (tmp_path / "site").exists()
    assert base_address("https://example.org/x") == "https://example.org/x/"


def test_names_become_paths_without_collisions():
    names = ["a", "a-b", "A", "a b", "a/b", "../a", "", "con", "x" * 300, "x" * 301, "ä"]
    slugs = [slug(name) for name in names]
    assert len({*slugs}) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]{1,80}", each) for each in slugs)
