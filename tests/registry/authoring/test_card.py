"""The model card of an adapter: fields from the manifest, everything else from its author."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from refiners.authoring.card_text import fields_of, with_fields
from refiners.cli import main
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
