"""Fetched files are pinned, verified and remembered; no unverified file is returned."""

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import msgspec
import pytest
from huggingface_hub import constants
from refiners.errors import IntegrityError, MissingError, OfflineError
from refiners.hub.client import Hub
from refiners.testing import Fault, LoopbackHub, Repository

from ..conftest import DATA, FILE, fetch, pin


def test_a_file_is_downloaded_and_verified(hub: LoopbackHub, repo: Repository) -> None:
    assert fetch(pin(repo)).read_bytes() == DATA
    assert [r.method for r in hub.requests if "resolve" in r.path] == ["HEAD", "HEAD", "GET"]


def test_a_second_load_sends_no_request_and_hashes_nothing(
    hub: LoopbackHub, repo: Repository
) -> None:
    first = fetch(pin(repo))
    hub.requests.clear()
    with patch("refiners.hub.receipts.sha256_of", side_effect=AssertionError("hashed again")):
        assert fetch(pin(repo)) == first
        assert fetch(pin(repo), offline=True) == first
    assert hub.requests == []


def test_a_cached_file_without_a_receipt_is_hashed_and_not_requested(
    hub: LoopbackHub, repo: Repository
) -> None:
    first = fetch(pin(repo))
    for receipt in Hub.from_environment().receipts.folder.iterdir():
        receipt.unlink()
    hub.requests.clear()
    assert fetch(pin(repo)) == first
    assert hub.requests == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault.WRONG_COMMIT, "announces commit"),
        (Fault.WRONG_HASH, "announces sha256"),
        (Fault.NO_COMMIT, "announces commit nothing"),
        (Fault.NO_HASH, "announces sha256 nothing"),
    ],
)
def test_the_announcement_is_compared_before_the_download(
    hub: LoopbackHub, repo: Repository, fault: Fault, words: str
) -> None:
    hub.fail(FILE, fault)
    with pytest.raises(IntegrityError, match=words) as caught:
        fetch(pin(repo))
    assert (caught.value.exit_code, caught.value.dist) == (4, "refiners-x")
    assert "GET" not in [request.method for request in hub.requests]
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.safetensors"))


def test_another_size_is_refused_before_the_download(hub: LoopbackHub, repo: Repository) -> None:
    with pytest.raises(IntegrityError, match="announces size"):
        fetch(pin(repo, size=1))
    assert "GET" not in [request.method for request in hub.requests]


def test_wrong_bytes_are_fetched_again_and_then_refused(hub: LoopbackHub, repo: Repository) -> None:
    hub.fail(FILE, Fault.WRONG_BYTES, method="GET")
    with pytest.raises(IntegrityError, match="wrong hash"):
        fetch(pin(repo))
    assert [request.method for request in hub.requests].count("GET") == 2
    with pytest.raises(OfflineError):  # the cache does not keep the wrong bytes
        fetch(pin(repo), offline=True)
    hub.heal()
    assert fetch(pin(repo)).read_bytes() == DATA


def test_wrong_bytes_sent_once_are_fetched_again(hub: LoopbackHub, repo: Repository) -> None:
    hub.fail(FILE, Fault.WRONG_BYTES, method="GET", times=1)
    assert fetch(pin(repo)).read_bytes() == DATA


def test_a_damaged_cached_file_is_fetched_again_online_and_refused_offline(
    hub: LoopbackHub, repo: Repository
) -> None:
    path = fetch(pin(repo))
    path.resolve().write_bytes(bytes(len(DATA)))
    with pytest.raises(IntegrityError, match="does not have the pinned sha256"):
        fetch(pin(repo), offline=True)
    assert fetch(pin(repo)).read_bytes() == DATA


def test_an_unknown_pin_is_resolved_once_and_kept(hub: LoopbackHub, repo: Repository) -> None:
    wanted = pin(repo, revision="unknown", sha256="unknown", size=None)
    with pytest.raises(OfflineError):
        fetch(wanted, offline=True)
    path = fetch(wanted)
    assert path.read_bytes() == DATA
    hub.publish("org/weights", {FILE: DATA[::-1]})  # main moves; the resolution stays
    hub.requests.clear()
    assert fetch(wanted) == path
    assert hub.requests == []
    path.resolve().unlink()
    with pytest.raises(MissingError, match="has no revision"):
        fetch(wanted)


def test_bytes_that_differ_from_the_announced_hash_are_refused(
    hub: LoopbackHub, repo: Repository
) -> None:
    hub.fail(FILE, Fault.WRONG_BYTES, method="GET")
    with pytest.raises(IntegrityError, match="wrong hash"):
        fetch(pin(repo, revision="unknown", sha256="unknown"))


def test_a_pinned_hash_without_a_revision_is_fetched_from_main(
    hub: LoopbackHub, repo: Repository
) -> None:
    wanted = pin(repo, revision="unknown")
    assert fetch(wanted).read_bytes() == DATA
    hub.publish("org/weights", {FILE: DATA[::-1]})
    assert fetch(wanted).read_bytes() == DATA


@pytest.mark.parametrize("sha256", ["unknown", "pinned"])
def test_small_text_is_verified_by_its_git_hash(
    hub: LoopbackHub, repo: Repository, sha256: str
) -> None:
    wanted = pin(repo, "vocab.json", **({"sha256": "unknown"} if sha256 == "unknown" else {}))
    assert fetch(wanted).read_bytes() == b'{"a": 1}'
    other = pin(repo, "vocab.json", sha256="0" * 64)
    with pytest.raises(IntegrityError, match="wrong hash"):
        fetch(other)


def test_small_text_with_wrong_bytes_is_refused(hub: LoopbackHub, repo: Repository) -> None:
    hub.fail("vocab.json", Fault.WRONG_BYTES, method="GET")
    with pytest.raises(IntegrityError, match="wrong hash"):
        fetch(pin(repo, "vocab.json", sha256="unknown"))


def test_tokens_are_sent_over_https_only(
    hub: LoopbackHub, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.fail(FILE, Fault.REDIRECT)
    assert fetch(pin(repo)).read_bytes() == DATA
    assert [request.method for request in hub.requests].count("GET") == 1
    assert not [r for r in hub.requests if "authorization" in {key.lower() for key in r.headers}]
    local = Hub.from_environment()
    assert local.token is False
    assert Hub("https://hf.co", local.cache, local.receipts, is_offline=False).token is None


def test_receipts_that_cannot_be_written_cost_only_time(repo: Repository) -> None:
    with patch("refiners.host.disk.tempfile.mkstemp", side_effect=PermissionError):
        path = fetch(pin(repo))
    assert path.read_bytes() == DATA
    assert fetch(pin(repo)) == path


def test_a_damaged_receipt_is_ignored(repo: Repository) -> None:
    path = fetch(pin(repo))
    for receipt in Hub.from_environment().receipts.folder.iterdir():
        receipt.write_text('{"damaged')
    assert fetch(pin(repo)) == path


def test_another_process_loads_a_fetched_file_offline(
    hub: LoopbackHub, repo: Repository, tmp_path: Path
) -> None:
    wanted = pin(repo)
    code = (
        "import msgspec, sys; from refiners.hub.client import Hub\n"
        "from refiners.manifest.schema import *\n"
        "file = msgspec.json.decode(sys.argv[1], type=WeightsFile)\n"
        "print(Hub.from_environment().fetch(file))"
    )
    outputs: list[str] = []
    for more in ({}, {"REFINERS_OFFLINE": "1"}):
        done = subprocess.run(
            [sys.executable, "-c", code, msgspec.json.encode(wanted).decode()],
            env={**os.environ, **hub.environment(tmp_path / "other"), **more},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert Path(outputs[0].strip()).read_bytes() == DATA
    assert [request.method for request in hub.requests].count("GET") == 1
