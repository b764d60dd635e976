"""A lock matches its manifests, does not contradict itself, and never bypasses policies."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import refiners
from click.testing import CliRunner, Result
from refiners.choose.lock import Lock, LockedFile, LockedPlugin, held, read_lock, write_lock
from refiners.choose.lookup import find_adapter
from refiners.cli import main
from refiners.errors import LockError
from refiners.sources.repository import of_locked
from refiners.testing import LoopbackHub, Repository, safetensors_of

from refiners_core import Chain, Model

from ..conftest import EDGES, EDGES_TOML, Site

DATA = safetensors_of({"weight": [1.0, 2.0]})
OTHER = '[[adapter.edges.variant]]\nbase = "other"\nweights = "b"\n'
OTHER_TOY = """schema = 1
[model.other]
factory = "refiners_other.model:build"
summary = "Another model"
core-api = ">=1.0,<2"
family = "toy"
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def file_of(repo: Repository, name: str, *, is_pinned: bool = True) -> str:
    pins = f'revision = "{repo.commit}"\nsha256 = "{repo.sha256(name)}"\nsize = {len(DATA)}\n'
    return f'[adapter.edges.weights.{name}]\nsource = "hf:{repo.name}"\nfile = "{name}"\n' + (
        pins if is_pinned else ""
    )


@pytest.fixture
def repo(hub: LoopbackHub) -> Repository:
    return hub.publish("org/edges", {"a": DATA, "b": DATA[::-1]})


@pytest.fixture
def edges(site: Site, repo: Repository) -> Site:
    """An adapter with pinned files for two bases, one of which is installed."""
    site.add_toy()
    text = EDGES_TOML.replace('base = "toy"', 'base = "toy"\nweights = "a"')
    site.add_edges(text + OTHER + file_of(repo, "a") + file_of(repo, "b"))
    return site


@pytest.fixture
def path(edges: Site, tmp_path: Path) -> Path:
    path = tmp_path / "refiners.lock"
    assert run("lock", "edges", "--out", path).exit_code == 0
    return path


# --- pins ---

FORGED: dict[str, tuple[Callable[[str, Repository], str], str]] = {
    "hash": (lambda t, r: t.replace(r.sha256("a"), "d" * 64), "weights.a.sha256: locked dddd"),
    "commit": (lambda t, r: t.replace(r.commit, "c" * 40), "weights.a.revision: locked cccc"),
    "source": (lambda t, r: t.replace("hf:org/", "hf:evil/"), "weights.a.source: locked hf:evil"),
    "file": (lambda t, r: t.replace('file = "a"', 'file = "x"'), "weights.a.file: locked x"),
    "no file": (lambda t, r: t.replace('file = "a"\n', ""), "weights.a.file: locked none"),
    "size": (lambda t, r: t.replace(f"size = {len(DATA)}", "size = 7"), "weights.a.size: locked 7"),
    "no commit": (
        lambda t, r: t.replace(f'revision = "{r.commit}"\n', ""),
        "weights.a.revision: the lock leaves it unknown",
    ),
    "unknown hash": (
        lambda t, r: t.replace(r.sha256("a"), "unknown"),
        "weights.a.sha256: the lock leaves it unknown",
    ),
    "name": (lambda t, r: t.replace('name = "a"', 'name = "z"'), "weights.z: locked, gone"),
    "manifest": (lambda t, r: t.replace('manifest = "', 'manifest = "0')[:-1], "not a lock file"),
    "version": (lambda t, r: t.replace('"1.2"', '"1.1"'), "locked 1.1, installed 1.2"),
    "lowest digest": (
        lambda t, r: re.sub(r'manifest = "\w+"', f'manifest = "{"0" * 64}"', t),
        r"manifest: locked 0{12}, installed [0-9a-f]{12} \(other keys",
    ),
    "highest digest": (
        lambda t, r: re.sub(r'manifest = "\w+"', f'manifest = "{"f" * 64}"', t),
        r"manifest: locked f{12}, installed [0-9a-f]{12} \(other keys",
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_lock_that_differs_from_its_manifest_is_refused(
    path: Path, repo: Repository, hub: LoopbackHub, what: str
) -> None:
    forge, message = FORGED[what]
    text = path.read_text()
    assert held(find_adapter("edges"), path).spec.weights["a"].sha256 == repo.sha256("a")
    path.write_text(forge(text, repo))
    assert path.read_text() != text
    hub.requests.clear()
    with pytest.raises(LockError, match=message):
        refiners.load_adapter("edges", refiners.load_model("toy"), lock=path)
    assert run("sync", "--locked", "--lock", path).exit_code == 4
    assert hub.requests == []


def test_a_size_that_the_lock_omits_comes_from_the_manifest(path: Path) -> None:
    path.write_text(path.read_text().replace(f"size = {len(DATA)}\n", ""))
    assert held(find_adapter("edges"), path).spec.weights["a"].size == len(DATA)


@pytest.mark.parametrize(
    ("again", "message"),
    [
        ({}, "the adapter a-b:edges is locked twice"),
        ({"id": "A_B:edges"}, "the adapter .* is locked twice"),
        (
            {"id": "c:edges", "file": "lower hash"},
            "hf:o/r a has two hashes or sizes at one revision",
        ),
        ({"id": "c:edges", "file": "higher hash"}, "has two hashes or sizes at one revision"),
        ({"id": "c:edges", "file": "less"}, "has two hashes or sizes at one revision"),
        ({"id": "c:edges", "file": "more"}, "has two hashes or sizes at one revision"),
        ({"id": "c:edges", "file": "twice"}, "the file a of c:edges is locked twice"),
        ({"id": "c:edges", "file": "no size"}, ""),
        ({"id": "c:edges", "file": "other commit"}, ""),
        ({"kind": "model"}, ""),
    ],
)
def test_a_lock_that_contradicts_itself_is_refused(
    tmp_path: Path, again: dict[str, str], message: str
) -> None:
    file = LockedFile(
        name="a", source="hf:o/r", file="a", revision="a" * 40, sha256="b" * 64, size=7
    )
    plugin = LockedPlugin(
        id="a-b:edges", kind="adapter", version="1", manifest="c" * 64, file=(file,)
    )
    files = {
        "lower hash": (msgspec.structs.replace(file, sha256="a" * 64),),
        "higher hash": (msgspec.structs.replace(file, sha256="c" * 64),),
        "less": (msgspec.structs.replace(file, size=6),),
        "more": (msgspec.structs.replace(file, size=8),),
        "other commit": (msgspec.structs.replace(file, revision="e" * 40, sha256="c" * 64),),
        "no size": (msgspec.structs.replace(file, size=None),),
        "twice": (file, msgspec.structs.replace(file, file="b")),
    }
    changes = again | {"file": files.get(again.get("file", ""), (file,))}
    other = msgspec.structs.replace(plugin, **changes)
    write_lock(tmp_path / "lock", Lock(plugin=(plugin, other)))
    if not message:
        assert len(read_lock(tmp_path / "lock").plugin) == 2
        return
    with pytest.raises(LockError, match=f"contradicts itself: .*{message}") as caught:
        read_lock(tmp_path / "lock")
    assert f"refiners lock --out {tmp_path / 'lock'}" in caught.value.hint


def test_files_of_a_branch_may_differ(tmp_path: Path) -> None:
    file = LockedFile(name="a", source="hf:o/r", file="a", revision="unknown", sha256="b" * 64)
    plugins = [
        LockedPlugin(
            id=f"{dist}:edges",
            kind="adapter",
            version="1",
            manifest="c" * 64,
            file=(msgspec.structs.replace(file, sha256=digit * 64),),
        )
        for dist, digit in (("a", "1"), ("b", "2"))
    ]
    write_lock(tmp_path / "lock", Lock(plugin=tuple(plugins)))
    assert len(read_lock(tmp_path / "lock").plugin) == 2


def test_a_contradictory_lock_can_be_written_again(path: Path) -> None:
    before = path.read_text()
    path.write_text(before + before.partition("\n\n")[2])
    assert run("lock", "edges", "--out", path).exit_code == 4
    assert run("lock", "--out", path).exit_code == 0
    assert [plugin.id for plugin in read_lock(path).plugin] == [
        "refiners-edges:edges",
        "refiners-toy:toy",
    ]


def test_any_spelling_of_a_distribution_is_accepted(path: Path) -> None:
    path.write_text(path.read_text().replace("refiners-edges:edges", "Refiners_Edges:edges"))
    assert held(find_adapter("edges"), path).spec.weights.keys() == {"a"}
    assert run("sync", "--locked", "--lock", path).exit_code == 0
    assert run("lock", "edges", "--out", path).exit_code == 0
    assert len(read_lock(path).plugin) == 1


# --- which files ---


def locked(path: Path) -> dict[str, tuple[list[str], tuple[str, ...]]]:
    return {p.id: ([file.name for file in p.file], p.base) for p in read_lock(path).plugin}


def test_a_lock_has_the_files_for_its_models(edges: Site, tmp_path: Path) -> None:
    path = tmp_path / "refiners.lock"
    edges.add("refiners-other", files={"model.toml": OTHER_TOY})
    assert run("lock", "toy", "edges", "--out", path).exit_code == 0
    assert locked(path)["refiners-edges:edges"] == (["a"], ("toy",))
    path.unlink()
    assert run("lock", "edges", "--out", path).exit_code == 0  # both models are installed
    assert locked(path) == {"refiners-edges:edges": (["a", "b"], ("other", "toy"))}
    for model, name in (("toy", "a"), ("other", "b")):
        assert run("lock", "edges", "--model", model, "--out", path).exit_code == 0
        assert locked(path) == {"refiners-edges:edges": ([name], (model,))}
    assert run("lock", "toy", "--out", path).exit_code == 0
    assert run("lock", "edges", "--out", path).exit_code == 0  # for the model in the lock
    assert locked(path)["refiners-edges:edges"] == (["a"], ("toy",))


def test_a_lock_without_names_has_the_plugins_for_models_on_this_machine(
    edges: Site, tmp_path: Path
) -> None:
    path = tmp_path / "refiners.lock"
    far = OTHER_TOY.replace("model.other", "model.far")
    far += '[model.far.weights.w]\nsource = "hf:org/far"\nfile = "w"\n'
    edges.add("refiners-far", files={"model.toml": far})
    only_far = EDGES_TOML.replace("adapter.edges", "adapter.fur").replace('"toy"', '"far"')
    edges.add("refiners-fur", files={"adapter.py": EDGES, "adapter.toml": only_far})
    result = run("lock", "--out", path)
    assert result.exit_code == 0
    assert locked(path).keys() == {"refiners-edges:edges", "refiners-toy:toy"}
    assert "refuses them: far, fur; to lock one as well: refiners lock far" in result.stderr
    assert run("lock", "--model", "far", "--out", path, "--offline").exit_code == 3
    assert run("lock", "fur", "--out", path).exit_code == 0  # for any base
    assert locked(path)["refiners-fur:fur"] == ([], ())


def test_a_model_that_does_not_suit_is_refused(edges: Site, tmp_path: Path) -> None:
    far = OTHER_TOY.replace("other", "far")
    edges.add("refiners-far", files={"model.toml": far})
    result = run("lock", "edges", "--model", "far", "--out", tmp_path / "l")
    assert "edges has no variant for far" in result.stderr
    assert not (tmp_path / "l").exists()
    assert run("lock", "edges", "--model", "fra", "--out", tmp_path / "l").exit_code == 2


def test_unlocked_files_are_not_loaded(path: Path, edges: Site) -> None:
    with pytest.raises(LockError, match="the lock does not pin its files b") as caught:
        refiners.load_adapter("edges", other_model(), lock=path)
    assert caught.value.hint == "Run refiners lock refiners-edges:edges --model other."
    text = path.read_text().replace('base = ["toy"]\n', "")
    path.write_text(text)
    with pytest.raises(LockError, match=r"weights\.b: not locked, new in the manifest"):
        held(find_adapter("edges"), path)


def other_model() -> Model:
    return Model(base="other", facts={}, slots={}, body=Chain())


def test_sync_locks_again_for_the_same_base(path: Path, edges: Site, repo: Repository) -> None:
    for folder in edges.folder.glob("refiners_edges*"):
        shutil.rmtree(folder)
    text = EDGES_TOML.replace('base = "toy"', 'base = "toy"\nweights = "a"')
    text = text + OTHER + file_of(repo, "a", is_pinned=False) + file_of(repo, "b")
    edges.add("refiners-edges", files={"adapter.py": EDGES, "adapter.toml": text}, version="1.3")
    run("sync", "--lock", path)
    assert locked(path) == {"refiners-edges:edges": (["a"], ("toy",))}
    assert read_lock(path).plugin[0].version == "1.3"


# --- policies ---


def test_a_lock_without_names_omits_refused_plugins(
    edges: Site, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rules").write_text('schema = 1\n[organisations]\ndeny = ["org"]\n')
    monkeypatch.setenv("REFINERS_POLICY", str(tmp_path / "rules"))
    result = run("lock", "--out", tmp_path / "l")
    assert result.exit_code == 0
    assert "or a rule refuses them: edges" in result.stderr
    assert locked(tmp_path / "l").keys() == {"refiners-toy:toy"}
    assert hub.requests == []


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        ('[organisations]\ndeny = ["org"]', ("edges",)),
        ('[organisations]\ndeny = ["org"]', ("hf:org/edges",)),
        ('[packages]\ndeny = ["refiners-edges"]', ("edges",)),
        ("[files]\nmax-size = 10", ("edges", "--model", "toy")),
        ('[organisations]\ndeny = ["org"]', ("reader=hf:org/edges/a.safetensors",)),
    ],
)
def test_policies_apply_before_the_first_request(
    site: Site,
    repo: Repository,
    hub: LoopbackHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rule: str,
    names: tuple[str, ...],
) -> None:
    site.add_toy()
    text = EDGES_TOML.replace('base = "toy"', 'base = "toy"\nweights = "a"')
    site.add_edges(text + file_of(repo, "a", is_pinned="max-size" in rule))
    reading = EDGES_TOML.replace("adapter.edges", "adapter.reader")
    reading += '[adapter.reader.file]\nsummary = "a file"\n'
    site.add("refiners-reader", files={"adapter.py": EDGES, "adapter.toml": reading})
    (tmp_path / "rules").write_text(f"schema = 1\n{rule}\n")
    monkeypatch.setenv("REFINERS_POLICY", str(tmp_path / "rules"))
    result = run("lock", *names, "--out", tmp_path / "l")
    assert result.exit_code == 4, result.output
    assert run("sync", "--lock", tmp_path / "l").exit_code in (0, 4)  # for the other plugins
    if names[0] == "hf:org/edges":
        with pytest.raises(refiners.PolicyError):
            refiners.load_model(names[0])
        assert run("fetch", *names).exit_code == 4
    assert hub.requests == []


def test_policies_apply_again_once_the_size_is_known(
    site: Site,
    repo: Repository,
    hub: LoopbackHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site.add_toy()
    text = EDGES_TOML.replace('base = "toy"', 'base = "toy"\nweights = "a"')
    site.add_edges(text + file_of(repo, "a", is_pinned=False))
    (tmp_path / "rules").write_text("schema = 1\n[files]\nmax-size = 10\n")
    monkeypatch.setenv("REFINERS_POLICY", str(tmp_path / "rules"))
    assert run("lock", "edges", "--out", tmp_path / "l").exit_code == 4
    assert not (tmp_path / "l").exists()
    assert "GET" not in [r.method for r in hub.requests if "resolve" in r.path]


# --- repositories ---


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "hf:org/m@" + "b" * 40 + "/a.safetensors"},
        {"id": "hf:org/m/b.safetensors"},
        {"id": "hf:org/other/a.safetensors"},
        {"id": "hf:org/../m"},
        {"version": "b" * 40},
    ],
)
def test_a_locked_repository_has_the_files_of_its_address(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    file = LockedFile(
        name="a", source="hf:org/m", file="a.safetensors", revision="a" * 40, sha256="b" * 64
    )
    good = LockedPlugin(
        id="hf:org/m/a.safetensors", kind="model", version="a" * 40, manifest="unknown",
        file=(file,),
    )  # fmt: skip
    assert of_locked(good, tmp_path).version == "a" * 40
    for id in ("hf:org/m@feature/x/a.safetensors", f"hf:org/m@{'a' * 40}/a.safetensors"):
        assert of_locked(msgspec.structs.replace(good, id=id), tmp_path)
    with pytest.raises(LockError, match="files of another repository"):
        of_locked(msgspec.structs.replace(good, **changes), tmp_path)


# --- the file itself ---


def test_a_lock_is_written_through_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.lock", tmp_path / "sub" / "refiners.lock"
    link.parent.mkdir()
    link.symlink_to("../real.lock")
    for _ in range(2):  # the first time the target does not exist
        write_lock(link, Lock())
        assert link.is_symlink()
        assert read_lock(real) == Lock()
        assert real.stat().st_mode & 0o777 == 0o644
    real.chmod(0o640)
    write_lock(link, Lock())
    assert real.stat().st_mode & 0o777 == 0o640
    assert {*tmp_path.iterdir()} == {real, link.parent}


@pytest.mark.parametrize("kind", ["device", "folder", "itself"])
def test_a_lock_replaces_only_regular_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "refiners.lock"
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/null" if kind == "device" else path.name)
    with pytest.raises(LockError, match="cannot be written"):
        write_lock(path, Lock())
    assert [*tmp_path.iterdir()] == [path]
