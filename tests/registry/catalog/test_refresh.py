"""Refreshing the catalog from the Hub: it only grows, only informs, and keeps the present copy."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
import refiners
from click.testing import CliRunner, Result
from huggingface_hub import constants
from refiners import catalog
from refiners.catalog import Release, listed
from refiners.catalog.build import add, write_list
from refiners.catalog.entry import entry_files
from refiners.catalog.publisher import Publisher
from refiners.choose.policy import Guard
from refiners.choose.publisher import identity_of
from refiners.cli import main
from refiners.hub.client import Hub
from refiners.refresh import Refreshed, refresh
from refiners.testing import Fault, LoopbackHub

from ..conftest import EDGES_TOML, Site
from ..hub.test_faults import disk, needs_mount

SOURCE = "hf:org/catalog"
SPEC: dict[str, Any] = {
    "factory": "m.adapter:Made",
    "summary": "Follow edges",
    "core-api": ">=1.0,<2",
    "variant": [{"base": "sd15"}],
}
HEAD = "schema = 1\n"
BAD = '[[advisory]]\nid = "R-1"\nreason = "it is evil"\npackage = "refiners-edges"\n'


def release(name: str, version: str = "1.0", **spec: Any) -> Release:
    return Release(
        name=name,
        kind="adapter",
        distribution=f"refiners-{name}",
        version=version,
        spec=SPEC | spec,
    )


EDGES = release("edges", "1.0.dev0")


def files_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.suffix in (".jsonl", ".json", ".toml"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def releases_in(folder: Path) -> list[Release]:
    return [release for path in entry_files(folder) for release in catalog.read_releases(path)]


def files_of_entries(folder: Path) -> dict[str, bytes]:
    """Returns a catalog in which every entry has a separate file."""
    files: dict[str, bytes] = {}
    for item in releases_in(folder):
        path = f"entries/{item.distribution}/{item.kind}-{item.name}.jsonl"
        files[path] = files.get(path, b"") + line(item)
    return files


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site) -> Path:
    """The catalog in the wheel, with one adapter."""
    folder = tmp_path / "shipped"
    for path, content in {"old": line(release("old")), "edges": line(EDGES)}.items():
        (folder / f"entries/refiners-{path}").mkdir(parents=True)
        (folder / f"entries/refiners-{path}/adapter-{path}.jsonl").write_bytes(content)
    write_list(folder)
    (folder / "advisories.toml").write_text(HEAD)
    monkeypatch.setattr(catalog, "SHIPPED", folder)
    monkeypatch.setattr("refiners.choose.policy._SHIPPED", folder / "advisories.toml")
    return folder


@pytest.fixture
def publish(hub: LoopbackHub, tmp_path: Path, shipped: Path) -> Callable[..., None]:
    """Publishes the shipped releases and more, with changes to the files."""

    def put(
        *more: Release, advisories: str = HEAD, is_shared: bool = False, **changes: bytes | None
    ) -> None:
        folder = tmp_path / "published"
        if not folder.exists():
            add(folder, releases_in(shipped))
        add(folder, more)
        files = files_of(folder) if is_shared else files_of_entries(folder)
        files |= {"advisories.toml": advisories.encode(), "README.md": b"hello"}
        for name, content in changes.items():
            path = f"entries/refiners-{name}/adapter-{name}.jsonl"
            if content is None:
                del files[path]
            else:
                files[path] = content
        hub.publish("org/catalog", files)

    return put


def bring(source: str | None = SOURCE) -> Refreshed:
    return refresh(source, Hub.from_environment(), Guard.from_environment())


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def names() -> list[tuple[str, str]]:
    return [(entry.name, entry.version) for entry in listed()]


OLD = [("edges", "1.0.dev0"), ("old", "1.0")]


def line(item: Release) -> bytes:
    return msgspec.json.encode(item) + b"\n"


def test_new_releases_are_known_and_the_hint_installs_them(
    publish: Callable[..., None], site: Site
) -> None:
    publish(release("new"), release("old", "1.1"))
    assert names() == OLD
    refreshed = bring()
    assert sorted(str(item) for item in refreshed.added) == [
        "adapter refiners-new:new 1.0",
        "adapter refiners-old:old 1.1",
    ]
    assert names() == [("edges", "1.0.dev0"), ("new", "1.0"), ("old", "1.1")]
    with pytest.raises(refiners.NotInstalledError) as caught:
        refiners.load_adapter("new")
    assert "pip install refiners-new" in caught.value.hint
    assert "refiners-new" in run("search", "follow").stdout
    assert json.loads(run("info", "old", "--json").stdout)["version"] == "1.1"


def test_only_changed_files_are_fetched(hub: LoopbackHub, publish: Callable[..., None]) -> None:
    publish(release("new"))
    bring()
    bodies = [r.path for r in hub.requests if r.method == "GET" and "/resolve/" in r.path]
    assert [path.rpartition("/")[2] for path in bodies] == ["adapter-new.jsonl"]
    hub.requests.clear()
    assert bring(None).added == ()
    assert not [r for r in hub.requests if "/resolve/" in r.path]


def test_the_fetched_copy_is_read_offline_and_can_be_forgotten(
    hub: LoopbackHub, publish: Callable[..., None]
) -> None:
    publish(release("new"))
    bring()
    hub.requests.clear()
    assert ("new", "1.0") in names()
    assert hub.requests == []
    assert run("catalog", "forget").stdout == "Removed.\n"
    assert names() == OLD
    assert run("catalog", "forget").stdout == "No catalog was fetched.\n"


def test_a_newer_wheel_takes_precedence_over_an_older_fetched_copy(
    publish: Callable[..., None], shipped: Path
) -> None:
    publish(release("new"))
    bring()
    add(shipped, [release("old", "1.10"), release("more")])
    assert names() == [("edges", "1.0.dev0"), ("more", "1.0"), ("new", "1.0"), ("old", "1.10")]
    (old,) = (entry for entry in listed() if entry.name == "old")
    assert [item.version for item in catalog.releases(old)] == ["1.0", "1.10"]


CLAIMED = {"z-tools": ("old", ()), "a-tools": ("old", ()), "b-tools": ("mine", ("old", "good"))}


def stranger(dist: str, name: str, aliases: tuple[str, ...] = ()) -> Release:
    spec = SPEC | {"summary": "Trace edges", "aliases": list(aliases)}
    return Release(name=name, kind="adapter", distribution=dist, version="9.0", spec=spec)


def test_a_stranger_cannot_claim_a_name_of_the_wheel(publish: Callable[..., None]) -> None:
    publish(*(stranger(dist, name, aliases) for dist, (name, aliases) in CLAIMED.items()))
    bring()
    claims = [(entry.name, entry.distribution, entry.aliases) for entry in listed()]
    assert claims == [
        ("edges", "refiners-edges", ()),
        ("mine", "b-tools", ("good",)),
        ("old", "refiners-old", ()),
    ]
    with pytest.raises(refiners.NotInstalledError, match="Run pip install refiners-old"):
        refiners.load_adapter("old")


def test_a_name_that_two_strangers_claim_is_ambiguous(publish: Callable[..., None]) -> None:
    publish(stranger("z-tools", "new"), stranger("a-tools", "new"))
    bring()
    with pytest.raises(refiners.NotInstalledError, match="by 2 distributions") as caught:
        refiners.load_adapter("new")
    assert "pip install a-tools or pip install z-tools" in caught.value.hint


def test_an_installed_name_is_not_looked_up_elsewhere(
    publish: Callable[..., None], site: Site
) -> None:
    manifest = EDGES_TOML.replace("adapter.edges", "adapter.mine")
    site.add("refiners-edges", files={"adapter.toml": manifest})
    publish(stranger("a-tools", "mine"))
    bring()
    assert "a-tools" not in run("search", "mine").stdout


def test_a_shared_catalog_is_fetched_in_few_requests(
    hub: LoopbackHub, publish: Callable[..., None], tmp_path: Path
) -> None:
    publish(*(release(f"new-{i}") for i in range(60)), is_shared=True)
    assert len(bring().added) == 60
    assert len(hub.requests) <= 20
    assert len([p for p in (tmp_path / "hf").rglob("*") if not p.is_dir()]) <= 22
    hub.requests.clear()
    assert bring(None).added == ()
    assert len(hub.requests) == 2
    publish(release("more"), is_shared=True)
    hub.requests.clear()
    assert [str(item) for item in bring().added] == ["adapter refiners-more:more 1.0"]
    assert len([r for r in hub.requests if "/resolve/" in r.path]) == 1
    assert ("more", "1.0") in names()
    assert ("new-7", "1.0") in names()


def test_an_entry_takes_one_request(hub: LoopbackHub, publish: Callable[..., None]) -> None:
    publish(*(release(f"new-{i}") for i in range(20)))
    bring()
    assert len(hub.requests) == 22


def nested(real: Callable[..., Any], *, before: bool = False) -> Callable[..., Any]:
    """Runs another whole refresh, once, in the middle of this one."""
    left = [1]

    def wrapper(*arguments: Any) -> Any:
        result = None if before else real(*arguments)
        if left:
            left.clear()
            bring()
        return real(*arguments) if before else result

    return wrapper


@pytest.mark.parametrize("before", [True, False])
def test_a_refresh_in_another_loses_nothing(
    hub: LoopbackHub, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    publish(release("new"), advisories=HEAD + BAD)
    module = "refiners.refresh"
    monkeypatch.setattr(f"{module}.write_list", nested(write_list, before=before))
    bring()
    assert ("new", "1.0") in names()
    assert [advisory.id for advisory in Guard.from_environment().advisories] == ["R-1"]
    assert len([path for path in catalog.fetched_home().iterdir() if path.is_dir()]) == 1


def test_a_copy_that_another_refresh_removes_meanwhile_is_not_missed(
    hub: LoopbackHub, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(release("new"))
    bring()
    publish(release("new"), release("newer"))

    def removed(path: Path) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr("refiners.refresh.kept_files", dict)
    monkeypatch.setattr("refiners.refresh.open_regular", removed)
    bring()
    assert ("newer", "1.0") in names()


def test_a_copy_that_is_installed_after_the_hub_was_asked_does_not_count_as_known(
    hub: LoopbackHub, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(release("new"))
    bring()
    publish(release("new"), release("second"))
    read = sys.modules["refiners.refresh"]._known

    def known() -> list[Release]:
        monkeypatch.setattr("refiners.refresh._known", read)
        publish(release("new"), release("second"), release("third"), advisories=HEAD + BAD)
        bring()
        return read()

    monkeypatch.setattr("refiners.refresh._known", known)
    bring()
    assert ("third", "1.0") in names()


def test_an_older_refresh_does_not_undo_a_newer_one(
    hub: LoopbackHub, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(release("new"))

    def newer(folder: Path) -> None:
        write_list(folder)
        monkeypatch.setattr("refiners.refresh.write_list", write_list)
        publish(release("newer"), advisories=HEAD + BAD)
        bring()

    monkeypatch.setattr("refiners.refresh.write_list", newer)
    bring()
    assert ("newer", "1.0") in names()
    assert [advisory.id for advisory in Guard.from_environment().advisories] == ["R-1"]


def test_a_copy_that_is_replaced_during_a_read_is_read_again(publish: Callable[..., None]) -> None:
    publish(release("new"), advisories=HEAD + BAD)
    bring()
    publish(release("newer"), advisories=HEAD + BAD)
    seen: list[Path] = []

    def read(places: tuple[Path, ...]) -> bytes:
        seen.append(places[-1])
        if len(seen) == 1:
            bring()
        return (places[-1] / "search.json").read_bytes()

    assert b"newer" in catalog.steadily(read)
    assert len({*seen}) == 2


def test_many_refreshes_at_once_lose_nothing(
    hub: LoopbackHub, publish: Callable[..., None]
) -> None:
    publish(release("new"), advisories=HEAD + BAD)
    bring()
    with ThreadPoolExecutor(4) as pool:
        for number in range(4):
            publish(release(f"new-{number}"), advisories=HEAD + BAD)
            writers = [pool.submit(bring) for _ in range(3)]
            while not all(writer.done() for writer in writers):
                assert {"edges", "new", "old"} <= {entry.name for entry in listed()}
                assert [advisory.id for advisory in Guard.from_environment().advisories] == ["R-1"]
            for writer in writers:
                writer.result()
    assert {f"new-{number}" for number in range(4)} <= {entry.name for entry in listed()}


def test_leftovers_of_a_killed_refresh_are_removed_after_an_hour(
    publish: Callable[..., None],
) -> None:
    publish(release("new"))
    home = catalog.fetched_home()
    for name, age in {"left": 7200, "in-the-making": 10}.items():
        (home / name).mkdir(parents=True)
        os.utime(home / name, (time.time() - age,) * 2)
    bring()
    assert not (home / "left").exists()
    assert (home / "in-the-making").exists()


REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "a dropped adapter": ({"old": None}, "adapter refiners-old:old 1.0: gone"),
    "a dropped release": ({"old": line(release("old", "2.0"))}, "refiners-old:old 1.0: gone"),
    "a changed release": (
        {"old": line(release("old", summary="Steal edges"))},
        'refiners-old:old 1.0: summary was "Follow edges", is "Steal edges"',
    ),
    "a dropped development version": ({"edges": None}, "refiners-edges:edges 1.0.dev0: gone"),
    "an entry in the wrong file": ({"evil": line(release("old"))}, "an invalid entry"),
    "a garbled entry": ({"evil": b"{"}, "cannot be read"),
    "an entry that is not text": ({"evil": b"\xff\n"}, "cannot be read"),
    "an invalid version": ({"evil": line(release("evil", "one"))}, "an invalid entry"),
    "a terminal escape": (
        {"evil": line(release("evil", summary="\x1b[2J"))},
        "an invalid entry",
    ),
    "two lines for one version": (
        {"evil": line(release("evil", summary="a")) + line(release("evil", summary="b"))},
        "twice, and not the same",
    ),
    "two spellings of one version": (
        {"evil": line(release("evil", "1.0")) + line(release("evil", "1.0.0"))},
        "twice, and not the same",
    ),
    "a second line for a known version": (
        {"old": line(release("old", summary="Steal edges")) + line(release("old"))},
        "twice, and not the same",
    ),
    "no summary": (
        {"evil": line(release("evil")).replace(b'"summary"', b'"x"')},
        "an invalid entry",
    ),
    "a summary that is a number": ({"evil": line(release("evil", summary=5))}, "an invalid entry"),
    "a summary of two lines": (
        {"evil": line(release("evil", summary="a\n b"))},
        "an invalid entry",
    ),
    "variants that are text": ({"evil": line(release("evil", variant="abc"))}, "an invalid entry"),
    "no variants": ({"evil": line(release("evil", variant=[]))}, "an invalid entry"),
    "a base that is a shell command": (
        {"evil": line(release("evil", variant=[{"base": "$(ls)"}]))},
        "an invalid entry",
    ),
    "aliases that are text": ({"evil": line(release("evil", aliases="abc"))}, "an invalid entry"),
    "an alias that is a path": (
        {"evil": line(release("evil", aliases=["../a"]))},
        "an invalid entry",
    ),
    "a version of 5000 digits": ({"evil": line(release("evil", "9" * 5000))}, "cannot be read"),
    "a version with a shell command": ({"evil": line(release("evil", "1;ls"))}, "cannot be read"),
    "a deep table": (
        {"evil": line(release("evil")).replace(b'"sd15"', b"[" * 9000 + b"]" * 9000)},
        "cannot be read",
    ),
    "hidden characters": ({"evil": line(release("evil", paper="\u202e"))}, "an invalid entry"),
    "control characters in a key": (
        {"evil": line(release("evil", **{"\x9b": 1}))},
        "an invalid entry",
    ),
    "a huge file": ({"evil": b" " * 5_000_001}, "of 5000001 bytes"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_catalog_that_shrank_or_is_damaged_is_refused(
    publish: Callable[..., None], what: str
) -> None:
    changes, message = REFUSED[what]
    publish(release("good"), **changes)
    result = run("catalog", "refresh", SOURCE)
    assert result.exit_code == 1
    assert message in result.stderr
    assert names() == OLD
    assert catalog.current() is None


def test_a_catalog_keeps_what_was_fetched_before(
    publish: Callable[..., None], hub: LoopbackHub
) -> None:
    publish(release("new"), advisories=HEAD + BAD)
    bring()
    publish(new=None, advisories=HEAD + BAD.replace("evil", "fine"))
    with pytest.raises(refiners.CatalogError) as caught:
        bring()
    assert "adapter refiners-new:new 1.0: gone" in caught.value.message
    assert "advisory R-1: changed" in caught.value.message
    publish()
    with pytest.raises(refiners.CatalogError, match="advisory R-1: gone"):
        bring()
    assert ("new", "1.0") in names()


def test_a_development_version_may_be_replaced(publish: Callable[..., None]) -> None:
    publish(edges=line(release("edges", "1.0.dev0", summary="Trace edges")))
    bring()
    assert [entry.summary for entry in listed()] == ["Trace edges", "Follow edges"]


def test_a_fetched_advisory_is_applied(publish: Callable[..., None], site: Site) -> None:
    site.add_edges()
    refiners.load_adapter("edges")
    publish(advisories=HEAD + BAD)
    result = run("catalog", "refresh", SOURCE)
    assert "R-1" in result.stdout
    with pytest.raises(refiners.PolicyError, match="it is evil"):
        refiners.load_adapter("edges")


def test_hashes_in_a_catalog_are_ignored(publish: Callable[..., None], site: Site) -> None:
    pins = {"w": {"source": "hf:evil/edges", "file": "w.safetensors", "sha256": "0" * 64}}
    publish(release("edges", "9.0", weights=pins))
    bring()
    site.add_edges()
    (edges,) = refiners.adapters()
    assert (edges.version, edges.spec.weights) == ("1.2", {})
    assert refiners.load_adapter("edges").name == "edges"
    assert EDGES_TOML in edges.path.read_text()


@pytest.mark.parametrize("advisories", ["schema = 2", "[", HEAD + "[[advisory]]\nid = 3"])
def test_garbled_advisories_are_refused(publish: Callable[..., None], advisories: str) -> None:
    publish(advisories=advisories)
    with pytest.raises(refiners.RefinersError, match="cannot be read"):
        bring()
    assert catalog.current() is None


ENTRY = "entries/refiners-new/adapter-new.jsonl"
FAULTS: list[tuple[str, Fault, str, int]] = [
    ("info", Fault.GATED, "access", 3),
    ("info", Fault.UNAVAILABLE, "network", 3),
    ("info", Fault.WRONG_COMMIT, "missing", 3),
    ("tree", Fault.TOO_MANY, "network", 3),
    (ENTRY, Fault.RESET, "network", 3),
    (ENTRY, Fault.SHORT, "network", 3),
    (ENTRY, Fault.WRONG_BYTES, "integrity", 4),
    (ENTRY, Fault.WRONG_SIZE, "integrity", 4),
    (ENTRY, Fault.WRONG_COMMIT, "integrity", 4),
    (ENTRY, Fault.NO_HASH, "integrity", 4),
    (ENTRY, Fault.DISABLED, "missing", 3),
]


@pytest.mark.parametrize(("file", "fault", "code", "exit_code"), FAULTS)
def test_a_failing_hub_leaves_the_present_copy(
    hub: LoopbackHub,
    publish: Callable[..., None],
    file: str,
    fault: Fault,
    code: str,
    exit_code: int,
) -> None:
    publish(release("earlier"))
    bring()
    publish(release("new"))
    before = names()
    hub.fail(file, fault, method="GET" if "WRONG_B" in fault.name else "")
    result = run("catalog", "refresh", "--json")
    assert result.exit_code == exit_code
    assert json.loads(result.stdout)["error"]["code"] == code
    assert names() == before
    hub.heal()
    bring()
    assert ("new", "1.0") in names()


def test_offline_the_present_copy_stays(
    publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(release("new"))
    bring()
    monkeypatch.setenv("REFINERS_OFFLINE", "1")
    result = run("catalog", "refresh")
    assert (result.exit_code, "going online is forbidden" in result.stderr) == (3, True)
    assert ("new", "1.0") in names()


def test_a_refresh_names_a_missing_or_malformed_source(
    publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = run("catalog", "refresh")
    assert result.exit_code == 2
    assert "refiners catalog refresh hf:organisation/name" in result.stderr
    assert run("catalog", "refresh", "org/catalog").exit_code == 2
    assert run("catalog", "refresh", f"{SOURCE}/part").exit_code == 2
    assert run("catalog", "refresh", "hf:org/gone").exit_code == 3
    monkeypatch.setenv("REFINERS_CATALOG", str(tmp_path))
    assert "Unset REFINERS_CATALOG" in run("catalog", "refresh", SOURCE).stderr


def test_a_denied_organisation_gets_no_request(
    hub: LoopbackHub,
    publish: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish()
    path = tmp_path / "policy.toml"
    path.write_text('schema = 1\n[organisations]\ndeny = ["org"]\n')
    monkeypatch.setenv("REFINERS_POLICY", str(path))
    result = run("catalog", "refresh", SOURCE)
    assert (result.exit_code, "organisations.deny" in result.stderr) == (4, True)
    assert hub.requests == []


def test_the_error_of_a_damaged_copy_names_the_way_out(
    publish: Callable[..., None], site: Site
) -> None:
    publish(release("new"))
    bring()
    (path,) = catalog.fetched_home().glob("*/search.json")
    path.write_text("[")
    result = run("search", "new")
    assert (result.exit_code, "refiners catalog forget" in result.stderr) == (1, True)
    result = run("doctor", "--quick")
    assert (result.exit_code, "refiners catalog forget" in result.stdout) == (1, True)
    site.add_edges()
    assert refiners.load_adapter("edges").name == "edges"  # an installed adapter needs no catalog
    assert run("catalog", "forget").exit_code == 0
    assert run("search", "old").exit_code == 0


def test_a_failed_write_leaves_the_previous_copy(
    publish: Callable[..., None], hub: LoopbackHub
) -> None:
    publish(release("earlier"))
    bring()
    publish(release("new"))
    before = names()
    for place in ("pathlib.Path.write_bytes", "pathlib.Path.replace"):
        with patch(place, side_effect=OSError("no room")), pytest.raises(refiners.CacheError):
            bring()
        assert names() == before
        assert len([path for path in catalog.fetched_home().iterdir() if path.is_dir()]) == 1
    bring()
    assert len([path for path in catalog.fetched_home().iterdir() if path.is_dir()]) == 1


@needs_mount
def test_a_full_disk(
    publish: Callable[..., None], hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(release("large", summary="x" * 200_000))
    with disk(tmp_path / "small", "size=64k") as small:
        monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(small))
        with pytest.raises(refiners.CacheError, match="No space left"):
            bring()
        assert names() == OLD
        assert [path for path in catalog.fetched_home().iterdir() if path.is_dir()] == []


def test_a_fetched_catalog_cannot_change_a_recorded_publisher(
    publish: Callable[..., None], shipped: Path
) -> None:
    ours = Publisher(kind="GitHub", repository="me/old", workflow="release.yml")
    recorded = msgspec.structs.replace(release("old"), publisher=ours)
    (shipped / "entries/refiners-old/adapter-old.jsonl").write_bytes(line(recorded))
    theirs = msgspec.structs.replace(ours, repository="evil/old")
    publish(old=line(msgspec.structs.replace(recorded, publisher=theirs)))
    with pytest.raises(
        refiners.errors.CatalogError, match=r"was github:me/old@release.yml, is github:evil/old@"
    ):
        bring()
    publish(old=line(msgspec.structs.replace(recorded, publisher=None)))
    bring()  # a copy that records less does not contradict it
    assert identity_of("refiners-old", "1.0") == ours.identity
