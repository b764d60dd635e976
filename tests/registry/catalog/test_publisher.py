"""The attested publisher: in the catalog and in locks, and a change of it is shown by name."""

import base64
import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import refiners
from click.testing import CliRunner, Result
from refiners.catalog import Release, listed, releases
from refiners.catalog.attestation import TOOL
from refiners.catalog.build import add
from refiners.catalog.entry import read_releases
from refiners.catalog.publisher import Publisher, publisher_in
from refiners.choose.lock import read_lock
from refiners.cli import main
from refiners.doctor import examine
from refiners.errors import IntegrityError, PublisherNotice
from refiners.testing import LoopbackHub

from ..conftest import Site
from .test_catalog import EDGES_TOML, wheel

OURS = {"kind": "GitHub", "repository": "Me/edges", "workflow": "release.yml", "environment": "x"}
THEIRS = OURS | {"repository": "evil/edges"}
OLD, NEW = "github:me/edges@release.yml", "github:evil/edges@release.yml"


def run(*arguments: object, answer: str = "") -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=answer)


def provenance(
    path: Path, publisher: dict[str, str] | None = None, **changes: str
) -> dict[str, Any]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    subject = {"name": path.name, "digest": {"sha256": digest}} | changes
    statement = base64.b64encode(json.dumps({"subject": [subject]}).encode()).decode()
    bundle = {
        "publisher": publisher or OURS,
        "attestations": [{"version": 1, "envelope": {"statement": statement, "signature": ""}}],
    }
    return {"version": 1, "attestation_bundles": [bundle]}


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site, hub: LoopbackHub) -> Path:
    folder = tmp_path / "catalog"
    monkeypatch.setenv("REFINERS_CATALOG", str(folder))
    monkeypatch.setenv("REFINERS_INDEX", hub.url)
    monkeypatch.setenv("PATH", str(tmp_path))  # without the tool of the index
    return folder


def serve(hub: LoopbackHub, path: Path, **how: Any) -> Path:
    version = path.name.split("-")[1]
    place = f"integrity/refiners-edges/{version}/{path.name}/provenance"
    hub.documents[place] = provenance(path, **how)
    return path


def recorded(*publishers: str | None, folder: Path) -> None:
    """Fills a catalog with releases 1.0, 1.1 and so on, each by one publisher."""
    spec = {"summary": "Follow edges", "variant": [{"base": "toy"}]}
    add(
        folder,
        [
            Release(
                name="edges",
                kind="adapter",
                distribution="refiners-edges",
                version=f"1.{number}",
                spec=spec | {"factory": "a:b", "core_api": ">=1"},
                publisher=who and Publisher(kind="GitHub", repository=who, workflow="release.yml"),
            )
            for number, who in enumerate(publishers)
        ],
    )


def test_the_publisher_is_read_at_the_index_and_recorded_as_claimed(
    catalog: Path, tmp_path: Path, hub: LoopbackHub
) -> None:
    path = serve(hub, wheel(tmp_path))
    result = run("catalog", "add", path, "--yes")
    assert result.exit_code == 0, result.output
    assert f'+ publisher = "{OLD} (claimed)"' in result.output
    published = [release.publisher for entry in listed() for release in releases(entry)]
    assert {str(publisher) for publisher in published} == {f"{OLD} (claimed)"}
    assert "Authorization" not in hub.requests[0].headers
    assert run("info", "edges", "--json").exit_code == 0
    assert json.loads(run("info", "edges", "--json").stdout)["publisher"] == OLD


def test_another_publisher_is_refused_unless_accepted(
    catalog: Path, tmp_path: Path, hub: LoopbackHub
) -> None:
    run("catalog", "add", serve(hub, wheel(tmp_path)), "--yes")
    before = {path: path.read_bytes() for path in catalog.rglob("*.jsonl")}
    for path in (
        serve(hub, wheel(tmp_path, version="1.1"), publisher=THEIRS),
        wheel(tmp_path, version="1.2"),
    ):
        result = run("catalog", "add", path, "--yes")
        assert result.exit_code == 1
        assert OLD in result.output
        assert "--accept-publisher" in result.output
    assert {path: path.read_bytes() for path in catalog.rglob("*.jsonl")} == before
    path = tmp_path / "refiners_edges-1.1-py3-none-any.whl"
    assert run("catalog", "add", path, "--yes", "--accept-publisher").exit_code == 0
    assert run("catalog", "add", path, "--yes", "--offline").exit_code == 0  # nothing changes
    assert NEW in {
        p.publisher.identity
        for f in catalog.rglob("*.jsonl")
        for p in read_releases(f)
        if p.publisher
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "other.whl"}, "has no statement about these bytes"),
        ({"digest": {"sha256": "0" * 64}}, "has no statement about these bytes"),
        ({"publisher": {"kind": "GitHub", "repository": "a\x1b[2Jb"}}, "cannot be read"),
        ({"publisher": {"kind": "GitHub"}}, "cannot be read"),
    ],
)
def test_a_provenance_of_other_bytes_or_without_a_publisher_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = wheel(tmp_path)
    content = json.dumps(provenance(path, **changes)).encode()
    with pytest.raises(IntegrityError, match=message):
        publisher_in(content, path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def test_an_index_that_fails_is_not_an_index_without_provenance(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFINERS_INDEX", "http://127.0.0.1:9")
    result = run("catalog", "add", wheel(tmp_path), "--yes")
    assert result.exit_code == 3
    assert "--offline" in result.output
    assert not catalog.exists()
    monkeypatch.setenv("REFINERS_INDEX", "example.org")
    assert "REFINERS_INDEX=https://" in run("catalog", "add", wheel(tmp_path), "--yes").output


@pytest.mark.parametrize(("code", "verdict"), [(0, "verified"), (1, "are not of")])
def test_the_tool_verifies_signatures_where_it_is_installed(
    catalog: Path, tmp_path: Path, hub: LoopbackHub, code: int, verdict: str
) -> None:
    tool = tmp_path / TOOL
    tool.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv)\nsys.exit({code})\n")
    tool.chmod(0o755)
    result = run("catalog", "add", serve(hub, wheel(tmp_path)), "--yes")
    assert verdict in result.output
    assert result.exit_code == (4 if code else 0)


def test_a_change_is_shown_until_a_load_accepts_it(catalog: Path, site: Site) -> None:
    recorded("me/edges", "me/edges", "evil/edges", folder=catalog)
    site.add_toy()
    site.add_edges()  # version 1.2
    for _ in range(2):
        shown = run("list")
        assert shown.exit_code == 0
        assert shown.stderr.count(NEW) == shown.stderr.count(OLD) == 1
        assert "refiners-edges==1.1" in shown.stderr
        (problem,) = [p for p in examine(is_probing=False) if p.kind == "publisher"]
        assert problem.command == "pip install 'refiners-edges==1.1'"
    with pytest.warns(PublisherNotice, match=f"{OLD}.*{NEW}"):
        refiners.load_adapter("edges")
    with warnings.catch_warnings():
        warnings.simplefilter("error", PublisherNotice)
        refiners.load_adapter("edges")
    assert NEW not in run("list").stderr
    assert not [p for p in examine(is_probing=False) if p.kind == "publisher"]


def test_a_publisher_that_is_no_longer_attested_is_shown(catalog: Path, site: Site) -> None:
    recorded("me/edges", "me/edges", None, folder=catalog)
    site.add_edges()
    assert "has no attested publisher" in run("list").stderr


@pytest.mark.parametrize(
    "publishers", [("me/edges",) * 3, (None,) * 3, ("me/edges",), (None, None, "me/edges")]
)
def test_without_a_change_nothing_is_shown(
    catalog: Path, site: Site, publishers: tuple[str | None, ...]
) -> None:
    recorded(*publishers, folder=catalog)
    site.add_edges()
    assert run("list").stderr == ""
    assert examine(is_probing=False) == ()


def test_a_lock_records_the_publisher_and_locking_again_accepts_a_new_one(
    catalog: Path, site: Site, tmp_path: Path
) -> None:
    path = tmp_path / "refiners.lock"
    recorded("me/edges", "me/edges", "me/edges", folder=catalog)
    site.add_toy()
    site.add_edges()
    assert run("lock", "edges", "--out", path).stderr == ""
    assert read_lock(path).plugin[0].publisher == OLD
    for file in catalog.rglob("*.jsonl"):
        file.unlink()
    recorded("me/edges", "me/edges", "evil/edges", folder=catalog)
    with pytest.warns(PublisherNotice, match=NEW):
        refiners.load_adapter("edges", lock=path)
    with pytest.warns(PublisherNotice, match=NEW):  # the lock still has the old one
        refiners.load_adapter("edges", lock=path)
    shown = run("lock", "edges", "--out", path)
    assert shown.stderr.count(OLD) == shown.stderr.count(NEW) == 1
    assert read_lock(path).plugin[0].publisher == NEW
    assert run("lock", "edges", "--out", path).stderr == ""
    assert NEW not in run("list").stderr  # accepted on this machine as well


def test_the_difference_is_shown_and_asked_about(
    catalog: Path, tmp_path: Path, hub: LoopbackHub
) -> None:
    report = {
        "schema": 1, "name": "edges", "dist": "refiners-edges", "version": "1.0", "core": "1.0",
        "date": "2026-11-26", "checks": [{"check": "eject", "verdict": "pass", "reason": None}],
    }  # fmt: skip
    files = {"refiners_edges/conformance.json": json.dumps(report)}
    (tmp_path / "dist").mkdir()
    wheel(tmp_path / "dist", files=files)
    for answer, message in (("n\n", "Nothing was written"), ("", "Add --yes")):
        assert message in run("catalog", "add", tmp_path, answer=answer).output
        assert not catalog.exists()
    assert json.loads(run("catalog", "add", tmp_path, "--json").stdout)["added"] == []
    assert "2 added" in run("catalog", "add", tmp_path, answer="y\n").output
    (edges, _) = [releases(entry)[0] for entry in listed()]
    assert edges.conformance
    assert edges.conformance.checks[0].verdict == "pass"
    changed = {"refiners_edges/adapter.toml": EDGES_TOML.replace("Follow", "Trace")}
    result = run("catalog", "add", wheel(tmp_path, version="1.1", files=changed), "--yes")
    for line in (
        '- summary = "Follow edges"',
        '+ summary = "Trace edges"',
        '- conformance.eject = "pass"',
    ):
        assert line in result.output
    assert "factory" not in result.output


def test_a_stale_report_and_a_taken_name_are_refused(catalog: Path, tmp_path: Path) -> None:
    report = {"schema": 1, "name": "edges", "dist": "refiners-edges", "version": "0.9",
              "core": "1.0", "date": "2026-11-26", "checks": []}  # fmt: skip
    stale = wheel(tmp_path, files={"refiners_edges/conformance.json": json.dumps(report)})
    assert "pytest --conformance" in run("catalog", "add", stale, "--offline", "--yes").output
    run("catalog", "add", wheel(tmp_path), "--offline", "--yes")
    info = "refiners_edges-1.0.dist-info/METADATA"
    other = wheel(tmp_path, files={info: "Name: refiners-other\nVersion: 1.0\n"})
    result = run("catalog", "add", other, "--offline", "--yes")
    assert result.exit_code == 1
    assert "refiners-edges published first" in result.output


def test_of_two_packages_in_one_call_one_has_the_name(catalog: Path, tmp_path: Path) -> None:
    info = "refiners_edges-1.0.dist-info/METADATA"
    for folder, files in (("a", {}), ("b", {info: "Name: refiners-other\nVersion: 1.0\n"})):
        (tmp_path / folder).mkdir()
        wheel(tmp_path / folder, files=files)
    result = run("catalog", "add", tmp_path / "a", tmp_path / "b", "--offline", "--yes")
    assert result.exit_code == 1
    assert "refiners-edges published first" in result.output
    assert not catalog.exists()


def test_a_search_list_of_something_else_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "search.json").write_text('{"mine": 1}')
    for command in (("build", wheel(tmp_path), "--out"), ("add", tmp_path, "--yes", "--catalog")):
        result = run("catalog", *command, mine)
        assert result.exit_code == 1, result.output
        assert str(mine / "search.json") in result.output.replace("\n", "")
    assert [(p.name, p.read_text()) for p in mine.iterdir()] == [("search.json", '{"mine": 1}')]
