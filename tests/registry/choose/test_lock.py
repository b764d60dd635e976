"""Locks: written by the tool, applied by every load that names one, equal on two machines."""

import json
import os
import shutil
from pathlib import Path

import pytest
import refiners
from click.testing import CliRunner, Result
from refiners.choose.lock import Lock, LockedFile, LockedPlugin, digest, read_lock, write_lock
from refiners.cli import main
from refiners.errors import LockError
from refiners.testing import Fault, LoopbackHub, Repository, safetensors_of

from ..conftest import EDGES, EDGES_TOML, Site

DATA = safetensors_of({"weight": [1.0, 2.0]})
VOCAB = b'{"a": 1}'


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def manifest(**pins: str) -> str:
    files = "\n".join(f'{key} = "{value}"' for key, value in pins.items())
    both = 'base = "toy"\nweights = { weights = "main", vocab = "vocab" }'
    return (
        EDGES_TOML.replace('base = "toy"', both)
        + '[adapter.edges.weights.main]\nsource = "hf:org/edges"\n'
        + f'file = "m.safetensors"\n{files}\n'
        + '[adapter.edges.weights.vocab]\nsource = "hf:org/edges"\nfile = "vocab.json"\n'
        + 'format = "json"\n'
    )


@pytest.fixture
def repo(hub: LoopbackHub) -> Repository:
    return hub.publish("org/edges", {"m.safetensors": DATA, "vocab.json": VOCAB})


@pytest.fixture
def path(site: Site, repo: Repository, tmp_path: Path) -> Path:
    site.add_toy()
    site.add_edges(manifest())
    path = tmp_path / "refiners.lock"
    result = run("lock", "--out", path)
    assert result.exit_code == 0, result.output
    return path


def reinstall(site: Site, text: str, version: str = "1.2") -> None:
    for folder in site.folder.glob("refiners_edges*"):
        shutil.rmtree(folder)
    site.add("refiners-edges", files={"adapter.py": EDGES, "adapter.toml": text}, version=version)


def test_a_lock_pins_what_the_manifest_leaves_open(
    path: Path, hub: LoopbackHub, repo: Repository
) -> None:
    edges, toy = read_lock(path).plugin
    assert (edges.id, edges.version, toy.id) == ("refiners-edges:edges", "1.2", "refiners-toy:toy")
    main, vocab = edges.file
    assert (main.revision, main.sha256) == (repo.commit, repo.sha256("m.safetensors"))
    assert (vocab.revision, vocab.sha256) == (repo.commit, repo.sha256("vocab.json"))
    assert (main.size, vocab.size) == (len(DATA), len(VOCAB))
    gets = [r.path for r in hub.requests if r.method == "GET"]
    assert gets == [
        f"org/edges/resolve/{repo.commit}/vocab.json"
    ]  # the Hub announces only its git hash


def test_a_lock_is_the_same_when_written_twice(path: Path) -> None:
    before = path.read_bytes()
    assert b"Do not edit it" in before
    run("lock", "--out", path)
    assert path.read_bytes() == before
    write_lock(path, Lock(plugin=read_lock(path).plugin[::-1]))
    assert path.read_bytes() == before


def test_locking_one_plugin_leaves_the_others(path: Path) -> None:
    before = path.read_bytes()
    assert run("lock", "edges", "--out", path).exit_code == 0
    assert path.read_bytes() == before
    assert run("lock", "edgse", "--out", path).exit_code == 2
    path.unlink()
    assert run("lock", "toy", "--out", path).exit_code == 0
    assert [plugin.id for plugin in read_lock(path).plugin] == ["refiners-toy:toy"]


def test_a_load_uses_the_pins_of_the_lock(
    path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish("org/edges", {"m.safetensors": DATA[::-1], "vocab.json": b"{}"})  # the branch moves
    with pytest.raises(refiners.MissingError, match="has no revision"):
        refiners.load_adapter("edges", refiners.load_model("toy"), lock=path)
    hub.publish("org/edges", {"m.safetensors": DATA, "vocab.json": VOCAB})
    monkeypatch.setenv("REFINERS_LOCK", str(path))
    edges = refiners.load_adapter("edges", refiners.load_model("toy"))
    assert edges.built_from.files["weights"].read_bytes() == DATA


def test_a_lock_is_not_picked_up_from_the_working_folder(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add_toy()
    (tmp_path / "refiners.lock").write_text("schema = 1")
    monkeypatch.chdir(tmp_path)
    assert refiners.load_model("toy")
    with pytest.raises(LockError, match="refiners-toy:toy is not in"):
        refiners.load_model("toy", lock="refiners.lock")


@pytest.mark.parametrize(
    ("text", "version", "message"),
    [
        (manifest(sha256="a" * 64), "1.2", "weights.main.sha256: locked "),
        (manifest(revision="b" * 40), "1.2", f"installed {'b' * 40}"),
        (manifest(size="x").replace('"x"', "7"), "1.2", "weights.main.size: locked "),
        (manifest(), "1.3", "version: locked 1.2, installed 1.3"),
        (manifest().replace("heads = 3", "heads = 4"), "1.2", "other keys than those of the files"),
        (EDGES_TOML, "1.2", "weights.main: locked, gone from the manifest"),
        (manifest().replace("vocab", "words"), "1.2", "weights.words: not locked, new"),
    ],
)
def test_the_error_shows_each_difference(
    site: Site, path: Path, text: str, version: str, message: str
) -> None:
    reinstall(site, text, version)
    for load in (lambda: refiners.load_adapter("edges", lock=path),):
        with pytest.raises(LockError) as caught:
            load()
        assert message in str(caught.value)
        assert "pip install refiners-edges==1.2" in caught.value.hint
    result = run("sync", "--locked", "--lock", path)
    assert result.exit_code == 4
    assert message in result.stderr


def test_the_formatting_of_a_manifest_does_not_matter(site: Site, path: Path) -> None:
    reinstall(site, f"# a comment\n{manifest()}[adapter.edges.x-notes]\na = 1\n")
    assert run("sync", "--locked", "--lock", path).exit_code == 0


def test_sync_without_locked_accepts_what_is_installed(site: Site, path: Path) -> None:
    reinstall(site, manifest(), "1.3")
    assert run("sync", "--lock", path).exit_code == 0
    assert read_lock(path).plugin[0].version == "1.3"


def test_sync_without_a_lock_writes_one(site: Site, hub: LoopbackHub, tmp_path: Path) -> None:
    site.add_toy()
    path = tmp_path / "new.lock"
    assert run("sync", "--locked", "--lock", path).exit_code == 4
    assert run("sync", "--lock", path).exit_code == 0
    assert len(read_lock(path).plugin) == 1


def test_a_locked_plugin_that_is_not_installed_is_named(site: Site, path: Path) -> None:
    for folder in site.folder.glob("refiners_edges*"):
        shutil.rmtree(folder)
    result = run("sync", "--locked", "--lock", path)
    assert result.exit_code == 4
    assert "pip install refiners-edges==1.2" in result.stderr


def test_a_lock_made_on_one_machine_gives_the_same_bytes_on_another(
    path: Path, hub: LoopbackHub, tmp_path: Path
) -> None:
    assert run("sync", "--locked", "--lock", path).exit_code == 0
    files = json.loads(run("sync", "--locked", "--lock", path, "--json").stdout)["files"]
    with hub.in_use(tmp_path / "another"):
        assert run("sync", "--locked", "--offline", "--lock", path).exit_code == 3
        copies = json.loads(run("sync", "--locked", "--lock", path, "--json").stdout)["files"]
        hub.requests.clear()
        assert run("sync", "--locked", "--offline", "--lock", path).exit_code == 0
        edges = refiners.load_adapter("edges", refiners.load_model("toy"), lock=path, offline=True)
        assert edges.built_from.files["weights"].read_bytes() == DATA
        assert hub.requests == []
    for file, copy in zip(files, copies, strict=True):
        assert file["path"] != copy["path"]
        assert Path(file["path"]).read_bytes() == Path(copy["path"]).read_bytes()


def test_verify_reports_missing_and_different_files(path: Path, hub: LoopbackHub) -> None:
    assert run("verify").exit_code == 0
    assert run("verify", "--lock", path).exit_code == 1
    run("sync", "--locked", "--lock", path)
    assert run("verify", "--lock", path, "--deep").exit_code == 0
    files = json.loads(run("sync", "--locked", "--lock", path, "--json").stdout)["files"]
    target = Path(files[0]["path"]).resolve()
    stat = target.stat()
    target.write_bytes(DATA[:-1] + b"!")
    assert run("verify", "--lock", path).exit_code == 4
    target.write_bytes(DATA[:-1] + b"!")
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a byte editor may do
    assert run("verify", "--lock", path).exit_code == 4
    result = run("verify", "--lock", path, "--deep")
    assert result.exit_code == 4
    assert "different" in result.stdout


@pytest.mark.parametrize(
    "text",
    [
        "schema = 2",
        "schema =",
        "schema = 1\nplugin = 3",
        "schema = 1\nextra = 3",
        '[[plugin]]\nid = "a:b"',
        '[[plugin]]\nid = "a:b"\nkind = "adapter"\nversion = "1"\nmanifest = "short"',
        "\x00",
    ],
)
def test_a_damaged_lock_is_refused(site: Site, tmp_path: Path, text: str) -> None:
    (tmp_path / "refiners.lock").write_text(text)
    with pytest.raises(LockError, match="is not a lock file") as caught:
        read_lock(tmp_path / "refiners.lock")
    assert caught.value.exit_code == 4
    with pytest.raises(LockError, match="cannot be read"):
        read_lock(tmp_path / "nowhere.lock")
    with pytest.raises(LockError, match="cannot be written"):
        write_lock(tmp_path / "nowhere" / "refiners.lock", Lock())


def test_a_lock_that_leaves_a_pin_open_is_refused(site: Site, tmp_path: Path) -> None:
    site.add_edges(manifest())
    spec = refiners.adapters()[0].spec
    open_pin = LockedFile(
        name="main", source="hf:org/edges", file="m.safetensors", revision="a" * 40,
        sha256="unknown",
    )  # fmt: skip
    plugin = LockedPlugin(
        id="refiners-edges:edges", kind="adapter", version="1.2", manifest=digest(spec),
        file=(open_pin,),
    )  # fmt: skip
    write_lock(tmp_path / "l", Lock(plugin=(plugin,)))
    with pytest.raises(LockError, match="the lock leaves it unknown"):
        refiners.load_adapter("edges", lock=tmp_path / "l")


def test_a_lock_needs_the_hub_where_a_pin_is_open(site: Site, hub: LoopbackHub) -> None:
    site.add_edges(manifest())
    assert run("lock", "--offline").exit_code == 3
    hub.publish("org/edges", {"m.safetensors": DATA, "vocab.json": VOCAB})
    hub.fail("m.safetensors", Fault.UNAVAILABLE)
    assert run("lock").exit_code == 3
    assert not Path("refiners.lock").exists()


def test_companion_files_are_fetched_at_once(path: Path, site: Site, hub: LoopbackHub) -> None:
    hub.fail("m.safetensors", Fault.UNAVAILABLE, method="GET")
    with pytest.raises(refiners.NetworkError):
        refiners.load_adapter("edges", refiners.load_model("toy"), lock=path)
    hub.heal()
    edges = refiners.load_adapter("edges", refiners.load_model("toy"), lock=path)
    assert set(edges.built_from.files) == {"weights", "vocab"}
