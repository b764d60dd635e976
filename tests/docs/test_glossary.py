"""Errors lead to the words of the glossary, and the shell shows where."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import refiners.errors
from click.testing import CliRunner
from refiners.cli import main

from refiners_core.errors import PlanError, RefinersError, SelectionError

ROOT = Path(__file__).parents[2]
HEADING = re.compile(r"^#{1,3} (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(((?!https?:)[^)#\s]*)#([\w-]+)\)")


def anchors(page: Path) -> set[str]:
    return {title.lower().replace(" ", "-") for title in HEADING.findall(page.read_text())}


def kinds(kind: type[RefinersError]) -> Iterator[type[RefinersError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from kinds(below)


def test_every_error_leads_to_a_word_that_is_there():
    pages = {kind.page for kind in kinds(RefinersError) if kind.page}
    assert {refiners.errors.LockError.page, PlanError.page, SelectionError.page} <= pages
    for path, _, anchor in (page.partition("#") for page in pages):
        assert anchor in anchors(ROOT / path)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_link_to_a_heading_leads_to_one(page: Path):
    for path, anchor in LINK.findall(page.read_text()):
        assert anchor in anchors(page.parent / path if path else page)


def test_the_shell_shows_the_page_last():
    lines = CliRunner().invoke(main, ["info", "edgse"], prog_name="refiners").stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert lines[-1] == "  See docs/glossary.md#short-name."


def test_programs_get_the_code_and_no_page():
    printed = CliRunner().invoke(main, ["info", "edgse", "--json"], prog_name="refiners").stdout
    assert {*json.loads(printed)["error"]} == {"code", "message", "hint", "dist"}
