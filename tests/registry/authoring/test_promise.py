"""Requirements of a manifest that can never be met are found before publication."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from refiners.authoring.portable import unusable
from refiners.authoring.promise import Base, broken_promises, installed_bases
from refiners.cli import main
from refiners.manifest.reader import parse
from refiners.manifest.schema import AdapterManifest, AdapterSpec, WeightsFile

from refiners_core.models.decoder import DECODER_SLOTS
from refiners_core.models.diffusion.slot import SLOTS


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def convert_adapter(text: str) -> AdapterSpec:
    manifest, _ = parse(text, AdapterManifest)
    assert manifest is not None
    return manifest.adapter["edges"]


def adapter_toml(**changes: str) -> str:
    """Returns a valid manifest of an adapter for sd15, with some changes."""
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
    ("changes", "problem"),
    [
        ({}, ""),
        ({"base": ""}, ""),
        ({"base": 'base = "somebodys"', "slot": "a.b", "facts": "depth = 1"}, ""),
        ({"slot": "unet.cros_attention"}, "did you mean 'unet.cross_attention'?"),
        (
            {"slot": "unet.cros_attention", "base": ""},
            "the slot 'unet.cros_attention' does not exist",
        ),
        ({"slot": "text.layers"}, "the slot 'text.layers' does not exist"),
        ({"slot": "decoder.block"}, "the slot 'decoder.block' does not exist"),
        ({"slot": "decoder.block", "base": "", "facts": ""}, ""),
        (
            {"slot": "unett.linear", "base": "", "facts": ""},
            "the slot 'unett.linear' does not exist",
        ),
        ({"api": ">=2"}, "core-api '>=2' excludes the installed core, 1.0"),
        ({"api": "<1.0"}, 'write core-api = ">=1.0,<2"'),
        ({"facts": "cross_attention_dims = 768"}, "did you mean 'cross_attention_dim'?"),
        ({"facts": "depth = 3", "base": ""}, "any base does not state the fact 'depth'"),
        ({"facts": "cross_attention_dim = 1024"}, "states cross_attention_dim = 768, never 1024"),
    ],
)
def test_impossible_requirements_are_found(
    tmp_path: Path, changes: dict[str, str], problem: str
) -> None:
    path = tmp_path / "adapter.toml"
    path.write_text(adapter_toml(**changes))
    result = run("validate", "--strict", path)
    assert result.exit_code == (1 if problem else 0), result.output
    assert problem in result.stdout


def test_the_listed_slots_of_bases_are_complete() -> None:
    """A new slot must be listed in `registry/refiners/model.toml` as well."""
    for base in installed_bases():
        is_decoder = base.name in ("decoder", "playground-writer")
        assert base.slots == {*(DECODER_SLOTS if is_decoder else SLOTS)}, base.name


def test_any_slot_is_accepted_for_a_base_without_a_list() -> None:
    spec = convert_adapter(adapter_toml(slot="a.b"))
    bases = [Base("sd15", {"cross_attention_dim": 768}, frozenset())]
    assert [*broken_promises("edges", spec, bases)] == []


@pytest.mark.parametrize(
    ("repository", "file", "problem"),
    [
        ("org/name", "unet/model-00001-of-2.safetensors", ""),
        ("org/a.b_c-d", "w.safetensors", ""),
        ("org/a--b", "w", "does not allow the repository name"),
        ("org/a..b", "w", "does not allow the repository name"),
        ("org/a.git", "w", "does not allow the repository name"),
        ("org/a-", "w", "does not allow the repository name"),
        ("org/a.", "w", "does not allow the repository name"),
        ("org-/a", "w", "does not allow the repository name"),
        ("org/" + "a" * 97, "w", "does not allow the repository name"),
        ("org/a", "x" * 256, "is longer than 255 bytes"),
        ("org/a", "\u00e9" * 128, "is longer than 255 bytes"),
        ("org/a", "CON.safetensors", "a device on Windows"),
        ("org/a", "deep/aux", "a device on Windows"),
        ("org/a", "com1.x.safetensors", "a device on Windows"),
        ("org/a", "console.safetensors", ""),
        ("org/a", "w. ", "a blank or a dot"),
        ("org/a", "w.", "a blank or a dot"),
        ("org/a", " w", "a blank or a dot"),
        ("org/a", "w*.safetensors", "does not allow in names"),
        ("org/a", "w?.safetensors", "does not allow in names"),
        ("org/a", "a|b", "does not allow in names"),
        ("org/a", "w\u202ex", "an invisible character"),
        ("org/a", "w\u200bx", "an invisible character"),
        ("org/a", "w\u2028x", "an invisible character"),
        ("org/a", "e\u0301.safetensors", "not in Unicode NFC"),
        ("org/a", "a/../b", "is not a path"),
        ("org/a", "a/.git/b", "is not a path"),
    ],
)
def test_names_that_cannot_be_fetched_everywhere_are_found(
    repository: str, file: str, problem: str
) -> None:
    problems = [*unusable(WeightsFile(source=f"hf:{repository}", file=file))]
    assert [problem in text for text in problems] == ([True] if problem else [])
    assert all(text.isascii() for text in problems)


def test_names_in_packages_must_be_valid_on_windows() -> None:
    (problem,) = unusable(WeightsFile(source="pkg:refiners_edges/deep/nul.safetensors"))
    assert "a device on Windows" in problem
