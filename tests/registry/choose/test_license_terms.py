"""Licences that forbid commercial use: `info` shows them, loading warns, and policies refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
import refiners
from click.testing import CliRunner
from refiners.cli import main
from refiners.errors import Notice, PolicyError
from refiners.manifest.license_terms import terms_of
from refiners.manifest.schema import External, WeightsFile
from refiners.testing import LoopbackHub, safetensors_of
from safetensors.numpy import save

from ..conftest import EDGES_TOML, Site

DATA = safetensors_of({"weight": [1.0, 2.0]})
READER = """
[adapter.edges.file]
summary = "edges"
[[adapter.edges.file.layout]]
name = "plain"
keys = ["weight"]
"""
POLICY = 'schema = 1\n[licenses]\ndeny = ["non-commercial"]\n'


@pytest.mark.parametrize(
    "license",
    [
        "cc-by-nc-4.0",
        "CC-BY-NC-SA-4.0",
        "cc-by-nc-nd-3.0",
        "non-commercial research",
        "other (flux-1-dev-non-commercial-license)",
        "fair-noncommercial-research-license",
        "intel-research",
        "apple-amlr",
        "sai-nc-community",
        "research only",
        "insightface model zoo",
    ],
)
def test_a_name_shows_that_commercial_use_is_forbidden(license: str):
    assert terms_of(license) == "non-commercial"


@pytest.mark.parametrize(
    "license",
    [
        *("", "mit", "apache-2.0", "openrail", "openrail++", "creativeml-openrail-m", "cc-by-4.0"),
        *("other (stability card)", "cc0-1.0", "ncsa", "llama3.2", "commercial"),
    ],
)
def test_other_names_do_not(license: str):
    assert terms_of(license) == ""


def test_a_manifest_may_declare_what_the_name_does_not_show():
    assert WeightsFile(source="hf:a/b", license="apache-2.0", commercial=False).terms
    assert not WeightsFile(source="hf:a/b", license="research", commercial=True).terms
    assert External(summary="a model", commercial=False).terms


def declared(license: str, hub: LoopbackHub) -> str:
    repository = hub.publish("org/edges", {"m.safetensors": DATA})
    return (
        EDGES_TOML.replace('base = "toy"', 'base = "toy"\nweights = "main"')
        + '[adapter.edges.weights.main]\nsource = "hf:org/edges"\nfile = "m.safetensors"\n'
        + f'{license}\nrevision = "{repository.commit}"\n'
        + f'sha256 = "{repository.sha256("m.safetensors")}"\n'
    )


@pytest.fixture(params=['license = "cc-by-nc-4.0"', 'license = "mit"\ncommercial = false'])
def edges(request: pytest.FixtureRequest, site: Site, hub: LoopbackHub) -> Site:
    site.add_toy()
    site.add_edges(declared(request.param, hub))
    return site


def forbid(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "policy.toml").write_text(POLICY)
    monkeypatch.setenv("REFINERS_POLICY", str(folder / "policy.toml"))


def test_info_shows_the_terms(edges: Site):
    result = CliRunner().invoke(main, ["info", "edges", "--json"])
    assert json.loads(result.stdout)["weights"][0]["terms"] == "non-commercial"
    assert "non-commercial use only" in " ".join(
        CliRunner().invoke(main, ["info", "edges"], terminal_width=200).stdout.split()
    )


def test_the_first_load_warns_before_anything_is_fetched(edges: Site, hub: LoopbackHub):
    adapter = refiners.load_adapter("edges")
    with pytest.warns(Notice, match="refiners-edges:edges is for non-commercial use only, by"):
        adapter.inject(refiners.load_model("toy"))
    result = CliRunner().invoke(main, ["fetch", "edges"])
    assert "note: refiners-edges:edges is for non-commercial use only" in result.stderr


def test_a_policy_may_forbid_them(
    edges: Site, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    forbid(tmp_path, monkeypatch)
    with pytest.raises(PolicyError, match="for non-commercial use only, is not allowed"):
        refiners.load_adapter("edges", refiners.load_model("toy"))
    assert "GET" not in [request.method for request in hub.requests]
    policy = (tmp_path / "policy.toml").read_text()
    (tmp_path / "policy.toml").write_text(policy.replace("deny", "allow"))
    with pytest.warns(Notice):
        assert refiners.load_adapter("edges", refiners.load_model("toy")).is_worn


def test_a_licence_of_the_hub_that_is_not_listed_has_its_name(
    site: Site, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    site.add_toy()
    site.add_edges(EDGES_TOML + READER)
    hub.publish(
        "org/mine", {"m.safetensors": DATA}, "other", license_name="flux-1-dev-non-commercial"
    )
    model = refiners.load_model("toy")
    with pytest.warns(Notice, match="flux-1-dev-non-commercial"):
        refiners.load_adapter("hf:org/mine", model)
    facts = json.loads(CliRunner().invoke(main, ["info", "hf:org/mine", "--json"]).stdout)
    assert (facts["license"], facts["terms"]) == ("flux-1-dev-non-commercial", "non-commercial")
    forbid(tmp_path, monkeypatch)
    with pytest.raises(PolicyError, match="flux-1-dev-non-commercial"):
        refiners.load_adapter("hf:org/mine", refiners.load_model("toy"))


@pytest.mark.parametrize(("stated", "is_refused"), [("CC-BY-NC-4.0", True), ("MIT", False)])
def test_a_header_forbids_but_never_permits(
    stated: str, is_refused: bool, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    site.add_toy()
    site.add_edges(EDGES_TOML + READER)
    path = tmp_path / "m.safetensors"
    path.write_bytes(save({"weight": np.ones(1)}, {"modelspec.license": stated}))
    forbid(tmp_path, monkeypatch)
    model = refiners.load_model("toy")
    if is_refused:
        with pytest.raises(PolicyError, match="CC-BY-NC"):
            refiners.load_adapter(path, model)
        return
    assert refiners.load_adapter(path, model).is_worn
    (tmp_path / "policy.toml").write_text('schema = 1\n[licenses]\nallow = ["mit"]\n')
    with pytest.raises(PolicyError, match="a missing licence"):
        refiners.load_adapter(path, refiners.load_model("toy"))
