"""Faults of the Hub, of processes and of disks lose no file and leave none half written.

`python -m pytest tests/registry/hub/test_faults.py --fault-table` prints each fault and its
outcome.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import msgspec
import pytest
from huggingface_hub import constants
from refiners.errors import RefinersError
from refiners.hub.client import Hub
from refiners.manifest.schema import WeightsFile
from refiners.sources.fetch import fetch_all, fetch_file
from refiners.testing import Fault, LoopbackHub, Repository, safetensors_of

from ..conftest import FILE, fetch, pin

BIG = safetensors_of({"weight": [float(i) for i in range(60_000)]})  # 240 kB
FETCH = """
import sys, msgspec
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 8192
from refiners.hub.client import Hub
from refiners.manifest.schema import WeightsFile
print("ready", flush=True)
file = msgspec.json.decode(sys.argv[1], type=WeightsFile)
print(Hub.from_environment().fetch(file))
"""


@pytest.fixture
def repo(hub: LoopbackHub) -> Repository:
    return hub.publish("org/weights", {FILE: BIG, "vocab.json": b"{}"})


Record = Callable[[str, str], None]


@pytest.fixture
def record(request: pytest.FixtureRequest, record_property: Callable[..., None]) -> Record:
    """Records a fault and its outcome for the table."""

    def add(fault: str, outcome: str) -> None:
        record_property("fault", (fault, outcome))

    return add


def snapshots(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("snapshots/*/**/*") if path.is_file()]


def is_clean(folder: Path) -> bool:
    """Whether each file with a published name in a cache holds the published bytes."""
    names = {"model.safetensors": BIG, "vocab.json": b"{}"}
    return all(path.read_bytes() == names[path.name] for path in snapshots(folder))


def refused(wanted: WeightsFile, *, offline: bool | None = None) -> RefinersError:
    with pytest.raises(RefinersError) as caught:
        fetch(wanted, offline=offline)
    assert caught.value.hint
    return caught.value


# the fault, the requests and how many of them it affects; the code of the error, or "fetched" after
# a retry; whether bytes may be requested
HUB = [
    (Fault.RESET, "GET", 2, "fetched", True),
    (Fault.RESET, "GET", 99, "network", True),
    (Fault.SHORT, "GET", 2, "fetched", True),
    (Fault.SHORT, "GET", 99, "network", True),
    (Fault.TOO_MANY, "GET", 2, "fetched", True),
    (Fault.TOO_MANY, "", 99, "network", False),
    (Fault.SERVER_ERROR, "HEAD", 2, "fetched", True),
    (Fault.SERVER_ERROR, "", 99, "network", False),
    (Fault.UNAVAILABLE, "GET", 2, "fetched", True),
    (Fault.UNAVAILABLE, "GET", 99, "network", True),
    (Fault.WRONG_SIZE, "GET", 99, "integrity", True),
    (Fault.WRONG_BYTES, "GET", 1, "fetched", True),
    (Fault.WRONG_BYTES, "GET", 99, "integrity", True),
    (Fault.WRONG_COMMIT, "", 99, "integrity", False),
    (Fault.WRONG_HASH, "", 99, "integrity", False),
    (Fault.NO_COMMIT, "", 99, "integrity", False),
    (Fault.NO_HASH, "", 99, "integrity", False),
    (Fault.GATED, "", 99, "access", False),
    (Fault.UNAUTHORISED, "", 99, "access", False),
    (Fault.DISABLED, "", 99, "missing", False),
]


@pytest.mark.parametrize(("fault", "method", "times", "outcome", "may_get"), HUB)
def test_a_hub_that_fails(
    hub: LoopbackHub,
    repo: Repository,
    tmp_path: Path,
    record: Record,
    fault: Fault,
    method: str,
    times: int,
    outcome: str,
    may_get: bool,
) -> None:
    hub.fail(FILE, fault, method=method, times=times)
    action = fault.value if isinstance(fault.value, str) else f"answers HTTP {fault.value}"
    often = "every time" if times > 2 else f"{times} times"
    record(f"the Hub {action}, {often}", outcome)
    if outcome == "fetched":
        assert fetch(pin(repo)).read_bytes() == BIG
    else:
        assert refused(pin(repo)).code == outcome
        assert may_get or "GET" not in [request.method for request in hub.requests]
        assert snapshots(tmp_path) == []
        assert refused(pin(repo), offline=True).code == "offline"
    hub.heal()
    assert fetch(pin(repo)).read_bytes() == BIG
    assert is_clean(tmp_path)


def test_a_hub_that_refuses_connections(tmp_path: Path, record: Record) -> None:
    record("connection refused", "network")
    with LoopbackHub() as gone:
        repo = gone.publish("org/weights", {FILE: BIG})
    with gone.in_use(tmp_path):
        assert refused(pin(repo)).code == "network"
    assert snapshots(tmp_path) == []


def test_a_hub_that_stays_silent(
    hub: LoopbackHub, repo: Repository, record: Record, tmp_path: Path
) -> None:
    record("the Hub stops in the middle of the body and stays silent, once", "fetched")
    hub.fail(FILE, Fault.STALL, method="GET", times=1)
    with patch.object(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2):
        assert fetch(pin(repo)).read_bytes() == BIG
    assert is_clean(tmp_path)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"source": "hf:org/gone"}, "the repository was deleted"),
        ({"revision": "e" * 40}, "the pinned commit is gone"),
        ({"file": "other.safetensors"}, "the file is gone at the pinned commit"),
    ],
)
def test_a_deleted_file_commit_or_repository(
    hub: LoopbackHub, repo: Repository, record: Record, changes: dict[str, str], fault: str
) -> None:
    record(fault, "missing")
    assert refused(msgspec.structs.replace(pin(repo), **changes)).code == "missing"


def test_a_redirect_to_another_origin(
    hub: LoopbackHub, repo: Repository, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("redirect to another origin, with a token set", "fetched, token not sent")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.fail(FILE, Fault.REDIRECT)
    assert fetch(pin(repo)).read_bytes() == BIG
    assert not [r for r in hub.requests if "authorization" in {key.lower() for key in r.headers}]


def test_a_redirect_does_not_take_the_token_along(
    hub: LoopbackHub, repo: Repository, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates https, over which the token is sent, by trusting the loopback Hub."""
    record("redirect to another origin, with a token that the Hub gets", "fetched, not sent on")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(Hub, "token", None)
    hub.fail(FILE, Fault.REDIRECT)
    assert fetch(pin(repo)).read_bytes() == BIG
    sent = {
        {key.lower(): value for key, value in r.headers.items()}["host"]: "authorization"
        in {key.lower() for key in r.headers}
        for r in hub.requests
    }
    assert sent == {hub.url.removeprefix("http://"): True,
                    hub.elsewhere.removeprefix("http://"): False}  # fmt: skip


def test_an_interrupted_download_is_resumed(
    hub: LoopbackHub, repo: Repository, record: Record
) -> None:
    record("the connection is closed after half of the bytes, once", "resumed from there")
    hub.fail(FILE, Fault.SHORT, method="GET", times=1)
    with patch.object(constants, "DOWNLOAD_CHUNK_SIZE", 8192):
        assert fetch(pin(repo)).read_bytes() == BIG
    ranges = [v for r in hub.requests for k, v in r.headers.items() if k.lower() == "range"]
    assert len(ranges) == 1
    assert int(ranges[0].removeprefix("bytes=").rstrip("-")) > 0


@pytest.mark.parametrize("offline", [False, True])
def test_a_corrupted_cache(
    hub: LoopbackHub, repo: Repository, record: Record, tmp_path: Path, offline: bool
) -> None:
    record(
        f"a cached file is corrupted, {'offline' if offline else 'online'}",
        "integrity" if offline else "fetched again",
    )
    path = fetch(pin(repo))
    path.resolve().write_bytes(bytes(len(BIG)))
    if offline:
        assert refused(pin(repo), offline=True).code == "integrity"
    assert fetch(pin(repo)).read_bytes() == BIG
    assert is_clean(tmp_path)


def test_a_damaged_receipt(repo: Repository, record: Record) -> None:
    record("a receipt is damaged", "the file is hashed again")
    path = fetch(pin(repo))
    for receipt in Hub.from_environment().receipts.folder.iterdir():
        receipt.write_bytes(b"\x00")
    assert fetch(pin(repo), offline=True) == path


@pytest.mark.parametrize("is_cached", [False, True])
def test_offline(hub: LoopbackHub, repo: Repository, record: Record, is_cached: bool) -> None:
    record(
        f"offline {'with' if is_cached else 'without'} the file in the cache",
        "the cached file" if is_cached else "offline",
    )
    if is_cached:
        fetch(pin(repo))
    hub.requests.clear()
    if is_cached:
        assert fetch(pin(repo), offline=True).read_bytes() == BIG
    else:
        assert refused(pin(repo), offline=True).code == "offline"
    assert hub.requests == []


def test_one_of_several_files_fails(
    hub: LoopbackHub, repo: Repository, record: Record, tmp_path: Path
) -> None:
    record("one of two companion files is refused", "network, none returned")
    hub.fail("vocab.json", Fault.UNAVAILABLE)
    files = {"weights": pin(repo), "vocab": pin(repo, "vocab.json", format="json")}
    with pytest.raises(RefinersError) as caught:
        fetch_all(files, Hub.from_environment())
    assert caught.value.code == "network"
    hub.heal()
    assert set(fetch_all(files, Hub.from_environment())) == {"weights", "vocab"}
    assert is_clean(tmp_path)


def test_a_file_in_another_format(hub: LoopbackHub, record: Record) -> None:
    record("the pinned file is not a safetensors file", "integrity")
    junk = hub.publish("org/junk", {FILE: b"junk" * 100})
    with pytest.raises(RefinersError) as caught:
        fetch_file(pin(junk), Hub.from_environment())
    assert caught.value.code == "integrity"


def test_a_pickle_that_runs_code(hub: LoopbackHub, record: Record, tmp_path: Path) -> None:
    record("a pinned pickle holds code", "pickle, no code was run")
    mark = tmp_path / "was-run"
    bomb = b"cposix\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR."
    repo = hub.publish("org/bomb", {"a.bin": bomb})
    with pytest.raises(RefinersError) as caught:
        fetch_file(pin(repo, "a.bin", format="pickle"), Hub.from_environment())
    assert (caught.value.code, caught.value.exit_code) == ("pickle", 4)
    assert not mark.exists()


# --- other processes ---


def start(hub: LoopbackHub, wanted: WeightsFile, home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, msgspec.json.encode(wanted).decode()],
        env={**os.environ, **hub.environment(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_process_killed_during_a_download(
    hub: LoopbackHub, repo: Repository, record: Record, tmp_path: Path
) -> None:
    record("kill -9 during a download, then a second run", "fetched, nothing half written")
    home = tmp_path / "other"
    hub.fail(FILE, Fault.STALL, method="GET", times=1)
    with start(hub, pin(repo), home) as first:
        parts: list[Path] = []
        for _ in range(2000):
            parts = [p for p in home.rglob("*.incomplete") if p.stat().st_size]
            if parts:
                break
            wait(0.01)
        assert parts
        first.send_signal(signal.SIGKILL)
    assert snapshots(home) == []
    with start(hub, pin(repo), home) as second:
        output, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert Path(output.splitlines()[-1]).read_bytes() == BIG
    assert is_clean(home)


def test_concurrent_processes_fetch_once(
    hub: LoopbackHub, repo: Repository, record: Record, tmp_path: Path
) -> None:
    record("three processes fetch the same file at once", "fetched once")
    running = [start(hub, pin(repo), tmp_path / "other") for _ in range(3)]
    paths = {process.communicate(timeout=120)[0].splitlines()[-1] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    (path,) = paths
    assert Path(path).read_bytes() == BIG
    assert [request.method for request in hub.requests].count("GET") == 1


def wait(seconds: float) -> None:
    """Waits, although the tests patch `time.sleep`."""
    threading.Event().wait(seconds)


# --- disks ---


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """Mounts a small disk; skips the test without the right to mount."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("mounting a disk needs root")
    try:
        yield folder
    finally:
        with suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", "-l", str(folder)], check=True)


needs_mount = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounting a disk needs root"
)


@needs_mount
@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_full_disk(hub: LoopbackHub, repo: Repository, record: Record, tmp_path: Path) -> None:
    record("the disk is full during the download", "cache")
    with disk(tmp_path / "small", "size=128k") as small, hub.in_use(small):
        error = refused(pin(repo))
        assert error.code == "cache"
        assert "disk is full" in str(error)
        assert snapshots(small) == []
        assert not list(small.rglob("*.incomplete"))
    assert fetch(pin(repo)).read_bytes() == BIG


@needs_mount
@pytest.mark.parametrize("is_cached", [False, True])
def test_a_read_only_cache(
    hub: LoopbackHub, repo: Repository, record: Record, tmp_path: Path, is_cached: bool
) -> None:
    record(
        f"the cache is read-only and {'has' if is_cached else 'lacks'} the file",
        "the cached file" if is_cached else "cache",
    )
    with disk(tmp_path / "fixed", "size=4m") as fixed, hub.in_use(fixed):
        path = fetch(pin(repo)) if is_cached else None
        subprocess.run(["mount", "-o", "remount,ro", str(fixed)], check=True)
        if path:
            assert fetch(pin(repo)) == path
            assert fetch(pin(repo), offline=True) == path
        else:
            assert refused(pin(repo)).code == "cache"


@needs_mount
def test_a_disk_that_is_full_when_a_receipt_is_written(
    hub: LoopbackHub, repo: Repository, record: Record, tmp_path: Path
) -> None:
    record("the disk is full when the receipt is written", "fetched, hashed again next time")
    with (
        disk(tmp_path / "small", "size=1m") as small,
        hub.in_use(tmp_path / "hf"),
        patch.object(constants, "HF_ASSETS_CACHE", str(small / "assets")),
    ):
        with suppress(OSError):
            (small / "filler").write_bytes(bytes(2_000_000))
        assert fetch(pin(repo)).read_bytes() == BIG
        assert fetch(pin(repo), offline=True).read_bytes() == BIG
