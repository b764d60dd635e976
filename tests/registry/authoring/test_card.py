"""The model card of an adapter: fields from the manifest, everything else from its author."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from refiners.authoring.card import Card
from refiners.authoring.card_text import fields_of, with_fields
from refiners.cli import main
from refiners.errors import CacheError
from refiners.testing import LoopbackHub, safetensors_of

from ..conftest import EDGES_TOML, Site

ADVICE = """
[adapter.edges.advice]
trigger-words = ["edgy", "sharp lines"]
examples = ["https://example.org/a.png"]
"""
WEIGHTS = """
[adapter.edges.weights.w]
source = "hf:me/edges"
file = "edges.safetensors"
license = "Apache-2.0"
"""
TOY = """
[model.toy.weights.w]
source = "hf:org/toy"
file = "toy.safetensors"
"""
CARD = """\
---
# how it was made
datasets:
- mine   # of 2024
tags:
- lines
license: mit

widget:
- text: a house
  output:
    url: house.png
# below: the rest
model-name: |
  Edges

  of mine
---
# Edges

My text: --- and more.
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def manifest(tmp_path: Path, hub: LoopbackHub, site: Site) -> Path:
    from ..conftest import TOY_MODEL, TOY_MODEL_TOML

    site.add("refiners-toy", files={"model.py": TOY_MODEL, "model.toml": TOY_MODEL_TOML + TOY})
    hub.publish("me/edges", {"edges.safetensors": safetensors_of({"a": [1.0]})})
    path = tmp_path / "refiners_edges" / "adapter.toml"
    path.parent.mkdir()
    text = EDGES_TOML.replace(
        'summary = "Follow edges"', 'summary = "Follow edges"\nkind = "control"'
    )
    path.write_text(text.replace("targets =", 'weights = "w"\ntargets =') + ADVICE + WEIGHTS)
    return path


def test_a_new_card_has_every_field(manifest: Path, tmp_path: Path) -> None:
    card = tmp_path / "weights" / "README.md"
    card.parent.mkdir()
    examples = manifest.parent / "examples"
    for folder in (examples, card.parent / "examples"):
        folder.mkdir()
        (folder / "house.png").write_bytes(b"")
    (examples / "house.py").write_text('"""Draws a house."""\n')
    (examples / "unseen.png").write_bytes(b"")
    assert run("pin", manifest, "--card", card).exit_code == 0
    assert fields_of(card.read_text()) == {
        "base_model": "org/toy",
        "base_model_relation": "adapter",
        "library_name": "refiners-core",
        "tags": ["refiners-core", "control", "toy"],
        "license": "apache-2.0",
        "instance_prompt": "edgy, sharp lines",
        "widget": [
            {"text": "edgy, sharp lines", "output": {"url": "https://example.org/a.png"}},
            {"text": "Draws a house.", "output": {"url": "examples/house.png"}},
        ],
    }
    assert card.read_text().endswith("---\n\n# edges\n\nFollow edges\n")
    assert run("pin", manifest, "--card", card, "--check").exit_code == 0


def test_an_existing_card_keeps_the_words_of_its_author(manifest: Path, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text(CARD)
    assert run("pin", manifest, "--card", card, "--check").exit_code == 1
    assert card.read_text() == CARD
    result = run("pin", manifest, "--card", card)
    assert result.exit_code == 0, result.output
    text = card.read_text()
    assert text.endswith(CARD[CARD.index("# Edges") :])
    for kept in ("# how it was made\ndatasets:\n- mine   # of 2024\n", "\n# below: the rest\n"):
        assert kept in text
    before, after = fields_of(CARD), fields_of(text)
    assert after | before == after | {
        "tags": ["lines"],
        "license": "mit",
        "widget": before["widget"],
    }
    assert after["tags"] == ["lines", "refiners-core", "control", "toy"]
    assert [entry["text"] for entry in after["widget"]] == ["a house", "edgy, sharp lines"]
    assert after["model-name"] == "Edges\n\nof mine\n"
    card.write_text(text.replace("instance_prompt: edgy", "instance_prompt: blunt"))
    assert run("pin", manifest, "--card", card, "--check").exit_code == 1
    card.write_text(text.replace("library_name: refiners-core", "library_name: peft"))
    assert run("pin", manifest, "--card", card, "--check").exit_code == 0


def test_a_licence_that_the_hub_does_not_list_has_a_name(manifest: Path, tmp_path: Path) -> None:
    manifest.write_text(manifest.read_text().replace("Apache-2.0", "Acme Research 1.0"))
    (tmp_path / "LICENSE").write_text("text")
    run("pin", manifest, "--card", tmp_path / "README.md")
    fields = fields_of((tmp_path / "README.md").read_text())
    assert (fields["license"], fields["license_name"], fields["license_link"]) == (
        "other",
        "acme-research-1.0",
        "LICENSE",
    )


@pytest.mark.parametrize("header", ["a: [", "- a", "tags: a\ntags: {b"])
def test_a_damaged_card_is_refused_and_stays(manifest: Path, tmp_path: Path, header: str) -> None:
    card = tmp_path / "README.md"
    card.write_text(f"---\n{header}\n---\ntext\n")
    result = run("pin", manifest, "--card", card)
    assert result.exit_code == 2
    assert card.read_text() == f"---\n{header}\n---\ntext\n"
    assert "revision" not in manifest.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "---\r\nlicense: mit\r\nx: 1\r\n---\r\nbody\r\n",
        "---\nlicense: >-\n  mit\nx: 1\n---\n",
        "---\n'license': mit # c\nx:\n- license: no\n---",
        "---\nx: 1\nlicense: [mit,\n  gpl]\n---\nbody\n---\n",
    ],
)
def test_one_field_changes_in_every_layout(text: str) -> None:
    after = with_fields(text, {"license": "gpl-3.0"})
    assert fields_of(after) == fields_of(text) | {"license": "gpl-3.0"}
    assert ("\r\n" in after) == ("\r\n" in text)
    assert (
        after.partition("---")[2].partition("\n---")[2]
        == text.partition("---")[2].partition("\n---")[2]
    )
    assert with_fields(after, {"license": "gpl-3.0"}) == after


def test_a_layout_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be changed safely"):
        with_fields("---\n{license: mit, x: 1}\n---\n", {"license": "gpl-3.0"})


def test_a_card_that_is_too_large_is_refused_and_stays(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refiners.authoring.card._LARGEST", 100)
    path = tmp_path / "README.md"
    path.write_text(CARD)
    before = manifest.read_text()
    result = run("pin", manifest, "--card", path)
    assert result.exit_code == 2
    assert "is larger than 100 bytes" in result.output
    assert (path.read_text(), manifest.read_text()) == (CARD, before)


@pytest.mark.parametrize("text", [CARD, "# Edges\n"])
def test_a_mark_of_the_byte_order_stays_in_front(manifest: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text, "utf-8-sig")
    assert run("pin", manifest, "--card", path).exit_code == 0
    content = path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf---\n")
    assert content.count(b"\xef\xbb\xbf") == content.count(b"library_name") == 1
    assert run("pin", manifest, "--card", path, "--check").exit_code == 0


def test_a_file_that_is_no_card_is_refused_and_stays(manifest: Path, tmp_path: Path) -> None:
    before = manifest.read_text()
    link = tmp_path / "LINK.md"
    link.symlink_to(manifest)
    for path in (manifest, link, tmp_path / "pyproject.toml"):
        result = run("pin", manifest, "--card", path)
        assert result.exit_code == 2
        assert "README.md" in result.output
        assert manifest.read_text() == before
    assert not path.exists()


def test_the_folder_of_a_new_card_is_made(manifest: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights" / "of" / "README.md"
    assert run("pin", manifest, "--card", path, "--check").exit_code == 1
    assert not path.parent.parent.exists()
    assert run("pin", manifest, "--card", path).exit_code == 0
    assert "library_name" in path.read_text()


def test_a_card_that_cannot_be_written_is_refused_before_a_pin(
    manifest: Path, tmp_path: Path
) -> None:
    before = manifest.read_text()
    path = tmp_path / "README.md"
    path.write_text(CARD)
    path.chmod(0o444)
    assert f"chmod u+w {path}" in run("pin", manifest, "--card", path).output
    assert "nothing can be made" in run("pin", manifest, "--card", manifest / "README.md").output
    assert (path.read_text(), manifest.read_text()) == (CARD, before)


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_pins_are_listed_even_if_the_card_then_fails(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...]
) -> None:
    def fail(_: Card) -> None:
        raise CacheError("full.", hint="Free space.")

    monkeypatch.setattr(Card, "write", fail)
    result = run("pin", manifest, "--card", tmp_path / "README.md", *option)
    assert result.exit_code != 0
    assert "revision" in manifest.read_text()
    assert ("Already pinned: " if option else "3 pinned") in result.output
    assert "full." in result.output


def test_comments_in_a_field_stay() -> None:
    text = "---\ntags: # found by\n  # kinds\n  - 'a # b' # mine\n  - c\nx: 1\n---\n"
    assert with_fields(text, {"tags": ["a # b", "c", "d"]}) == text.replace("- c\n", "- c\n  - d\n")
    after = with_fields(text, {"tags": ["e"], "x": 2})
    assert after == "---\n# found by\n# kinds\n# mine\ntags:\n- e\nx: 2\n---\n"
    text = "---\nlicense: mit # ours\nprompt: |\n  # no comment\n---\n"
    after = with_fields(text, {"license": "gpl", "prompt": "p"})
    assert after == "---\n# ours\nlicense: gpl\nprompt: p\n---\n"
