"""An adapter may read a file of the user's: a path, or one file of a repository of the Hub."""

import json
import warnings
from pathlib import Path

import pytest
import refiners
from click.testing import CliRunner, Result
from refiners.choose.lock import read_lock
from refiners.cli import main
from refiners.errors import (
    IntegrityError,
    LockError,
    ManifestError,
    MissingError,
    OptionError,
    PolicyError,
)
from refiners.manifest.reader import load_manifest
from refiners.manifest.schema import AdapterManifest
from refiners.testing import LoopbackHub, Repository, safetensors_of

from ..conftest import EDGES, EDGES_TOML, Site

STYLE = safetensors_of({"up": [1.0, 2.0], "down": [3.0]})
FILE = '[adapter.edges.file]\nsummary = "a drawing style"\n'
MANIFEST = EDGES_TOML.replace("[[adapter.edges.variant]]", f"{FILE}[[adapter.edges.variant]]")


@pytest.fixture(autouse=True)
def _installed(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add_toy()
    site.add_edges(MANIFEST)
    monkeypatch.chdir(tmp_path)
    Path("style.safetensors").write_bytes(STYLE)


@pytest.fixture
def repo(hub: LoopbackHub) -> Repository:
    return hub.publish("org/style", {"deep/style.safetensors": STYLE, "README.md": b"hi"})


def load(file: object, model: object = None, **options: object):
    model = refiners.load_model("toy") if model is None else model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return refiners.load_adapter("edges", model, file=file, **options)


def bytes_of(adapter) -> bytes:
    return adapter.built_from.files["weights"].read_bytes()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("kind", [str, Path])
def test_an_adapter_is_built_from_a_path(kind: type):
    adapter = load(kind("style.safetensors"))
    assert bytes_of(adapter) == STYLE
    assert adapter.built_from.settings == {"heads": 3}


def test_the_folder_may_change_before_the_adapter_is_injected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    adapter = refiners.load_adapter("edges", file="style.safetensors")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert bytes_of(adapter.inject(refiners.load_model("toy"))) == STYLE


def test_a_file_of_a_repository_is_fetched_at_its_commit(repo: Repository):
    address = f"hf:{repo.name}@{repo.commit}/deep/style.safetensors"
    assert bytes_of(load(address)) == STYLE
    assert bytes_of(load(address, offline=True)) == STYLE


def test_the_only_file_of_a_repository_needs_no_path(repo: Repository):
    assert bytes_of(load(f"hf:{repo.name}")) == STYLE


def test_a_branch_is_pinned_to_the_commit_of_the_first_load(hub: LoopbackHub, repo: Repository):
    with pytest.warns(UserWarning, match=f"is pinned to commit {repo.commit}"):
        refiners.load_adapter("edges", refiners.load_model("toy"), file=f"hf:{repo.name}")
    hub.publish(repo.name, {"deep/style.safetensors": STYLE[::-1]})
    assert bytes_of(load(f"hf:{repo.name}")) == STYLE


@pytest.mark.parametrize(
    ("file", "kind", "message"),
    [
        (None, OptionError, 'needs a file: a drawing style. Try load_adapter("edges", model, fi'),
        (7, OptionError, "not 7"),
        ("", OptionError, "not ''"),
        (
            "stile.safetensors",
            OptionError,
            "stile.safetensors does not exist. Did you mean style.safete",
        ),
        (".", OptionError, "is a folder. Name a file in it: cut.safetensors, style"),
        ("alone.bin", PolicyError, "pickle, which could run any code"),
        ("style.txt", OptionError, "not a safetensors file"),
        ("cut.safetensors", IntegrityError, "ends within its header"),
        ("hf:org/style/deep/stile.safetensors", MissingError, "mean deep/style.safetensors"),
        ("hf:org/style/README.md", OptionError, "not a safetensors file"),
        ("hf:org/style/style.pt", PolicyError, "pickle"),
        ("hf:org/many", OptionError, "Try hf:org/many/a.safetensors"),
    ],
)
def test_an_unsuitable_file_is_refused_and_the_model_stays_bare(
    hub: LoopbackHub, repo: Repository, file: object, kind: type[Exception], message: str
):
    hub.publish("org/many", {"a.safetensors": STYLE, "b.safetensors": STYLE})
    Path("alone.bin").write_bytes(b"anything")
    Path("style.txt").write_bytes(STYLE)
    Path("cut.safetensors").write_bytes(STYLE[:20])
    model = refiners.load_model("toy")
    with pytest.raises(kind) as error:
        load(file, model=model)
    assert message in str(error.value)
    assert model.adapters == ()


def test_an_adapter_whose_manifest_names_its_weights_takes_no_file(site: Site):
    site.add("refiners-other", files={
        "adapter.py": EDGES,
        "adapter.toml": EDGES_TOML.replace("edges", "other"),
    })  # fmt: skip
    with pytest.raises(OptionError, match=r"other takes no file: .* Leave file= out"):
        refiners.load_adapter("other", file="style.safetensors")


def test_a_model_of_another_base_is_refused_before_the_hub_is_asked(hub: LoopbackHub):
    from refiners_core.testing import tiny_model

    with pytest.raises(refiners.IncompatibleError, match="needs toy"):
        refiners.load_adapter("edges", tiny_model(), file="hf:org/style/style.safetensors")
    assert hub.requests == []


def test_a_manifest_cannot_name_a_file_of_this_machine(tmp_path: Path):
    path = tmp_path / "adapter.toml"
    weights = '[adapter.edges.weights.w]\nsource = "file:/etc/passwd"\n'
    path.write_text(EDGES_TOML + weights)
    with pytest.raises(ManifestError, match="file:/etc/passwd"):
        load_manifest(path, AdapterManifest)


def test_a_lock_pins_a_local_file_by_its_hash():
    assert run("lock", "toy", "edges=style.safetensors").exit_code == 0
    (locked,) = (plugin for plugin in read_lock(Path("refiners.lock")).plugin if plugin.file)
    assert locked.id == "refiners-edges:edges=style.safetensors"
    assert bytes_of(load("style.safetensors", lock="refiners.lock")) == STYLE
    assert run("sync", "--locked", "--offline").exit_code == 0
    assert run("verify", "--lock", "refiners.lock").exit_code == 0
    Path("style.safetensors").write_bytes(safetensors_of({"up": [9.0]}))
    with pytest.raises(IntegrityError, match="the locked sha256"):
        load("style.safetensors", lock="refiners.lock")
    assert run("verify", "--lock", "refiners.lock").exit_code == 4


def test_a_lock_pins_a_file_of_a_repository(hub: LoopbackHub, repo: Repository):
    address = f"hf:{repo.name}/deep/style.safetensors"
    assert run("lock", f"edges={address}").exit_code == 0
    assert run("sync", "--locked").exit_code == 0
    before = len(hub.requests)
    assert bytes_of(load(address, lock="refiners.lock")) == STYLE
    assert len(hub.requests) == before


def test_a_file_that_is_not_locked_is_refused():
    run("lock", "toy", "edges")
    with pytest.raises(LockError) as error:
        load("style.safetensors", lock="refiners.lock")
    command = "refiners lock edges=style.safetensors --out refiners.lock"
    assert command in str(error.value)
    assert run(*command.split()[1:]).exit_code == 0
    assert bytes_of(load("style.safetensors", lock="refiners.lock")) == STYLE


def test_locking_all_plugins_keeps_the_files_in_a_lock():
    run("lock", "edges=style.safetensors")
    assert run("lock").exit_code == 0
    ids = {plugin.id for plugin in read_lock(Path("refiners.lock")).plugin}
    assert ids == {
        *("refiners-edges:edges", "refiners-toy:toy"),
        "refiners-edges:edges=style.safetensors",
    }


def test_fetch_takes_a_file_of_a_repository(repo: Repository):
    done = run("fetch", f"edges=hf:{repo.name}@{repo.commit}/deep/style.safetensors", "--json")
    (state,) = json.loads(done.stdout)["files"]
    assert state["state"] == "ok"
