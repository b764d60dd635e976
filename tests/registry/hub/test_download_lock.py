"""Downloads of other processes are waited for, and the files of dead processes are removed."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from click.testing import CliRunner
from huggingface_hub import constants
from huggingface_hub.utils import WeakFileLock
from refiners.cli import main
from refiners.doctor import examine
from refiners.errors import CacheError, Notice
from refiners.hub import download_lock
from refiners.hub.client import Hub
from refiners.hub.download_lock import leftovers, lock_of, take_turn
from refiners.testing import LoopbackHub, Repository

from ..conftest import DATA, FILE, Site, fetch, pin


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    blob = tmp_path / "hub" / "models--org--weights" / "blobs" / ("a" * 64)
    blob.parent.mkdir(parents=True)
    return blob


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    lock = lock_of(tmp_path / "hub", "models--org--weights", "a" * 64)
    lock.parent.mkdir(parents=True)
    lock.touch()
    return lock


@contextmanager
def held(lock: Path, timeout: float = 0) -> Iterator[None]:
    """A lock whose holder never releases it."""
    raise TimeoutError(f"{lock} after {timeout}")
    yield


@contextmanager
def free(lock: Path, timeout: float = 0) -> Iterator[None]:
    yield


@contextmanager
def unwritable(lock: Path, timeout: float = 0) -> Iterator[None]:
    raise PermissionError(lock)
    yield


def old(path: Path, seconds: float = 100) -> Path:
    path.touch()
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_no_wait_without_a_lock_or_for_a_free_one(lock: Path, blob: Path) -> None:
    take_turn(lock, blob, free)
    take_turn(lock, blob, unwritable)
    lock.unlink()
    take_turn(lock, blob, held)


def test_a_lock_without_progress_is_named_and_taken_over(lock: Path, blob: Path) -> None:
    with pytest.warns(Notice) as notices:
        take_turn(lock, blob, held, silence=0.05)
    waiting, removed = (str(notice.message) for notice in notices)
    assert waiting.endswith(f"if no other process is downloading it: rm {lock}")
    assert removed.startswith(f"{lock} was left behind")
    assert not lock.exists()


@pytest.mark.filterwarnings("ignore::refiners.errors.Notice")
def test_a_lock_with_a_growing_download_is_waited_for(lock: Path, blob: Path) -> None:
    part = blob.with_name(f"{blob.name}.1234.incomplete")
    attempts: list[int] = []

    @contextmanager
    def growing(lock: Path, timeout: float) -> Iterator[None]:
        attempts.append(1)
        part.write_bytes(bytes(len(attempts)))
        threading.Event().wait(0.03)
        if len(attempts) < 5:
            raise TimeoutError
        yield

    take_turn(lock, blob, growing, silence=0.05)
    assert len(attempts) == 5
    assert lock.exists()


@pytest.mark.filterwarnings("ignore::refiners.errors.Notice")
def test_a_lock_that_cannot_be_removed_is_named(lock: Path, blob: Path) -> None:
    with (
        patch.object(Path, "unlink", side_effect=PermissionError("not yours")),
        pytest.raises(CacheError, match="cannot be removed: not yours") as caught,
    ):
        take_turn(lock, blob, held, silence=0.01)
    assert caught.value.hint == f"Have its owner remove it: rm {lock}"


def test_dead_partial_downloads_are_removed_and_live_ones_stay(lock: Path, blob: Path) -> None:
    dead = old(blob.with_name(f"{blob.name}.1.incomplete"))
    ancient = old(blob.with_name(f"{blob.name}.incomplete"))
    alive = old(blob.with_name(f"{blob.name}.2.incomplete"), seconds=1)
    other = old(blob.with_name("b.1.incomplete"))
    take_turn(lock, blob, free)
    assert {*blob.parent.iterdir()} == {alive, other}
    assert not dead.exists()
    assert not ancient.exists()


def test_leftovers_are_parts_and_locks_without_a_holder(
    tmp_path: Path, lock: Path, blob: Path
) -> None:
    part = blob.with_name(f"{blob.name}.1.incomplete")
    part.write_bytes(b"123")
    cache = tmp_path / "hub"
    assert leftovers(cache, free) == ({part: 3}, ())
    assert leftovers(cache, held) == ({}, ())
    old(part)
    old(lock)
    assert leftovers(cache, free) == ({part: 3}, ())
    assert leftovers(cache, held) == ({}, (lock,))
    lock.unlink()
    assert leftovers(cache, held) == ({part: 3}, ())
    assert leftovers(tmp_path / "nowhere", held) == ({}, ())


def no_flock(*_: Any) -> None:
    raise OSError(38, "Function not implemented")


@pytest.mark.filterwarnings("ignore")
def test_a_file_system_without_locks_and_the_lock_of_a_dead_process(
    hub: LoopbackHub, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_lock, "_INTERVAL", 0.05)
    monkeypatch.setattr("refiners.hub.client.SILENCE", 0.1)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.4)
    monkeypatch.setattr("fcntl.flock", no_flock)
    lock = lock_of(Hub.from_environment().cache, "models--org--weights", repo.sha256(FILE))
    lock.parent.mkdir(parents=True)
    lock.write_text("999999\nanother-host\n")
    assert fetch(pin(repo)).read_bytes() == DATA


def test_a_lock_of_a_stopped_process_is_taken_over(
    hub: LoopbackHub, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_lock, "_INTERVAL", 0.05)
    monkeypatch.setattr("refiners.hub.client.SILENCE", 0.1)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.4)
    lock = lock_of(Hub.from_environment().cache, "models--org--weights", repo.sha256(FILE))
    lock.parent.mkdir(parents=True)
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
    code += "print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.warns(Notice, match="was left behind"):
            assert fetch(pin(repo)).read_bytes() == DATA
        holder.kill()


def test_the_doctor_names_leftovers_and_their_removal(site: Site, hub: LoopbackHub) -> None:
    cache = Hub.from_environment().cache
    assert examine(is_probing=False) == ()
    blobs = cache / "models--org--weights" / "blobs"
    blobs.mkdir(parents=True)
    for name in ("a.1", "b.2"):
        (blobs / f"{name}.incomplete").write_bytes(b"123")
    lock = lock_of(cache, "models--org--other", "c")
    lock.parent.mkdir(parents=True)
    with WeakFileLock(lock):
        old(lock)
        parts, stale = examine(is_probing=False)
    assert parts.kind == "incomplete"
    assert "models--org--weights: 2 incomplete downloads, 6 bytes" in parts.what
    assert parts.command == f"rm {blobs}/a.1.incomplete {blobs}/b.2.incomplete"
    assert (stale.kind, stale.command) == ("stale lock", f"rm {lock}")
    assert CliRunner().invoke(main, ["doctor", "--quick"]).exit_code == 1
    for path in blobs.iterdir():
        path.unlink()
    assert examine(is_probing=False) == ()
