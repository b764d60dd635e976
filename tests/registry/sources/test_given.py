"""An adapter is loaded from a path or an address: data of manifests finds its reader."""

import json
import os
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
from click.testing import CliRunner, Result
from refiners.catalog.build import add, read_wheel
from refiners.choose.lock import read_lock
from refiners.cli import main
from refiners.errors import (
    AmbiguousNameError,
    IncompatibleError,
    IntegrityError,
    LockError,
    MissingError,
    NotInstalledError,
    OfflineError,
    OptionError,
    PolicyError,
    RefinersError,
    UnsupportedError,
)
from refiners.testing import Fault, LoopbackHub, safetensors_of

from ..catalog.test_catalog import wheel
from ..conftest import EDGES, EDGES_TOML, Site

FILE = """
[adapter.edges.file]
summary = "edges, as anybody writes them"
what = "an edge file"
facts.width = { "edge.*" = 0 }

[[adapter.edges.file.layout]]
name = "plain"
keys = ["edge.up", "edge.down"]

[[adapter.edges.file.layout]]
name = "sharp"
keys = ["edge.up", "edge.down", "edge.sharp"]
settings = { heads = 5 }

[[adapter.edges.file.layout]]
name = "cubic"
what = "a cubic edge file"
keys = ["edge.cubic"]
refuses = "cubes are not read yet"

[adapter.edges.file.beside.config]
files = ["adapter_config.json"]

[adapter.edges.file.beside.encoder]
files = ["encoder/model.safetensors", "../encoders/model.safetensors"]
shapes = { first = ["width"] }
"""
ASKS = """
[[adapter.edges.file.layout]]
name = "asking"
keys = ["edge.up", "edge.down", "edge.open"]
asks = ["ending"]

[adapter.edges.file.asks.ending]
summary = "how it ends"

[adapter.edges.file.asks.ending.choices.round]
settings = { heads = 7 }
weights = { cap = "cap" }

[adapter.edges.file.asks.ending.choices.flat]
settings = { heads = 9 }

[adapter.edges.weights.cap]
source = "pkg:refiners_edges/cap.safetensors"
sha256 = "%s"
"""
MANIFEST = EDGES_TOML.replace("[[adapter.edges.variant]]", f"{FILE}\n[[adapter.edges.variant]]")
PLAIN = safetensors_of({"edge.up": [1.0, 2.0], "edge.down": [3.0, 4.0]})
SHARP = safetensors_of({name: [1.0, 2.0] for name in ("edge.up", "edge.down", "edge.sharp")})
WIDE = safetensors_of({"edge.up": [1.0] * 3, "edge.down": [1.0] * 3})
CUBIC = safetensors_of({"edge.cubic": [1.0, 2.0]})
OPEN = safetensors_of({name: [1.0, 2.0] for name in ("edge.up", "edge.down", "edge.open")})
OTHER = safetensors_of({"something": [1.0]})
ENCODER = safetensors_of({"first": [1.0, 2.0]})
WRONG_ENCODER = safetensors_of({"first": [1.0] * 5})


def header_of_size(size: int) -> bytes:
    """Returns a file of two edges, whose header has a given length, and a megabyte behind it."""
    tensors = {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
               for name in ("edge.up", "edge.down")}  # fmt: skip
    bare = json.dumps({**tensors, "__metadata__": {"pad": ""}})
    text = json.dumps({**tensors, "__metadata__": {"pad": "x" * (size - len(bare))}}).encode()
    assert len(text) == size
    return struct.pack("<Q", size) + text + bytes(1_000_000)


@pytest.fixture(autouse=True)
def _installed(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add_toy()
    site.add_edges(MANIFEST)
    monkeypatch.chdir(tmp_path)


def put(**files: bytes) -> None:
    """Writes files of the working folder; `a__b_safetensors` is `a/b.safetensors`."""
    for name, content in files.items():
        path = Path(name.replace("__", "/"))
        path = path.with_name(path.name.replace("_safetensors", ".safetensors"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def load(what: object, *, model: object = None, **options: Any) -> Any:
    model = refiners.load_model("toy") if model is None else model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return refiners.load_adapter(what, model, **options)  # pyright: ignore


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def publish(hub: LoopbackHub, files: Mapping[str, bytes], name: str = "org/edges") -> Any:
    return hub.publish(name, files)


def content(adapter: Any, role: str = "weights") -> bytes:
    return adapter.built_from.files[role].read_bytes()


# --- what may be written ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "what", ["mine.safetensors", "./mine.safetensors", Path("mine.safetensors")]
)
def test_a_path_finds_its_reader(what: object):
    put(mine_safetensors=PLAIN)
    adapter = load(what)
    assert adapter.name == "edges"
    assert content(adapter) == PLAIN
    assert adapter.built_from.settings == {"heads": 3}


def test_the_most_specific_layout_counts():
    put(mine_safetensors=SHARP)
    assert load("mine.safetensors").built_from.settings == {"heads": 5}


@pytest.mark.parametrize("what", ["hf:org/edges", "hf:org/edges/deep/a.safetensors"])
def test_an_address_finds_its_reader(hub: LoopbackHub, what: str):
    publish(hub, {"deep/a.safetensors": PLAIN, "README.md": b"hi"})
    assert content(load(what)) == PLAIN
    assert content(load(what, offline=True)) == PLAIN


def test_a_name_wins_over_a_file_without_a_separator_or_an_ending():
    Path("edges").mkdir()
    put(edges__a_safetensors=PLAIN)
    with pytest.raises(OptionError, match="edges needs a file"):
        load("edges")
    assert content(load("./edges")) == PLAIN


def test_the_folder_of_an_unknown_name_is_pointed_out():
    put(mine__a_safetensors=PLAIN)
    with pytest.raises(refiners.UnknownNameError) as error:
        load("mine")
    assert str(Path("mine").absolute()) in error.value.hint


# --- folders and repositories ----------------------------------------------------------------

FOLDERS: Mapping[str, tuple[Mapping[str, bytes], str]] = {
    "one file": ({"a.safetensors": PLAIN}, "a.safetensors"),
    "the readable one": ({"a.safetensors": OTHER, "b.safetensors": PLAIN}, "b.safetensors"),
    "the top before checkpoints": (
        {"a.safetensors": PLAIN, "checkpoint-1/a.safetensors": SHARP}, "a.safetensors"),
    "safetensors before a pickle": ({"a.bin": b"x", "a.safetensors": PLAIN}, "a.safetensors"),
    "full precision before half": (
        {"a.fp16.safetensors": SHARP, "a.safetensors": PLAIN}, "a.safetensors"),
    "not the state of a training": (
        {"a.safetensors": PLAIN, "optimizer.bin": b"x", "scheduler.pt": b"x"}, "a.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize("is_local", [True, False])
def test_the_file_of_a_folder_is_found_by_its_layout(hub: LoopbackHub, kind: str, is_local: bool):
    files, chosen = FOLDERS[kind]
    publish(hub, files)
    for name, data in files.items():
        Path("mine", name).parent.mkdir(parents=True, exist_ok=True)
        Path("mine", name).write_bytes(data)
    assert content(load("./mine" if is_local else "hf:org/edges")) == files[chosen]


@pytest.mark.parametrize(
    ("files", "kind", "words"),
    [
        ({"a.safetensors": PLAIN, "b.safetensors": SHARP}, OptionError,
         "several files that an adapter reads: a.safetensors, b.safetensors. Name one: load_ada"
         'pter("hf:org/edges/a.safetensors", model)'),
        ({"a.safetensors": OTHER}, UnsupportedError, "a layout that no adapter declares"),
        ({"a.safetensors": OTHER, "b.safetensors": OTHER}, UnsupportedError,
         "no file that an installed adapter reads; it has a.safetensors, b.safetensors. To see"),
        ({"a.safetensors": OTHER, "b.safetensors": CUBIC}, UnsupportedError,
         "is a cubic edge file for toy (cubic): cubes are not read yet"),
        ({"a.bin": b"x", "b.bin": b"x"}, PolicyError, "/a.bin is a pickle"),
        ({"a.bin": b"x", "b.safetensors": CUBIC, "c.safetensors": OTHER}, UnsupportedError,
         "cubes are not read yet"),
        ({"a.txt": b"x"}, UnsupportedError, "it has no safetensors files"),
        ({"a.safetensors": CUBIC}, UnsupportedError,
         "is a cubic edge file for toy (cubic): cubes are not read yet"),
        ({"a.bin": b"x"}, PolicyError, "is a pickle"),
        ({"model_index.json": b"{}", "a.safetensors": PLAIN}, UnsupportedError,
         'a whole model, not an adapter. Load it: refiners.load_model("hf:org/edges")'),
    ],
)  # fmt: skip
def test_a_repository_without_exactly_one_adapter_is_refused(
    hub: LoopbackHub, files: Mapping[str, bytes], kind: type[Exception], words: str
):
    publish(hub, files)
    with pytest.raises(kind) as error:
        load("hf:org/edges")
    assert words in str(error.value)


def test_a_folder_of_many_files_is_not_searched(hub: LoopbackHub):
    publish(hub, {f"{number}.safetensors": PLAIN for number in range(17)})
    with pytest.raises(OptionError) as error:
        load("hf:org/edges")
    assert "hf:org/edges has 17 files of weights: 0.safetensors, 1.safetensors" in str(error.value)
    assert not [request for request in hub.requests if "resolve" in request.path]


def test_a_hub_that_fails_on_one_file_of_a_repository_is_named(hub: LoopbackHub):
    publish(hub, {"a.safetensors": PLAIN, "b.safetensors": OTHER})
    hub.fail("b.safetensors", Fault.UNAVAILABLE)
    with pytest.raises(refiners.NetworkError):
        load("hf:org/edges")


def test_a_missing_folder_of_a_repository_is_named(hub: LoopbackHub):
    publish(hub, {"deep/a.safetensors": PLAIN})
    with pytest.raises(MissingError, match=r"It has deep/a\.safetensors"):
        load("hf:org/edges/shallow")


def test_the_safetensors_twin_of_a_pickle_is_read():
    put(a_safetensors=PLAIN)
    Path("a.bin").write_bytes(b"anything")
    with pytest.warns(UserWarning, match=r"a.bin is a pickle; a.safetensors beside it is read"):
        adapter = refiners.load_adapter("a.bin", refiners.load_model("toy"))
    assert content(adapter) == PLAIN


def test_the_parts_of_a_large_file_are_fetched_and_lie_beside_their_index(hub: LoopbackHub):
    up, down = safetensors_of({"edge.up": [1.0, 2.0]}), safetensors_of({"edge.down": [3.0, 4.0]})
    parts = {"m-00001-of-00002.safetensors": up, "m-00002-of-00002.safetensors": down}
    names = dict(zip(("edge.up", "edge.down"), parts, strict=True))
    index = json.dumps({"weight_map": names}).encode()
    publish(hub, {**parts, "m.safetensors.index.json": index})
    path = load("hf:org/edges").built_from.files["weights"]
    assert path.read_bytes() == index
    assert [(path.parent / name).read_bytes() for name in parts] == [up, down]


def test_parts_that_are_known_under_other_names_lie_beside_their_index(hub: LoopbackHub):
    from ..conftest import fetch, pin

    up, down = safetensors_of({"edge.up": [1.0, 2.0]}), safetensors_of({"edge.down": [3.0, 4.0]})
    other = publish(hub, {"u.safetensors": up}, "org/other")
    fetch(pin(other, "u.safetensors"))
    names = {"edge.up": "m-1.safetensors", "edge.down": "m-2.safetensors"}
    index = json.dumps({"weight_map": names}).encode()
    files = {"m-1.safetensors": up, "m-2.safetensors": down, "m.safetensors.index.json": index}
    publish(hub, files)
    path = load("hf:org/edges/m.safetensors.index.json").built_from.files["weights"]
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == files


def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path):
    index = {"weight_map": {"edge.up": "../secret.safetensors"}}
    Path("m.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(IntegrityError, match="not an index of files beside it"):
        load("m.safetensors.index.json")


# --- the header alone ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "requests"), [(1_000, 1), (99_000, 1), (100_000, 2), (300_000, 2)]
)
def test_a_header_costs_at_most_two_requests(hub: LoopbackHub, size: int, requests: int):
    from refiners.hub.client import Hub
    from refiners.sources.reader import find_reader

    repo = publish(hub, {"a.safetensors": header_of_size(size)})
    address = f"hf:org/edges@{repo.commit}/a.safetensors"
    reader = find_reader(address, Hub.from_environment())
    assert reader.adapter.name == "edges"
    ranges = [request.headers["Range"] for request in hub.requests if "resolve" in request.path]
    assert len(ranges) == requests
    assert ranges[1:] == [f"bytes=100001-{size + 7}"] * (requests - 1)


def test_nothing_but_the_header_of_an_unsuitable_file_is_requested(hub: LoopbackHub):
    publish(hub, {"a.safetensors": WIDE + bytes(1_000_000)})
    with pytest.raises(IncompatibleError) as error:
        load("hf:org/edges/a.safetensors")
    words = " ".join(str(error.value).split())
    assert (
        "is an edge file (plain), not for this toy model: edges: it has width = 3, not 2" in words
    )
    files = [request for request in hub.requests if "resolve" in request.path]
    assert [request.headers.get("Range") for request in files] == ["bytes=0-100000"]


def test_offline_the_kind_of_an_unfetched_file_is_unknown(hub: LoopbackHub):
    publish(hub, {"a.safetensors": PLAIN})
    run("info", "hf:org/edges")
    with pytest.raises(OfflineError, match="Go online once: refiners fetch hf:org/edges"):
        load("hf:org/edges/a.safetensors", offline=True)


# --- readers ---------------------------------------------------------------------------------


def test_two_readers_are_both_named(site: Site):
    put(mine_safetensors=PLAIN)
    site.add("refiners-other", files={
        "adapter.py": EDGES, "adapter.toml": MANIFEST.replace("edges", "lines"),
    })  # fmt: skip
    with pytest.raises(AmbiguousNameError) as error:
        load("mine.safetensors")
    assert "refiners-edges:edges and refiners-other:lines" in str(error.value)
    assert content(load("edges", file="mine.safetensors")) == PLAIN
    put(folder__a_safetensors=PLAIN, folder__b_safetensors=OTHER)
    with pytest.raises(AmbiguousNameError):
        load("./folder")
    typed = error.value.hint.removeprefix("Name one: load_adapter(").rstrip(").").split(", ")
    reader, file = json.loads(typed[0]), json.loads(typed[2].removeprefix("file="))
    assert content(load(reader, file=file)) == PLAIN


def test_a_reader_goes_before_one_that_refuses(site: Site):
    put(mine_safetensors=CUBIC)
    manifest = MANIFEST.replace("edges", "cubes")
    manifest = manifest.replace('refuses = "cubes are not read yet"\n', "")
    site.add("refiners-cubes", files={"adapter.py": EDGES, "adapter.toml": manifest})
    assert load("mine.safetensors").name == "cubes"


def test_a_published_reader_is_named(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    catalog = tmp_path / "catalog"
    lines = (
        MANIFEST.replace("edges", "lines").replace("an edge", "a line").replace("edge.", "line.")
    )
    add(catalog, read_wheel(wheel(tmp_path, files={"refiners_edges/adapter.toml": lines})))
    monkeypatch.setenv("REFINERS_CATALOG", str(catalog))
    put(mine_safetensors=safetensors_of({"line.up": [1.0], "line.down": [1.0]}))
    with pytest.raises(NotInstalledError) as error:
        load("mine.safetensors")
    assert "is a line file (plain); refiners-edges reads it and is not installed" in str(
        error.value
    )
    assert error.value.hint == "Run pip install refiners-edges."


def test_a_named_reader_refuses_a_file_of_another_kind():
    put(mine_safetensors=safetensors_of({"mine.x": [1.0]}), cube_safetensors=CUBIC)
    with pytest.raises(UnsupportedError, match="is a cubic edge file"):
        load("edges", file="cube.safetensors")
    Path("vision.safetensors").write_bytes(safetensors_of({"vision_model.x": [1.0]}))
    with pytest.raises(
        UnsupportedError, match=r"an image encoder \(transformers\), not an edge fi"
    ):
        load("edges", file="vision.safetensors")
    assert content(load("edges", file="mine.safetensors"))  # of an unknown kind: its code decides


def test_a_pickle_is_read_if_a_manifest_pins_it(site: Site, hub: LoopbackHub):
    torch.save({"edge.up": torch.ones(2)}, "a.bin")
    data = Path("a.bin").read_bytes()
    repo = publish(hub, {"a.bin": data})
    pins = f'source = "hf:org/edges"\nrevision = "{repo.commit}"\nfile = "a.bin"\n'
    pins += f'sha256 = "{repo.sha256("a.bin")}"\nformat = "pickle"\n'
    manifest = EDGES_TOML.replace("edges", "pinned").replace("facts =", 'weights = "w"\nfacts =')
    site.add("refiners-pinned", files={
        "adapter.py": EDGES, "adapter.toml": f"{manifest}[adapter.pinned.weights.w]\n{pins}",
    })  # fmt: skip
    for what in ("hf:org/edges", "a.bin"):
        assert run("lock", "toy", what).exit_code == 0
        for adapter in (load(what), load(what, lock="refiners.lock")):
            assert adapter.name == "pinned"
            assert adapter.built_from.files["weights"].suffix == ".safetensors"
            assert adapter.built_from.files.keys() == {"weights"}
    Path("a.bin").write_bytes(data + b"x")
    with pytest.raises(PolicyError, match="is a pickle"):
        load("a.bin")


# --- what lies beside a file -----------------------------------------------------------------


@pytest.mark.parametrize("is_local", [True, False])
def test_files_beside_a_file_are_found(hub: LoopbackHub, is_local: bool):
    files = {"a.safetensors": PLAIN, "adapter_config.json": b'{"r": 4}',
             "encoder/model.safetensors": ENCODER}  # fmt: skip
    publish(hub, files)
    for name, data in files.items():
        Path("mine", name).parent.mkdir(parents=True, exist_ok=True)
        Path("mine", name).write_bytes(data)
    adapter = load("./mine/a.safetensors" if is_local else "hf:org/edges/a.safetensors")
    assert content(adapter, "config") == b'{"r": 4}'
    assert content(adapter, "encoder") == ENCODER


def test_a_companion_of_other_shapes_is_not_taken(hub: LoopbackHub):
    publish(hub, {"models/a.safetensors": PLAIN, "models/encoder/model.safetensors": WRONG_ENCODER,
                  "encoders/model.safetensors": ENCODER})  # fmt: skip
    assert content(load("hf:org/edges/models/a.safetensors"), "encoder") == ENCODER


def test_a_companion_may_be_named():
    put(a_safetensors=PLAIN, elsewhere__e_safetensors=ENCODER)
    adapter = load("a.safetensors", encoder="elsewhere/e.safetensors", strength=2.0)
    assert content(adapter, "encoder") == ENCODER
    assert adapter.strength == 2.0
    assert content(load("a.safetensors", encoder=Path("elsewhere")), "encoder") == ENCODER
    with pytest.raises(OptionError, match=r"no\.safetensors does not exist"):
        load("a.safetensors", encoder="no.safetensors")


@pytest.fixture
def asking(site: Site) -> None:
    from hashlib import sha256

    package = site.folder / "refiners_edges"
    (package / "cap.safetensors").write_bytes(ENCODER)
    (package / "adapter.toml").write_text(MANIFEST + ASKS % sha256(ENCODER).hexdigest())
    put(open_safetensors=OPEN)


@pytest.mark.usefixtures("asking")
def test_what_a_file_leaves_open_is_asked_for_by_name():
    with pytest.raises(OptionError) as error:
        load("open.safetensors")
    assert "does not say how it ends: round or flat" in str(error.value)
    assert error.value.hint == 'Choose it: load_adapter("open.safetensors", model, ending="round").'
    adapter = load("open.safetensors", ending="round", strength=3.0)
    assert (adapter.built_from.settings, adapter.strength) == ({"heads": 7}, 3.0)
    assert content(adapter, "cap") == ENCODER
    assert load("open.safetensors", ending="flat").built_from.settings == {"heads": 9}
    with pytest.raises(OptionError, match="has no 'square' as how it ends: round or flat"):
        load("open.safetensors", ending="square")


@pytest.mark.usefixtures("asking")
def test_a_lock_pins_the_files_of_every_answer():
    assert run("lock", "toy", "open.safetensors").exit_code == 0
    (locked,) = (plugin for plugin in read_lock(Path("refiners.lock")).plugin if plugin.file)
    assert {file.name for file in locked.file} == {"cap", "file"}
    adapter = load("open.safetensors", ending="round", lock="refiners.lock")
    assert content(adapter, "cap") == ENCODER


# --- locks and policies ----------------------------------------------------------------------


def test_a_lock_pins_a_local_file_and_what_lies_beside_it():
    put(a_safetensors=SHARP)
    Path("adapter_config.json").write_text('{"r": 4}')
    done = run("lock", "toy", "a.safetensors")
    assert done.exit_code == 0, done.output
    (locked,) = (plugin for plugin in read_lock(Path("refiners.lock")).plugin if plugin.file)
    assert locked.id == "refiners-edges:edges=a.safetensors"
    assert {file.name for file in locked.file} == {"file", "file-config"}
    adapter = load("a.safetensors", lock="refiners.lock")
    assert adapter.built_from.settings == {"heads": 5}
    assert content(adapter, "config") == b'{"r": 4}'
    assert run("sync", "--locked", "--offline").exit_code == 0
    Path("adapter_config.json").write_text('{"r": 8}')
    with pytest.raises(
        IntegrityError, match=r"adapter_config.json does not have the locked sha256"
    ):
        load("a.safetensors", lock="refiners.lock")
    assert run("verify", "--lock", "refiners.lock").exit_code == 4


def test_a_lock_pins_an_address_and_answers_in_place_of_the_hub(hub: LoopbackHub):
    publish(hub, {"a.safetensors": PLAIN, "encoder/model.safetensors": ENCODER})
    assert run("lock", "toy", "hf:org/edges").exit_code == 0
    assert run("sync", "--locked").exit_code == 0
    hub.requests.clear()
    adapter = load("hf:org/edges", lock="refiners.lock")
    assert (content(adapter), content(adapter, "encoder")) == (PLAIN, ENCODER)
    assert run("fetch", "hf:org/edges", "--lock", "refiners.lock").exit_code == 0
    assert hub.requests == []


def test_a_file_that_is_not_locked_is_refused_with_a_command_that_locks_it():
    put(a_safetensors=PLAIN)
    run("lock", "toy")
    with pytest.raises(LockError) as error:
        load("a.safetensors", lock="refiners.lock")
    command = error.value.hint.removeprefix("Run ").rstrip(".")
    assert run(*command.split()[1:]).exit_code == 0
    assert content(load("a.safetensors", lock="refiners.lock")) == PLAIN


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('source = "file:a.safetensors"', 'source = "file:b.safetensors"'),
        ('name = "file"', 'name = "other"'),
        ("sha256 = ", 'sha256 = "unknown" #'),
    ],
)
def test_a_lock_that_was_edited_by_hand_is_refused(before: str, after: str):
    put(a_safetensors=PLAIN, b_safetensors=SHARP)
    Path("adapter_config.json").write_text("{}")
    run("lock", "a.safetensors")
    text = Path("refiners.lock").read_text()
    assert before in text
    Path("refiners.lock").write_text(text.replace(before, after))
    with pytest.raises(LockError):
        load("a.safetensors", lock="refiners.lock")


def test_the_variable_of_the_lock_does_not_keep_a_file_from_being_locked(
    monkeypatch: pytest.MonkeyPatch,
):
    put(a_safetensors=PLAIN)
    monkeypatch.setenv("REFINERS_LOCK", "refiners.lock")
    assert run("lock", "toy", "a.safetensors").exit_code == 0
    assert content(load("a.safetensors")) == PLAIN


def test_policies_hold_for_files(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch):
    put(a_safetensors=PLAIN)
    publish(hub, {"a.safetensors": PLAIN})
    rules: Mapping[str, tuple[str, str]] = {
        "hf:org/edges": ('[organisations]\ndeny = ["org"]', "organisations.deny"),
        "hf:org/edges/a.safetensors": ("[files]\nmax-size = 10", "files.max-size"),
        "a.safetensors": ('[licenses]\nallow = ["MIT"]', "a missing licence"),
        "./a.safetensors": ('[packages]\ndeny = ["refiners-edges"]', "packages.deny"),
    }
    for what, (rule, words) in rules.items():
        Path("policy.toml").write_text(f"schema = 1\n{rule}\n")
        monkeypatch.setenv("REFINERS_POLICY", "policy.toml")
        hub.requests.clear()
        with pytest.raises(PolicyError, match=words):
            load(what)
        assert not [r for r in hub.requests if "resolve" in r.path and "Range" not in r.headers]
        assert what != "hf:org/edges" or hub.requests == []


@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.GATED])
@pytest.mark.parametrize("file", ["a.safetensors", "adapter_config.json", "tree"])
def test_a_hub_that_does_not_answer_is_named(hub: LoopbackHub, fault: Fault, file: str):
    publish(hub, {"a.safetensors": PLAIN, "adapter_config.json": b"{}"})
    hub.fail(file, fault)
    with pytest.raises(refiners.NetworkError):
        load("hf:org/edges/a.safetensors")


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_a_damaged_configuration_beside_a_file_decides_nothing(content: bytes):
    put(a_safetensors=PLAIN)
    Path("config.json").write_bytes(content)
    assert load("a.safetensors").name == "edges"


def test_a_url_of_the_hub_is_answered_with_its_address():
    page = "https://huggingface.co/org/edges"
    for what, hint in (
        (page, "Write hf:org/edges."),
        (f"{page}/resolve/main/deep/a.safetensors?download=true", "Write hf:org/edges/deep/a.saf"),
        (f"{page}/tree/v1/deep", "Write hf:org/edges@v1/deep."),
        ("HF:org/edges", "Write hf:org/edges."),
        ("https://example.com/a.safetensors", "Download the file, and give its path."),
        ("file:///models/a.safetensors", "Write /models/a.safetensors."),
    ):
        for load_what in (refiners.load_adapter, refiners.load_model):
            with pytest.raises(OptionError) as error:
                load_what(what)
            assert error.value.hint.startswith(hint)


def test_what_is_there_but_is_not_a_file_is_named():
    put(**{"a.safetensors": b"", "b.SAFETENSORS": b""})
    os.symlink("nowhere", "link.safetensors")
    os.mkfifo("pipe.safetensors")
    for what, message in (
        ("link.safetensors", "is a link to nowhere, which does not exist"),
        ("pipe.safetensors", "is neither a file nor a folder"),
        ("b.SAFETENSORS", "Rename it to b.safetensors: endings are in lower case"),
        (f"{'a' * 5000}.safetensors", "does not exist"),
        ("a" * 5000, "no adapter has the name"),
    ):
        with pytest.raises(RefinersError, match=message):
            refiners.load_adapter(what)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab", "it is a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "it is a web page"),
        (b"GGUF\3\0\0\0\0\0", "it is a GGUF file"),
        (b"PK\3\4\0\0\x08\x08data", "it is a zip archive"),
        (b"\2\0\0\0\0\0\0\0{}", "a.safetensors holds no tensors"),
    ],
)
def test_another_kind_of_file_under_the_name_is_named(content: bytes, message: str):
    put(**{"a.safetensors": content})
    with pytest.raises(RefinersError, match=message):
        refiners.load_adapter("a.safetensors")
