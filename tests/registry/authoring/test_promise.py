"""Promises of a manifest that can never come true are found before it is published."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from refiners.authoring.portable import unusable
from refiners.authoring.promise import Base, broken_promises, installed_bases
from refiners.cli import main
from refiners.manifest.reader import parse
from refiners.manifest.schema import AdapterManifest, AdapterSpec, WeightsFile

from refiners_core.models.diffusion.slot import SLOTS


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def convert_adapter(text: str) -> AdapterSpec:
    manifest, _ = parse(text, AdapterManifest)
    assert manifest is not None
    return manifest.adapter["edges"]


def adapter_toml(**changes: str) -> str:
    """Returns the manifest of an adapter of sd15 that is good but for some changes."""
    facts = changes.get("facts", "cross_attention_dim = 768")
    slot = changes.get("slot", "unet.cross_attention")
    return f"""
schema = 1
[adapter.edges]
factory = "refiners_edges.adapter:Edges"
summary = "Follow edges"
license = "MIT"
core-api = "{changes.get("api", ">=1.0,<2")}"
[[adapter.edges.variant]]
{changes.get("base", 'base = "sd15"')}
facts = {{ {facts} }}
targets = [{{ slot = "{slot}", stage = "branch" }}]
"""


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({}, ""),
        ({"base": ""}, ""),
        ({"base": 'base = "somebodys"', "slot": "a.b", "facts": "depth = 1"}, ""),
        ({"slot": "unet.cros_attention"}, "did you mean 'unet.cross_attention'?"),
        ({"slot": "unet.cros_attention", "base": ""}, "no slot is called"),
        ({"slot": "text.layers"}, "no slot is called 'text.layers'"),
        ({"api": ">=2"}, "core-api '>=2' excludes the core that is here, 1.0"),
        ({"api": "<1.0"}, 'write core-api = ">=1.0,<2"'),
        ({"facts": "cross_attention_dims = 768"}, "did you mean 'cross_attention_dim'?"),
        ({"facts": "depth = 3", "base": ""}, "any base does not state the fact 'depth'"),
        ({"facts": "cross_attention_dim = 1024"}, "states cross_attention_dim = 768, never 1024"),
    ],
)
def test_what_can_never_come_true_is_found(
    tmp_path: Path, changes: dict[str, str], what: str
) -> None:
    path = tmp_path / "adapter.toml"
    path.write_text(adapter_toml(**changes))
    result = run("validate", "--strict", path)
    assert result.exit_code == (1 if what else 0), result.output
    assert what in result.stdout


def test_the_slots_that_bases_list_are_those_that_they_publish() -> None:
    """A new slot is listed in `registry/refiners/model.toml` as well."""
    for one in installed_bases():
        assert one.slots == {*SLOTS}, one.name


def test_a_base_that_lists_no_slots_is_not_held_to_any() -> None:
    spec = convert_adapter(adapter_toml(slot="a.b"))
    bases = [Base("sd15", {"cross_attention_dim": 768}, frozenset())]
    assert [*broken_promises("edges", spec, bases)] == []


@pytest.mark.parametrize(
    ("repository", "file", "what"),
    [
        ("org/name", "unet/model-00001-of-2.safetensors", ""),
        ("org/a.b_c-d", "w.safetensors", ""),
        ("org/a--b", "w", "no repositories with names like"),
        ("org/a..b", "w", "no repositories with names like"),
        ("org/a.git", "w", "no repositories with names like"),
        ("org/a-", "w", "no repositories with names like"),
        ("org/a.", "w", "no repositories with names like"),
        ("org-/a", "w", "no repositories with names like"),
        ("org/" + "a" * 97, "w", "no repositories with names like"),
        ("org/a", "x" * 256, "is longer than 255 bytes"),
        ("org/a", "\u00e9" * 128, "is longer than 255 bytes"),
        ("org/a", "CON.safetensors", "a device on Windows"),
        ("org/a", "deep/aux", "a device on Windows"),
        ("org/a", "com1.x.safetensors", "a device on Windows"),
        ("org/a", "console.safetensors", ""),
        ("org/a", "w. ", "a blank or a dot"),
        ("org/a", "w.", "a blank or a dot"),
        ("org/a", " w", "a blank or a dot"),
        ("org/a", "w*.safetensors", "does not take in names"),
        ("org/a", "w?.safetensors", "does not take in names"),
        ("org/a", "a|b", "does not take in names"),
        ("org/a", "w\u202ex", "a letter that is not visible"),
        ("org/a", "w\u200bx", "a letter that is not visible"),
        ("org/a", "w\u2028x", "a letter that is not visible"),
        ("org/a", "e\u0301.safetensors", "not NFC"),
        ("org/a", "a/../b", "is not a path"),
        ("org/a", "a/.git/b", "is not a path"),
    ],
)
def test_names_that_can_not_be_fetched_everywhere_are_found(
    repository: str, file: str, what: str
) -> None:
    found = [*unusable(WeightsFile(source=f"hf:{repository}", file=file))]
    assert [what in one for one in found] == ([True] if what else [])
    assert all(one.isascii() for one in found)


def test_names_in_packages_are_held_to_windows_too() -> None:
    (found,) = unusable(WeightsFile(source="pkg:refiners_edges/deep/nul.safetensors"))
    assert "a device on Windows" in found
