"""A receipt is valid for the user who wrote it, for one hash, and for an unchanged file."""

import hashlib
import os
from pathlib import Path
from unittest.mock import patch

import msgspec
import pytest
from refiners.errors import CacheError, IntegrityError
from refiners.host.stamp import Stamp
from refiners.hub.client import Hub
from refiners.hub.metadata import Announced
from refiners.hub.receipts import (
    Receipts,
    Resolution,
    check_header,
    git_hash_of,
    pinned,
    sha256_of,
)
from refiners.manifest.schema import WeightsFile
from refiners.sources.links import linked
from refiners.testing import LoopbackHub, Repository

from ..conftest import DATA, FILE, fetch, pin


def edited(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


@pytest.fixture
def receipts(tmp_path: Path) -> Receipts:
    return Receipts(tmp_path / "receipts")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"bytes")
    return tmp_path / "file"


def give_away(path: Path) -> None:
    """Makes a file look as if another user wrote it: by its owner as root, else by its mode."""
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    else:
        path.chmod(0o666)


def test_an_edit_that_keeps_size_and_time_is_noticed(hub: LoopbackHub, repo: Repository) -> None:
    path = fetch(pin(repo)).resolve()
    stat = path.stat()
    path.write_bytes(edited(DATA))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fetch(pin(repo)).read_bytes() == DATA


def test_a_replaced_file_is_noticed(file: Path, receipts: Receipts) -> None:
    digest = sha256_of(file)
    assert receipts.verify(file, digest)
    assert receipts.has(file, digest)
    other = file.with_name("other")
    other.write_bytes(b"BYTES")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)
    assert not receipts.has(file, digest)
    assert receipts.find(digest) is None
    assert not receipts.verify(file, digest)


def test_only_a_regular_file_has_a_stamp(tmp_path: Path, file: Path) -> None:
    stat = file.stat()
    assert Stamp.of(file) == (5, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns)
    assert Stamp.of(tmp_path) is None
    assert Stamp.of(tmp_path / "nowhere") is None
    assert Stamp.of(Path("nul\0")) is None


@pytest.mark.parametrize("way", ["owner", "group", "world"])
def test_a_receipt_that_others_may_have_written_is_ignored(
    file: Path, receipts: Receipts, way: str
) -> None:
    if way == "owner" and os.geteuid() != 0:
        pytest.skip("only root writes as somebody else")
    digest = sha256_of(file)
    assert receipts.verify(file, digest)
    (receipt,) = receipts.folder.iterdir()
    if way == "owner":
        os.chown(receipt, 65534, 65534)
    else:
        receipt.chmod(0o620 if way == "group" else 0o602)
    assert receipts.find(digest) is None
    assert not receipts.has(file, digest)
    assert receipts.verify(file, digest)  # which writes a new receipt
    assert receipts.find(digest) == file


def test_a_renamed_receipt_is_ignored(file: Path, receipts: Receipts) -> None:
    assert receipts.verify(file, sha256_of(file))
    (receipt,) = receipts.folder.iterdir()
    receipt.rename(receipt.with_name(f"{'0' * 64}.json"))
    assert receipts.find("0" * 64) is None


def test_records_that_others_may_have_written_are_ignored(
    receipts: Receipts, repo: Repository
) -> None:
    wanted = pin(repo, revision="unknown", sha256="unknown")
    receipts.resolve(wanted, Resolution("a" * 40, "b" * 64))
    receipts.rewrite("c" * 64, "d" * 64)
    assert receipts.resolution(wanted) == Resolution("a" * 40, "b" * 64)
    assert receipts.rewriting("c" * 64) == "d" * 64
    for receipt in receipts.folder.iterdir():
        give_away(receipt)
    assert receipts.resolution(wanted) is None
    assert receipts.rewriting("c" * 64) is None


def test_an_oversized_receipt_is_ignored(
    file: Path, receipts: Receipts, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = sha256_of(file)
    assert receipts.verify(file, digest)
    monkeypatch.setattr("refiners.hub.receipts._LARGEST", 10)
    assert receipts.find(digest) is None


def test_an_unpinned_file_is_verified_by_the_announced_hash(
    hub: LoopbackHub, repo: Repository
) -> None:
    for name in (FILE, "vocab.json"):
        wanted = pin(repo, name, revision="unknown", sha256="unknown", size=None)
        path = fetch(wanted)
        path.resolve().write_bytes(edited(path.read_bytes()))
        assert fetch(wanted).read_bytes() == repo.files[name]
        resolution = Hub.from_environment().receipts.resolution(wanted)
        assert resolution == Resolution(repo.commit, repo.sha256(name))


def test_a_folder_of_links_with_a_foreign_file_is_refused(tmp_path: Path, file: Path) -> None:
    folder = linked({"unet/a.safetensors": file}, tmp_path / "receipts")
    assert linked({"unet/a.safetensors": file}, tmp_path / "receipts") == folder
    (folder / "unet" / ".b.1234").symlink_to(file)  # another process is making a link
    assert linked({"unet/a.safetensors": file}, tmp_path / "receipts") == folder
    (folder / "unet" / "b.safetensors").write_bytes(b"b")
    with pytest.raises(CacheError, match=r"unet/b\.safetensors") as caught:
        linked({"unet/a.safetensors": file}, tmp_path / "receipts")
    assert caught.value.hint == f"Remove it: rm -r {folder}"


def apart(text: str) -> str:
    """Returns an equal string that is another object, as strings from files are."""
    return "".join([*text])


def test_an_open_pin_is_filled_by_the_resolution_of_the_same_bytes(repo: Repository) -> None:
    full, low, high = pin(repo, sha256="5" * 64), "1" * 64, "9" * 64
    resolved = Resolution("a" * 40, apart("5" * 64))
    assert pinned(full, Resolution("a" * 40, high)) == full
    assert pinned(pin(repo, revision="unknown"), None).revision == "unknown"
    without = msgspec.structs.replace(full, revision=apart("unknown"))
    assert pinned(without, resolved) == msgspec.structs.replace(full, revision="a" * 40)
    for other in (low, high):  # the manifest has changed since
        assert pinned(without, Resolution("a" * 40, other)) == without
    unhashed = msgspec.structs.replace(full, sha256=apart("unknown"))
    assert pinned(unhashed, resolved) == msgspec.structs.replace(full, revision="a" * 40)


@pytest.mark.parametrize("content", [b"", b"byte", b"more bytes"])
def test_the_receipt_of_a_file_that_shrank_or_grew_is_dropped(
    tmp_path: Path, file: Path, receipts: Receipts, content: bytes
) -> None:
    digest = sha256_of(file)
    for name in ("other", "third"):
        (tmp_path / name).write_bytes(b"bytes")
    assert receipts.verify(file, digest)
    assert receipts.verify(tmp_path / "other", digest)
    assert receipts._stamps(digest).keys() == {str(file), str(tmp_path / "other")}
    file.write_bytes(content)
    assert not receipts.has(file, digest)
    assert receipts.find(digest) == tmp_path / "other"
    assert receipts.verify(tmp_path / "third", digest)
    assert receipts._stamps(digest).keys() == {str(tmp_path / "other"), str(tmp_path / "third")}
    (tmp_path / "other").unlink()
    (tmp_path / "third").write_bytes(content)
    assert receipts.find(digest) is None


@pytest.mark.parametrize("content", [b"byte", b"more bytes"])
def test_a_file_that_changes_during_hashing_is_not_verified(
    file: Path, receipts: Receipts, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    digest = sha256_of(file)

    def meanwhile(path: Path) -> str:
        path.write_bytes(content)
        return digest

    monkeypatch.setattr("refiners.hub.receipts.sha256_of", meanwhile)
    assert not receipts.verify(file, digest)
    assert receipts.find(digest) is None
    assert not receipts.verify(file.with_name("nowhere"), digest)


@pytest.mark.parametrize("content", [None, b"no tensors"])
def test_a_file_without_a_header_is_named(file: Path, content: bytes | None) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(IntegrityError, match=str(file)) as caught:
        check_header(file, dist="refiners-x")
    assert caught.value.dist == "refiners-x"


def test_the_git_hash_of_a_file_is_that_of_git(file: Path) -> None:
    assert git_hash_of(file) == hashlib.sha1(b"blob 5\0bytes").hexdigest()
    file.write_bytes(bytes((1 << 20) + 7))  # more than is read at once
    whole = b"blob %d\0" % file.stat().st_size + file.read_bytes()
    assert git_hash_of(file) == hashlib.sha1(whole).hexdigest()


@pytest.mark.parametrize("name", ["é", os.fsdecode(b"\xff"), os.fsdecode(b"\xc3\xa9\xff")])
def test_a_receipt_names_any_path(tmp_path: Path, receipts: Receipts, name: str) -> None:
    (tmp_path / name).write_bytes(b"bytes")
    digest = sha256_of(tmp_path / name)
    assert receipts.verify(tmp_path / name, digest)
    assert receipts.find(digest) == tmp_path / name
    assert receipts.has(tmp_path / name, digest)
    (receipt,) = receipts.folder.iterdir()
    assert ("bytes:" in receipt.read_text()) == (name != "é")

    with patch("refiners.hub.receipts.sha256_of", side_effect=AssertionError("hashed again")):
        assert receipts.verify(tmp_path / name, digest)


@pytest.mark.parametrize("etag", ["0" * 40, "f" * 40])
def test_a_small_file_without_the_announced_git_hash_is_refused(
    file: Path, receipts: Receipts, etag: str
) -> None:
    wanted = WeightsFile(source="hf:o/r", file="a.json", sha256=apart("unknown"))
    assert receipts.verified(file, wanted, Announced("a" * 40, etag, 5)) is None
    match = Announced("a" * 40, git_hash_of(file), 5)
    assert receipts.verified(file, wanted, match) == sha256_of(file)
    large = Announced("a" * 40, sha256_of(file), 5)
    assert receipts.verified(file, wanted, large) == sha256_of(file)
    pinned_otherwise = msgspec.structs.replace(wanted, sha256="0" * 64)
    assert receipts.verified(file, pinned_otherwise, large) is None
    assert receipts.verified(file.with_name("nowhere"), wanted, match) is None
