"""Files come from packages, the Hub and hook modules, and a pickle is converted once."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import msgspec
import pytest
import torch
from refiners.choose.policy import Guard
from refiners.choose.policy_rules import Files, Policy
from refiners.errors import (
    CacheError,
    IntegrityError,
    MissingError,
    PolicyError,
    UnsupportedError,
)
from refiners.hub.client import Hub
from refiners.hub.shapes import header_of
from refiners.installed.inventory import Installed
from refiners.manifest.schema import ModelSpec, WeightsFile
from refiners.sources.fetch import fetch_all, fetch_file, fetch_source
from refiners.testing import LoopbackHub, safetensors_of

from refiners_core.hookspecs import WeightRequest, hookimpl, manager

from ..conftest import Site, pin

DATA = safetensors_of({"weight": [1.0, 2.0]})
OPEN = "".join([*"unknown"])
"""An open pin, as a string that is not the constant itself."""


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def client(tmp_path: Path, site: Site, hub: LoopbackHub) -> Hub:
    site.add(
        "refiners-data",
        files={
            "deep/m.safetensors": DATA,
            "words.txt": "words",
            "a.json": "{}",
            "junk.safetensors": "junk",
        },
        entry_points="",
    )
    return Hub.from_environment()


def decoded(file: WeightsFile) -> WeightsFile:
    """Returns a file as a manifest yields it, with strings that are not constants."""
    return msgspec.json.decode(msgspec.json.encode(file), type=WeightsFile)


def packaged(name: str, data: bytes, **more: str) -> WeightsFile:
    return decoded(WeightsFile(source=f"pkg:refiners_data/{name}", sha256=digest(data), **more))


def test_a_file_of_a_package_is_verified_in_place(client: Hub, site: Site) -> None:
    path = fetch_file(packaged("deep/m.safetensors", DATA), client)
    assert path == site.folder / "refiners_data" / "deep" / "m.safetensors"
    words = packaged("words.txt", b"words", format="text")
    assert fetch_file(words, client).read_text() == "words"
    table = packaged("a.json", b"{}", format="json")
    assert fetch_file(table, client).read_text() == "{}"
    assert header_of(table, client) is None
    with pytest.raises(IntegrityError, match="not a readable safetensors") as caught:
        fetch_file(packaged("junk.safetensors", b"junk"), client, dist="refiners-x")
    assert caught.value.dist == "refiners-x"


def test_a_different_or_missing_file_of_a_package_is_refused(client: Hub) -> None:
    for file, words in (
        (packaged("words.txt", b"other", format="text"), "does not have the sha256 that x pins"),
        (packaged("gone.txt", b"x", format="text"), "the package refiners_data has no file gone"),
    ):
        with pytest.raises(IntegrityError, match=words) as caught:
            fetch_file(file, client, dist="x")
        assert caught.value.hint == "Try pip install --force-reinstall refiners-data."
        assert caught.value.dist == "x"
    with pytest.raises(IntegrityError, match="that its manifest pins"):
        fetch_file(packaged("words.txt", b"other", format="text"), client)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(5, "bad block", "/disk/words.txt"), "the file system of /disk/words.txt failed"),
        (OSError("a damaged archive"), "the package refiners_data cannot be read: a damaged"),
    ],
)
def test_an_unreadable_package_is_named_by_its_file_if_the_error_has_one(
    client: Hub, error: OSError, words: str
) -> None:
    with (
        patch("refiners.sources.fetch.package_file", side_effect=error),
        pytest.raises(CacheError, match=words),
    ):
        fetch_file(packaged("words.txt", b"words", format="text"), client)


def test_files_of_packages_are_read_in_this_thread(client: Hub) -> None:
    files = {1: packaged("words.txt", b"words", format="text"),
             2: packaged("deep/m.safetensors", DATA)}  # fmt: skip
    with patch("refiners.sources.fetch.together", side_effect=AssertionError("threads")):
        assert [path.name for path in fetch_all(files, client).values()] == [
            "words.txt",
            "m.safetensors",
        ]
        assert fetch_all({}, client) == {}


def test_several_files_of_the_hub_are_fetched_concurrently(hub: LoopbackHub, client: Hub) -> None:
    repo = hub.publish("org/two", {"a": DATA, "b": DATA[::-1]})
    files = {"x": pin(repo, "a"), "y": packaged("words.txt", b"words", format="text")}
    with patch("refiners.sources.fetch.together", return_value={"x": Path("x")}) as together:
        assert fetch_all(files, client) == {"x": Path("x")}
    assert together.call_args.args[1] == 4
    assert {**fetch_all(files, client)}.keys() == {"x", "y"}
    with pytest.raises(IntegrityError) as caught:
        fetch_all({"x": pin(repo, "a"), "y": pin(repo, "b")}, client, dist="refiners-x")
    assert caught.value.dist == "refiners-x"


class Mirror:
    """A hook module that fetches one scheme."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[tuple[str, str, str, bool]] = []

    @hookimpl
    def fetch_weights(self, event: WeightRequest) -> Path | None:
        source = event.source
        self.requests.append((source, event.file, event.revision, event.offline))
        return self.path if source.startswith("mirror:") else None


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    (tmp_path / "mirrored").write_bytes(DATA)
    module = Mirror(tmp_path / "mirrored")
    manager().register(module)
    yield module
    manager().unregister(module)


def test_another_scheme_is_fetched_by_a_hook_module(client: Hub, mirror: Mirror) -> None:
    file = WeightsFile(source="mirror:x", revision="a" * 40, sha256=digest(DATA))
    assert fetch_file(file, client) == mirror.path
    assert mirror.requests == [("mirror:x", "", "a" * 40, False)]
    assert fetch_file(file, client) == mirror.path  # from its receipt
    assert len(mirror.requests) == 1
    other = safetensors_of({"other": [1.0]})
    mirror.path.write_bytes(other)
    named = WeightsFile(source="mirror:x", file="f", sha256=digest(other))
    fetch_file(named, Hub.from_environment(offline=True))
    assert mirror.requests[1] == ("mirror:x", "f", "unknown", True)
    with pytest.raises(IntegrityError, match="does not have the sha256 that x pins") as caught:
        fetch_file(WeightsFile(source="mirror:x", sha256="0" * 64), client, dist="x")
    assert caught.value.hint == "It was fetched for mirror:x; nothing was loaded."
    for scheme in ("a", "igloo", "other", "zoo"):  # before, between and after the known schemes
        unread = WeightsFile(source=f"{scheme}:refiners_data/deep/m.safetensors")
        with pytest.raises(UnsupportedError, match=f"no installed hook module fetches {scheme}:"):
            fetch_file(unread, client)
        assert header_of(unread, client) is None


def test_only_a_lock_pins_a_file_of_the_users(client: Hub, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(DATA)
    for sha256 in (OPEN, digest(DATA)):
        file = WeightsFile(source=f"file:{path}", sha256=sha256)
        assert fetch_file(file, client) == path
        assert header_of(file, client) == {"weight": (2,)}
    for sha256 in ("0" * 64, "f" * 64):
        with pytest.raises(IntegrityError, match="the locked sha256"):
            fetch_file(WeightsFile(source=f"file:{path}", sha256=sha256), client)
    path.unlink()
    with pytest.raises(MissingError, match="no longer exists"):
        fetch_file(WeightsFile(source=f"file:{path}"), client)


def pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(3)}, buffer)
    return buffer.getvalue()


def test_a_pickle_is_converted_once(hub: LoopbackHub, client: Hub, tmp_path: Path) -> None:
    repo = hub.publish("org/pickles", {"a.bin": pickled()})
    wanted = pin(repo, "a.bin", format="pickle")
    path = fetch_file(wanted, client)
    assert path.name == f"{wanted.sha256}.safetensors"
    assert header_of_local(path) == {"weight": (3,)}
    hub.requests.clear()
    with patch(
        "refiners_core.weights.pickle_file.rewrite_pickle", side_effect=AssertionError("again")
    ):
        assert fetch_file(wanted, client) == path
    path.write_bytes(DATA)  # so it is converted again
    assert header_of_local(fetch_file(wanted, client)) == {"weight": (3,)}
    path.unlink()
    assert fetch_file(wanted, client) == path
    assert hub.requests == []


def header_of_local(path: Path) -> object:
    from refiners.hub.tensor_header import read_header

    return read_header(path)


def test_a_pickle_without_a_hash_is_not_fetched(hub: LoopbackHub, client: Hub) -> None:
    repo = hub.publish("org/pickles", {"a.bin": pickled()})
    with pytest.raises(PolicyError, match="without a pinned hash") as caught:
        fetch_file(pin(repo, "a.bin", format="pickle", sha256=OPEN), client, dist="x")
    assert caught.value.dist == "x"
    assert hub.requests == []


def test_tensors_that_cannot_be_written_are_an_error_of_the_cache(
    hub: LoopbackHub, client: Hub
) -> None:
    repo = hub.publish("org/pickles", {"a.bin": pickled()})
    wanted = pin(repo, "a.bin", format="pickle")
    client.fetch(wanted)
    (client.receipts.folder.parent / "rewritten").write_text("in the way")
    with pytest.raises(CacheError, match=r"the tensors of .* cannot be written") as caught:
        fetch_file(wanted, client, dist="x")
    assert caught.value.dist == "x"


def test_headers_are_read_from_packages_the_cache_and_the_hub(
    hub: LoopbackHub, client: Hub, mirror: Mirror
) -> None:
    repo = hub.publish("org/two", {"a": DATA})
    shapes = {"weight": (2,)}
    assert header_of(packaged("deep/m.safetensors", DATA), client) == shapes
    assert header_of(packaged("gone.safetensors", DATA), client) is None
    assert header_of(packaged("words.txt", b"words", format="text"), client) is None
    assert header_of(WeightsFile(source="mirror:x", sha256=digest(DATA)), client) is None
    assert header_of(pin(repo, "a"), Hub.from_environment(offline=True)) is None
    assert header_of(pin(repo, "a"), client) == shapes
    assert not list(client.cache.rglob("snapshots"))
    fetch_file(pin(repo, "a"), client)
    assert header_of(pin(repo, "a"), Hub.from_environment(offline=True)) == shapes
    with pytest.raises(IntegrityError) as caught:
        header_of(packaged("junk.safetensors", b"junk"), client, dist="x")
    assert caught.value.dist == "x"


def test_the_files_of_a_variant_are_returned_by_role(hub: LoopbackHub, client: Hub) -> None:
    weights = {
        "one": packaged("deep/m.safetensors", DATA),
        "two": packaged("words.txt", b"words", format="text"),
    }
    spec = ModelSpec(factory="a:b", summary="", core_api=">=1", family="toy", weights=weights)
    plugin = Installed("toy", "refiners-x", "1", Path(), spec)
    roles, settings = {"words": "two"}, {"heads": 3}
    source = fetch_source(plugin, roles, "variant", settings, offline=True, guard=Guard())
    assert {role: path.name for role, path in source.files.items()} == {"words": "words.txt"}
    assert (source.settings, source.variant) == (settings, "variant")
    repo = hub.publish("org/two", {"a": DATA})
    large = Installed(
        "toy", "refiners-x", "1", Path(),
        ModelSpec(factory="a:b", summary="", core_api=">=1", family="toy",
                  weights={"w": pin(repo, "a", size=None)}),
    )  # fmt: skip
    guard = Guard((("rules", Policy(schema=1, files=Files(max_size=10))),))
    with pytest.raises(PolicyError, match="a policy allows 10"):
        fetch_source(large, {"w": "w"}, "v", {}, offline=None, guard=guard)
