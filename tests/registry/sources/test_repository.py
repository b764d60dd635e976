"""A model in a repository is fetched in part, verified, and pinned to its first commit."""

import json
import os
import pickle
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import refiners
from click.testing import CliRunner, Result
from refiners.choose.lock import read_lock
from refiners.cli import main
from refiners.hub.metadata import Contents, Entry
from refiners.sources.repository import choose, parse_address
from refiners.testing import Fault, LoopbackHub, Repository, safetensors_of

from refiners_core import Model
from refiners_core.errors import ModelError
from refiners_core.models.formats import open as opening

from ..conftest import Site

FAMILIES = Path(refiners.__file__).with_name("model.toml")
UNET = "unet/diffusion_pytorch_model"
WEIGHTS = safetensors_of({"weight": [1.0, 2.0]})
HALF = safetensors_of({"weight": [0.5]})
LDM = "model.diffusion_model.input_blocks.0.0.weight"
FOLDER = {
    "model_index.json": b'{"_class_name": "StableDiffusionPipeline"}',
    "unet/config.json": b'{"cross_attention_dim": 768}',
    f"{UNET}.safetensors": WEIGHTS,
    f"{UNET}.fp16.safetensors": HALF,
    "unet/diffusion_pytorch_model.bin": pickle.dumps({}),
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": WEIGHTS[::-1],
    "text_encoder/config.json": b"{ }",
    "text_encoder/model.safetensors.index.json": b"{}",
    "text_encoder/model-00001-of-00002.safetensors": WEIGHTS + b"\0",
    "text_encoder/model-00002-of-00002.safetensors": WEIGHTS + b"\1",
    "tokenizer/vocab.json": b'{"a": 1}',
    "tokenizer/merges.txt": b"#version: 0.2",
    "scheduler/scheduler_config.json": b"{  }",
    "safety_checker/model.safetensors": WEIGHTS,
    "README.md": b"hello",
}
NEEDED = sorted(
    name
    for name in FOLDER
    if "fp16" not in name and "safety" not in name and not name.endswith((".md", ".bin"))
)


class At(Model):
    """A model that keeps the path from which it was opened."""

    def __init__(self, path: Path) -> None:
        super().__init__(base="at", facts={}, slots={})
        self.path = path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces opening a model, because the weights of these tests are not real."""
    for name in ("open_model", "open_folder"):
        monkeypatch.setattr(opening, name, lambda path, **options: At(path))
    monkeypatch.setattr("refiners.sources.fetch.check_header", lambda path, dist: None)


@pytest.fixture
def repo(hub: LoopbackHub) -> Repository:
    return hub.publish("org/sd", FOLDER, license="openrail")


@pytest.fixture
def load() -> Callable[..., Path]:
    def quietly(what: str, **options: object) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return refiners.load_model(what, **options).path

    return quietly


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def fetched(hub: LoopbackHub) -> set[str]:
    return {r.path.split("/", 4)[-1] for r in hub.requests if r.method == "GET"}


def test_an_address_is_parsed() -> None:
    assert parse_address("hf:org/sd") == ("org/sd", "unknown", "")
    assert parse_address("hf:org/sd@v1.0") == ("org/sd", "v1.0", "")
    assert parse_address("hf:o/s@main/a/b.safetensors") == ("o/s", "main", "a/b.safetensors")
    for bad in ("hf:", "hf:org", "hf:org/sd@", "hf:org/sd/../x", "hf:org/sd@a/.b", "hf:/a/b"):
        with pytest.raises(
            refiners.OptionError, match="is not the address of a Hub repository"
        ) as caught:
            refiners.load_model(bad)
        assert "hf:organisation/name@commit" in caught.value.hint


def test_only_the_needed_files_are_fetched_and_linked_in_one_folder(
    hub: LoopbackHub, repo: Repository, load: Callable[..., Path]
) -> None:
    folder = load("hf:org/sd")
    assert files_in(folder) == NEEDED
    assert all((folder / name).read_bytes() == FOLDER[name] for name in NEEDED)
    assert not {name for name in fetched(hub) if "fp16" in name or "safety" in name}


def test_a_second_load_sends_no_request(
    hub: LoopbackHub, repo: Repository, load: Callable[..., Path]
) -> None:
    folder = load("hf:org/sd")
    hub.requests.clear()
    assert load("hf:org/sd") == load("hf:org/sd", offline=True) == folder
    assert hub.requests == []


def test_half_precision_is_fetched_on_request(
    hub: LoopbackHub, repo: Repository, load: Callable[..., Path]
) -> None:
    names = files_in(load("hf:org/sd", dtype="float16"))
    assert f"{UNET}.fp16.safetensors" in names
    assert f"{UNET}.safetensors" not in names
    assert "vae/diffusion_pytorch_model.safetensors" in names  # which has no fp16 file


def test_a_branch_is_pinned_to_its_commit_with_a_notice(
    hub: LoopbackHub, repo: Repository, load: Callable[..., Path]
) -> None:
    with pytest.warns(refiners.Notice, match=f"write hf:org/sd@{repo.commit}") as notices:
        first = refiners.load_model("hf:org/sd").path
    assert [notice.filename for notice in notices] == [__file__]
    hub.publish("org/sd", {**FOLDER, f"{UNET}.safetensors": HALF})
    assert load("hf:org/sd") == first
    with pytest.raises(refiners.MissingError, match="has no revision"):
        load(f"hf:org/sd@{repo.commit[::-1]}")


def test_a_commit_is_requested_without_a_notice(hub: LoopbackHub, repo: Repository) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert files_in(refiners.load_model(f"hf:org/sd@{repo.commit}").path) == NEEDED
    hub.fail("revision", Fault.WRONG_COMMIT)
    other = hub.publish("org/other", FOLDER)
    with pytest.raises(refiners.IntegrityError, match="answers with commit ffff"):
        refiners.load_model(f"hf:org/other@{other.commit}")


def test_unverified_files_of_the_cache_are_ignored(
    hub: LoopbackHub, repo: Repository, tmp_path: Path, load: Callable[..., Path]
) -> None:
    hub.publish("org/lean", {k: v for k, v in FOLDER.items() if "fp16" not in k})
    load("hf:org/lean")
    (snapshot,) = tmp_path.rglob("models--org--lean/snapshots/*")
    (snapshot / f"{UNET}.fp16.safetensors").write_bytes(b"planted")
    assert f"{UNET}.fp16.safetensors" not in files_in(load("hf:org/lean", dtype="float16"))


@pytest.mark.parametrize("name", [f"{UNET}.safetensors", "unet/config.json"])
def test_wrong_bytes_are_not_loaded(
    hub: LoopbackHub, repo: Repository, load: Callable[..., Path], name: str
) -> None:
    hub.fail(name, Fault.WRONG_BYTES, method="GET")
    with pytest.raises(refiners.IntegrityError, match="wrong hash"):
        load("hf:org/sd")
    hub.heal()
    assert files_in(load("hf:org/sd")) == NEEDED


def test_a_file_that_changes_afterwards_is_fetched_again(
    hub: LoopbackHub, repo: Repository, load: Callable[..., Path]
) -> None:
    path = load("hf:org/sd") / f"{UNET}.safetensors"
    path.resolve().write_bytes(b"other")
    assert (load("hf:org/sd") / f"{UNET}.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"unet/config.json": b'{"cross_attention_dim": 1024}'}, ModelError, "Diffusion 2"),
        ({"model_index.json": b'{"_class_name": "FluxPipeline"}'}, ModelError, "FluxPipeline"),
        ({"model_index.json": b"["}, ModelError, "cannot be read"),
        (
            {"model_index.json": None},
            refiners.UnsupportedError,
            "is not in a known layout: .* or Stable Diffusion 1.5 or XL in diffusers' layout",
        ),
        ({"tokenizer/": None}, refiners.UnsupportedError, "has README.md, model_index.json"),
        ({f"{UNET}.s": None, f"{UNET}.fp16": None}, refiners.PolicyError, "as a pickle only"),
        ({UNET: None}, refiners.UnsupportedError, "no readable weights in unet/"),
    ],
)
def test_a_repository_without_a_model_is_refused_before_weights_are_fetched(
    hub: LoopbackHub,
    load: Callable[..., Path],
    changes: dict[str, bytes | None],
    kind: type[refiners.RefinersError],
    words: str,
) -> None:
    files = dict(FOLDER)
    for start, content in changes.items():
        for name in [name for name in files if name.startswith(start)]:
            del files[name]
        if content is not None:
            files[start] = content
    hub.publish("org/odd", files)
    with pytest.raises(kind, match=words) as caught:
        load("hf:org/odd")
    assert caught.value.hint
    assert not {name for name in fetched(hub) if name.endswith((".safetensors", ".bin"))}


def test_a_model_may_be_in_a_folder_of_a_repository(
    hub: LoopbackHub, load: Callable[..., Path]
) -> None:
    hub.publish("org/many", {f"one/{name}": data for name, data in FOLDER.items()})
    folder = load("hf:org/many@main/one")
    assert files_in(folder) == NEEDED
    with pytest.raises(refiners.UnsupportedError, match="hf:org/many@main has one"):
        load("hf:org/many@main/two")


def test_a_single_file_is_recognised_by_its_header_first(
    hub: LoopbackHub, load: Callable[..., Path]
) -> None:
    lora = safetensors_of({"lora_unet_x.lora_down.weight": [float(i) for i in range(50_000)]})
    hub.publish("org/files", {"a/lora.safetensors": lora, "b.ckpt": b"x", "c.txt": b"x"})
    with pytest.raises(ModelError, match=r"hf:org/files/a/lora.safetensors is a LoRA"):
        load("hf:org/files/a/lora.safetensors")
    bodies = [r for r in hub.requests if r.method == "GET" and "resolve" in r.path]
    assert all("Range" in request.headers or "range" in request.headers for request in bodies)
    with pytest.raises(refiners.PolicyError, match="as a pickle only"):
        load("hf:org/files/b.ckpt")
    with pytest.raises(refiners.UnsupportedError):
        load("hf:org/files/c.txt")


def test_a_single_file_is_loaded(
    hub: LoopbackHub, load: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "recognised", lambda path, header: None)
    hub.publish("org/files", {"a/model.safetensors": WEIGHTS})
    path = load("hf:org/files/a/model.safetensors")
    assert path.read_bytes() == WEIGHTS
    assert load("hf:org/files/a/model.safetensors", offline=True) == path


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ('[organisations]\ndeny = ["org"]', "organisations.deny"),
        ('[licenses]\nallow = ["mit"]', "its licence, openrail, is not allowed"),
        ("[files]\nmax-size = 50", "files.max-size"),
    ],
)
def test_rules_are_checked_before_anything_is_fetched(
    hub: LoopbackHub,
    repo: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rules: str,
    words: str,
    load: Callable[..., Path],
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(f'schema = 1\n[packages]\nallow = ["refiners-*"]\n{rules}')
    monkeypatch.setenv("REFINERS_POLICY", str(path))
    with pytest.raises(refiners.PolicyError, match=words):
        load("hf:org/sd")
    assert not [r for r in hub.requests if "resolve" in r.path]


def test_an_allowed_organisation_passes(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[..., Path]
) -> None:
    path = tmp_path / "policy.toml"
    rules = '[packages]\nallow = ["refiners-core"]\n[organisations]\nallow=["org"]'
    path.write_text(f"schema = 1\n{rules}")
    monkeypatch.setenv("REFINERS_POLICY", str(path))
    assert files_in(load("hf:org/sd")) == NEEDED


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.GATED, refiners.AccessError),
        (Fault.UNAVAILABLE, refiners.NetworkError),
        (Fault.TOO_MANY, refiners.NetworkError),
    ],
)
@pytest.mark.parametrize("part", ["info", "tree"])
def test_a_hub_that_does_not_list_the_files(
    hub: LoopbackHub,
    repo: Repository,
    fault: Fault,
    kind: type[refiners.NetworkError],
    part: str,
    load: Callable[..., Path],
) -> None:
    hub.fail(part, fault)
    with pytest.raises(kind) as caught:
        load("hf:org/sd")
    assert caught.value.hint
    hub.heal()
    assert files_in(load("hf:org/sd")) == NEEDED
    with pytest.raises(refiners.MissingError, match="does not exist"):
        load("hf:org/gone")
    with pytest.raises(refiners.OfflineError, match="going online is forbidden"):
        load("hf:org/gone", offline=True)


def test_a_lock_fetches_the_same_files_on_another_machine(
    hub: LoopbackHub, repo: Repository, tmp_path: Path, load: Callable[..., Path]
) -> None:
    path = tmp_path / "refiners.lock"
    result = run("lock", "hf:org/sd", "--out", path)
    assert result.exit_code == 0
    assert f"note: hf:org/sd is pinned to commit {repo.commit}" in result.stderr
    (locked,) = read_lock(path).plugin
    assert (locked.id, locked.version) == ("hf:org/sd", repo.commit)
    assert {file.license for file in locked.file} == {"openrail"}
    hub.publish("org/sd", {**FOLDER, "README.md": b"changed"})
    hub.repositories["org/sd"] = repo  # the old commit is still served, as the Hub does
    with hub.in_use(tmp_path / "elsewhere"):
        result = run("sync", "--locked", "--lock", path)
        assert result.exit_code == 0, result.output
        assert run("sync", "--locked", "--offline", "--lock", path).exit_code == 0
        assert run("verify", "--deep", "--lock", path).exit_code == 0
        folder = load("hf:org/sd", lock=path, offline=True)
        assert files_in(folder) == NEEDED
        with pytest.raises(refiners.LockError, match="hf:org/other is not in") as caught:
            load("hf:org/other", lock=path)
        assert "refiners lock hf:org/other" in caught.value.hint


def test_locking_the_installed_plugins_keeps_repositories(
    site: Site, repo: Repository, tmp_path: Path
) -> None:
    path = tmp_path / "refiners.lock"
    path.write_text("damaged")
    site.add_edges()
    families, _, _ = FAMILIES.read_text("utf-8").partition("[model.")
    site.add("refiners-families", files={"model.toml": families})
    assert run("lock", "--out", path).exit_code == 0
    assert run("lock", f"hf:org/sd@{repo.commit}", "--out", path).exit_code == 0
    assert run("lock", "--out", path).exit_code == 0
    assert [plugin.id for plugin in read_lock(path).plugin] == [
        "refiners-edges:edges",
        f"hf:org/sd@{repo.commit}",
    ]


def test_concurrent_loads_return_the_same_folder(
    repo: Repository, load: Callable[..., Path]
) -> None:
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(refiners.load_model, f"hf:org/sd@{repo.commit}") for _ in range(8)]
        (folder,) = {future.result().path for future in futures}
    assert files_in(folder) == NEEDED


def test_the_pins_of_a_lock_are_enforced(
    hub: LoopbackHub, repo: Repository, tmp_path: Path, load: Callable[..., Path]
) -> None:
    path = tmp_path / "refiners.lock"
    assert run("lock", f"hf:org/sd@{repo.commit}", "--out", path).exit_code == 0
    text = path.read_text().replace(repo.sha256(f"{UNET}.safetensors"), "0" * 64)
    path.write_text(text)
    with pytest.raises(refiners.IntegrityError, match="pinned to 0000"):
        load(f"hf:org/sd@{repo.commit}", lock=path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('source = "hf:org/sd"', 'source = "hf:evil/sd"'),
        ('source = "hf:org/sd"', 'source = "pkg:evil/sd"'),
        ('file = "model_index.json"', 'file = "other.json"'),
        ('file = "model_index.json"', ""),
        ("{commit}", "unknown"),
        ("{sha256}", "unknown"),
        ('id = "hf:org/sd@{commit}"', 'id = "hf:org"'),
        ("[[plugin.file]]", "[[plugin.x-file]]"),
    ],
)
def test_a_lock_that_does_not_pin_every_file_is_refused(
    repo: Repository, tmp_path: Path, load: Callable[..., Path], old: str, new: str
) -> None:
    path, what = tmp_path / "refiners.lock", f"hf:org/sd@{repo.commit}"
    assert run("lock", what, "--out", path).exit_code == 0
    pins = {"commit": repo.commit, "sha256": repo.sha256("model_index.json")}
    assert old.format(**pins) in path.read_text()
    path.write_text(path.read_text().replace(old.format(**pins), new))
    with pytest.raises(refiners.LockError):
        load(what, lock=path)
    assert run("sync", "--locked", "--lock", path).exit_code == 4


def test_a_command_fetches_a_repository(hub: LoopbackHub, repo: Repository) -> None:
    result = run("fetch", "hf:org/sd", "--dtype", "float16", "--json")
    files = json.loads(result.stdout)["files"]
    assert {file["plugin"] for file in files} == {"hf:org/sd"}
    assert len(files) == len(NEEDED)
    assert run("fetch", "hf:org").exit_code == 2
    assert run("fetch", "hf:org/gone").exit_code == 3
    result = run("tree", "hf:org/sd")
    assert (result.exit_code, "does not have a manifest" in result.stderr) == (2, True)


def test_files_with_similar_names_stay_distinct(
    hub: LoopbackHub, load: Callable[..., Path]
) -> None:
    more = {"tokenizer/added-tokens.json": b"1", "tokenizer/added_tokens.json": b"2"}
    hub.publish("org/sd", {**FOLDER, **more})
    folder = load("hf:org/sd")
    assert {(folder / name).read_bytes() for name in more} == {b"1", b"2"}


def test_a_folder_that_cannot_be_linked_is_explained(
    repo: Repository, tmp_path: Path, load: Callable[..., Path]
) -> None:
    folder = load("hf:org/sd")
    shutil.rmtree(folder)
    folder.write_text("in the way")
    with pytest.raises(refiners.CacheError, match="no link to a verified file"):
        load("hf:org/sd")


def test_without_symbolic_links_hard_links_are_made(
    repo: Repository, monkeypatch: pytest.MonkeyPatch, load: Callable[..., Path]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("a privilege is not held")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.MonkeyPatch.context():
        folder = load("hf:org/sd")
    assert files_in(folder) == NEEDED
    assert not os.path.islink(folder / "model_index.json")


def test_paths_outside_the_repository_are_ignored() -> None:
    files = {name: Entry(1, "a" * 40) for name in [*FOLDER, "unet/../../evil.json", "unet/.x.json"]}
    chosen = choose("hf:org/sd", "", Contents("c" * 40, "", files), None, lambda path: {})
    assert sorted(chosen) == NEEDED
