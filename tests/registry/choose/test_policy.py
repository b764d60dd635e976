"""Policies and advisories apply before anything is fetched or imported; errors name the rule."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import refiners
from click.testing import CliRunner
from refiners.choose.policy import Guard
from refiners.choose.policy_rules import Names
from refiners.cli import main
from refiners.errors import PolicyError
from refiners.testing import LoopbackHub, Repository, safetensors_of

from ..conftest import EDGES_TOML, Site

DATA = safetensors_of({"weight": [1.0, 2.0]})

Rule = Callable[..., None]


@pytest.fixture
def repo(hub: LoopbackHub) -> Repository:
    return hub.publish("org/edges", {"m.safetensors": DATA})


@pytest.fixture
def edges(site: Site, repo: Repository) -> Site:
    site.add_toy()
    pins = f'revision = "{repo.commit}"\nsha256 = "{repo.sha256("m.safetensors")}"\n'
    site.add_edges(
        EDGES_TOML.replace('base = "toy"', 'base = "toy"\nweights = "main"')
        + '[adapter.edges.weights.main]\nsource = "hf:org/edges"\nfile = "m.safetensors"\n'
        + f'license = "openrail"\n{pins}'
    )
    return site


@pytest.fixture
def rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rule:
    """Returns a function that writes the policy of the project and its advisories."""

    def write(policy: str, advisories: str = "") -> None:
        path = tmp_path / "policy.toml"
        more = 'advisories = ["known.toml"]\n' if advisories else ""
        (tmp_path / "known.toml").write_text(f"schema = 1\n[[advisory]]\nid = 'A-1'\n{advisories}")
        path.write_text(f"schema = 1\n{more}{policy}")
        monkeypatch.setenv("REFINERS_POLICY", str(path))

    return write


def load() -> refiners.RefinersError | None:
    try:
        refiners.load_adapter("edges", refiners.load_model("toy"))
    except refiners.RefinersError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            '[packages]\ndeny = ["refiners-edges"]',
            "the package refiners-edges is not allowed (pack",
        ),
        ('[packages]\nallow = ["refiners-toy"]', "(packages.allow of "),
        ('[organisations]\ndeny = ["o*"]', "is not allowed (organisations.deny"),
        ('[organisations]\nallow = ["lllyasviel"]', "(organisations.allow of "),
        ('[licenses]\ndeny = ["OpenRAIL"]', "its licence, openrail, is not allowed"),
        ('[licenses]\nallow = ["mit"]', "(licenses.allow of "),
        ("[files]\nmax-size = 10", "a policy allows 10. Nothing was downloaded"),
    ],
)
def test_a_rule_refuses_before_anything_is_fetched(
    edges: Site, hub: LoopbackHub, rule: Rule, policy: str, message: str
) -> None:
    rule(policy)
    error = load()
    assert isinstance(error, PolicyError)
    assert message in str(error)
    assert error.exit_code == 4
    assert error.hint
    assert "GET" not in [request.method for request in hub.requests]
    rule("")
    assert load() is None


@pytest.mark.parametrize(
    "name", ["refiners_edges", "Refiners.Edges", "refiners__EDGES", "refiners_*"]
)
def test_package_names_are_normalised(edges: Site, rule: Rule, name: str) -> None:
    rule(f'[packages]\ndeny = ["{name}"]')
    assert "packages.deny" in str(load())
    rule(f'[packages]\nallow = ["{name}", "refiners_toy"]')
    assert load() is None
    rule("", f'package = " {name} "\nreason = "bad"')
    assert "is blocked: bad" in str(load())


@pytest.mark.parametrize("name", ["Org/Edges", "hf:org/edges", "ORG/EDGES/"])
def test_repository_names_are_normalised(edges: Site, rule: Rule, name: str) -> None:
    rule("", f'repository = "{name}"\nreason = "bad"')
    assert "is blocked: bad" in str(load())


def test_hashes_are_compared_ignoring_case(edges: Site, rule: Rule, repo: Repository) -> None:
    rule("", f'sha256 = " {repo.sha256("m.safetensors").upper()}"\nreason = "bad"')
    assert "is blocked: bad" in str(load())


@pytest.mark.parametrize("wanted", ['versions = "==1.2.0"', 'lowest = "1.10"'])
def test_versions_are_compared_as_versions(edges: Site, rule: Rule, wanted: str) -> None:
    rule("", f'package = "refiners-edges"\n{wanted}\nreason = "bad"')
    assert "is blocked: bad" in str(load())


@pytest.mark.parametrize("wanted", ["<" + "9" * 5000, "<\u0662"])
def test_malformed_specifiers_are_refused(edges: Site, rule: Rule, wanted: str) -> None:
    rule("", f'package = "refiners-edges"\nversions = "{wanted}"\nreason = "bad"')
    assert "cannot be read" in str(load())


def test_a_refused_package_is_not_imported(edges: Site, rule: Rule) -> None:
    rule('[packages]\ndeny = ["refiners-edges"]')
    with pytest.raises(PolicyError):
        refiners.load_adapter("edges")
    assert "refiners_edges.adapter" not in sys.modules


@pytest.mark.parametrize(
    ("advisory", "message"),
    [
        ('package = "refiners-edges"\nreason = "bad"', "refiners-edges 1.2 is blocked: bad (adv"),
        ('package = "refiners-edges"\nlowest = "1.3"\nreason = "bad"', "refiners-edges>=1.3'"),
        ('package = "refiners-*"\nversions = "==1.2"\nreason = "bad"', "is blocked"),
        ('package = "refiners-edges"\nstatus = "yanked"\nreason = "bad"', "is yanked: bad"),
        (
            'repository = "org/edges"\nreason = "bad"\ninstead = "x"',
            "is blocked: bad (adv",
        ),
        ('package = "refiners-edges"\nlowest = "1.2"\nreason = "bad"', None),
        ('package = "refiners-edges"\nversions = "<1"\nreason = "bad"', None),
        ('repository = "org/other"\nreason = "bad"', None),
        ('repository = "org/edges"\nstatus = "deprecated"\nreason = "bad"', None),
    ],
)
def test_an_advisory_refuses_the_package_or_file_that_it_names(
    edges: Site, rule: Rule, advisory: str, message: str | None
) -> None:
    rule("", advisory)
    error = load()
    assert (error is None) == (message is None)
    if message:
        assert isinstance(error, PolicyError)
        assert message in str(error)


def test_an_advisory_may_name_a_hash(edges: Site, rule: Rule, repo: Repository) -> None:
    rule("", f'sha256 = "{repo.sha256("m.safetensors")}"\nreason = "bad"')
    assert "is blocked: bad" in str(load())


def test_a_deprecated_package_works_with_a_notice(edges: Site, rule: Rule) -> None:
    rule("", 'package = "refiners-edges"\nstatus = "deprecated"\nreason = "old"\ninstead = "canny"')
    with pytest.warns(DeprecationWarning, match=r"edges is deprecated .*: old\. Use canny\."):
        assert load() is None
    result = CliRunner().invoke(main, ["tree", "toy", "--with", "edges"])
    assert "note: refiners-edges:edges is deprecated" in result.stderr


def test_a_yanked_package_stays_usable_under_a_lock(
    edges: Site, rule: Rule, tmp_path: Path
) -> None:
    path = tmp_path / "refiners.lock"
    assert CliRunner().invoke(main, ["lock", "--out", str(path)]).exit_code == 0
    rule("", 'package = "refiners-edges"\nstatus = "yanked"\nreason = "bad"')
    assert isinstance(load(), PolicyError)
    assert refiners.load_adapter("edges", refiners.load_model("toy"), lock=path).is_worn


def test_the_policy_of_the_user_applies_as_well(edges: Site, tmp_path: Path) -> None:
    path = tmp_path / "config" / "refiners" / "policy.toml"
    path.parent.mkdir(parents=True)
    path.write_text('schema = 1\n[packages]\ndeny = ["*"]')
    assert isinstance(load(), PolicyError)


@pytest.mark.parametrize("text", ["[packages]\nallowed = []", "x", "[files]\nmax-size = 0"])
def test_an_unreadable_policy_allows_nothing(edges: Site, rule: Rule, text: str) -> None:
    rule(text)
    assert "cannot be read" in str(load())


@pytest.mark.parametrize("advisory", ["", 'reason = "a"\nversions = "about 1"'])
def test_unreadable_advisories_allow_nothing(edges: Site, rule: Rule, advisory: str) -> None:
    rule("", advisory or "odd = 1")
    assert "cannot be read" in str(load())


def test_a_missing_policy_allows_nothing(edges: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFINERS_POLICY", "/nowhere/policy.toml")
    assert "cannot be read" in str(load())


def test_why_and_sync_name_the_rule(edges: Site, rule: Rule, tmp_path: Path) -> None:
    path = str(tmp_path / "refiners.lock")
    CliRunner().invoke(main, ["lock", "--out", path])
    rule('[organisations]\ndeny = ["org"]')
    why = CliRunner().invoke(main, ["why", "edges", "--model", "toy", "--json"])
    assert why.exit_code == 1
    assert "organisations.deny" in why.stdout
    sync = CliRunner().invoke(main, ["sync", "--locked", "--lock", path])
    assert sync.exit_code == 4
    assert "organisations.deny" in sync.stderr


def test_the_shipped_advisories_are_read() -> None:
    assert Guard.from_environment().policies == ()


def test_names_are_matched_by_pattern() -> None:
    names = Names(allow=("refiners-*",), deny=("*-evil",))
    assert [names.refuses(name) for name in ("refiners-x", "refiners-evil", "other")] == [
        "",
        "deny",
        "allow",
    ]
