"""The gallery shows every example, and links it with its adapters and slots, both ways."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import refiners

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def gallery() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_page", DOCS / "example_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["example_page"] = module
    spec.loader.exec_module(module)
    return module


def test_every_example_has_a_page_of_its_own(gallery: ModuleType):
    pages = [script.page for script in gallery.shown()]
    stems = [page.partition("/")[2] for page in pages]
    assert len(set(stems)) == len(stems)
    assert {f"guidance/{name}" for name in ("apg", "pag", "tcfg")} <= {*pages}
    assert sum(page.startswith("combinations/") for page in pages) >= 5
    assert sum(page.startswith("families/family_") for page in pages) >= 20


def test_a_page_links_to_its_adapters_and_slots_and_says_how_to_run_it(gallery: ModuleType):
    (script,) = (script for script in gallery.shown() if script.page == "freeu/freeu")
    text = gallery.linked(script)
    assert text.startswith('r"""\nFreeU: a stronger backbone and calmer skips\n=====')
    assert ":Adapters: :ref:`freeu <example-adapters-freeu>`\n" in text
    assert ":ref:`unet.skip.read <example-slots-unet-skip-read>`" in text
    assert ":Run it: ``refiners examples refiners-freeu --run freeu``" in text
    compile(text, "freeu.py", "exec")


def test_a_family_links_to_the_slots_that_it_asks_for(gallery: ModuleType):
    (script,) = (script for script in gallery.shown() if script.page == "families/family_t_gate")
    assert script.slots == ("denoise.branches", "unet.cross_attention")
    assert "<example-slots-unet-cross_attention>" in gallery.linked(script)


def test_the_list_has_every_target_of_a_link(gallery: ModuleType, tmp_path: Path):
    gallery.write_scripts(tmp_path / "scripts", tmp_path / "pages" / "by-name.md")
    listed = (tmp_path / "pages" / "by-name.md").read_text()
    targets = set(re.findall(r"^\(([\w-]+)\)=$", listed, re.MULTILINE))
    scripts = [path.read_text() for path in (tmp_path / "scripts").rglob("*.py")]
    assert len(scripts) == len(gallery.shown())
    links = {link for text in scripts for link in re.findall(r"<(example-[\w-]+)>", text)}
    assert links == targets
    assert (tmp_path / "scripts/combinations/GALLERY_HEADER.rst").is_file()
    for page in re.findall(r"\(/gallery/([\w/]+)\.rst\)", listed):
        assert (tmp_path / "scripts" / f"{page}.py").is_file()


@pytest.mark.parametrize(
    ("page", "kind", "names"),
    [
        ("guide/adapters", "adapters", {"freeu", "apg", "lora-ink", "writer-green"}),
        ("guide/adapter", "slots", {"unet-linear", "unet-skip-read"}),
        ("guide/language", "slots", {"decoder-linear"}),
    ],
)
def test_tables_of_the_guide_link_to_the_list(
    gallery: ModuleType, page: str, kind: str, names: set[str]
):
    text = gallery.with_links(page, (DOCS / f"{page}.md").read_text())
    assert names <= set(re.findall(rf"\(#example-{kind}-([\w-]+)\)", text))
    assert gallery.with_links("guide/memory", "| `freeu` | `freeu` |") == "| `freeu` | `freeu` |"


def test_info_names_the_examples_of_an_adapter():
    from click.testing import CliRunner
    from refiners.cli import main

    assert "refiners examples freeu" in CliRunner().invoke(main, ["info", "freeu"]).stdout
    assert [e.name for e in refiners.examples("refiners-freeu")] == ["freeu", "fresca"]
