"""Fetching: the real client against a Hub that misbehaves; nothing unverified is handed out."""

import os
from pathlib import Path
from unittest.mock import patch

import msgspec
import pytest
from huggingface_hub import constants
from refiners.errors import (
    AccessError,
    CacheError,
    IntegrityError,
    MissingError,
    NetworkError,
    OfflineError,
    RefinersError,
)
from refiners.hub import Hub
from refiners.manifest import WeightsFile
from refiners.testing import Fault, LoopbackHub, Repository, no_pauses, safetensors_of

FILE = "deep/model.safetensors"
DATA = safetensors_of({"weight": [float(i) for i in range(5000)]})


@pytest.fixture
def repo(hub: LoopbackHub) -> Repository:
    return hub.publish("org/weights", {FILE: DATA, "vocab.json": b'{"a": 1}'})


def pin(repo: Repository, file: str = FILE, **changes: object) -> WeightsFile:
    pinned = WeightsFile(
        source=f"hf:{repo.name}",
        file=file,
        revision=repo.commit,
        sha256=repo.sha256(file),
        size=len(repo.files[file]),
    )
    return msgspec.structs.replace(pinned, **changes)


def fetch(wanted: WeightsFile, *, offline: bool | None = None) -> Path:
    return Hub.from_environment(offline).fetch(wanted, dist="refiners-x")


def test_a_file_is_downloaded_and_verified(hub: LoopbackHub, repo: Repository) -> None:
    assert fetch(pin(repo)).read_bytes() == DATA
    assert [r.method for r in hub.requests if "resolve" in r.path] == ["HEAD", "HEAD", "GET"]


def test_a_second_load_asks_nobody_and_hashes_nothing(hub: LoopbackHub, repo: Repository) -> None:
    first = fetch(pin(repo))
    hub.requests.clear()
    with patch("refiners.verify.sha256_of", side_effect=AssertionError("hashed again")):
        assert fetch(pin(repo)) == first
        assert fetch(pin(repo), offline=True) == first
    assert hub.requests == []


def test_a_cache_without_receipt_is_hashed_and_not_asked(
    hub: LoopbackHub, repo: Repository
) -> None:
    first = fetch(pin(repo))
    for receipt in Hub.from_environment().receipts.folder.iterdir():
        receipt.unlink()
    hub.requests.clear()
    assert fetch(pin(repo)) == first
    assert hub.requests == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.WRONG_COMMIT, "announces commit"),
        (Fault.WRONG_HASH, "announces sha256"),
        (Fault.NO_COMMIT, "announces commit nothing"),
        (Fault.NO_HASH, "announces sha256 nothing"),
    ],
)
def test_what_is_announced_is_compared_before_anything_is_downloaded(
    hub: LoopbackHub, repo: Repository, fault: Fault, said: str
) -> None:
    hub.fail(FILE, fault)
    with pytest.raises(IntegrityError, match=said) as caught:
        fetch(pin(repo))
    assert (caught.value.exit_code, caught.value.dist) == (4, "refiners-x")
    assert "GET" not in [request.method for request in hub.requests]
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.safetensors"))


def test_another_size_is_refused_before_it_is_downloaded(
    hub: LoopbackHub, repo: Repository
) -> None:
    with pytest.raises(IntegrityError, match="announces size"):
        fetch(pin(repo, size=1))
    assert "GET" not in [request.method for request in hub.requests]


def test_wrong_bytes_are_fetched_once_more_and_then_refused(
    hub: LoopbackHub, repo: Repository
) -> None:
    hub.fail(FILE, Fault.WRONG_BYTES, method="GET")
    with pytest.raises(IntegrityError, match="other bytes"):
        fetch(pin(repo))
    assert [request.method for request in hub.requests].count("GET") == 2
    with pytest.raises(IntegrityError):
        fetch(pin(repo), offline=True)
    hub.heal()
    assert fetch(pin(repo)).read_bytes() == DATA


def test_wrong_bytes_that_pass_are_healed(hub: LoopbackHub, repo: Repository) -> None:
    hub.fail(FILE, Fault.WRONG_BYTES, method="GET", times=1)
    assert fetch(pin(repo)).read_bytes() == DATA


def test_a_damaged_cache_is_healed_online_and_refused_offline(
    hub: LoopbackHub, repo: Repository
) -> None:
    path = fetch(pin(repo))
    path.resolve().write_bytes(bytes(len(DATA)))
    with pytest.raises(IntegrityError, match="does not have the pinned sha256"):
        fetch(pin(repo), offline=True)
    assert fetch(pin(repo)).read_bytes() == DATA


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.SHORT, Fault.UNAVAILABLE, Fault.TOO_MANY])
def test_a_passing_outage_is_waited_for(hub: LoopbackHub, repo: Repository, fault: Fault) -> None:
    hub.fail(FILE, fault, method="GET", times=2)
    assert fetch(pin(repo)).read_bytes() == DATA


@pytest.mark.parametrize(
    ("fault", "method", "kind", "said"),
    [
        (Fault.RESET, "GET", NetworkError, "broke off"),
        (Fault.SHORT, "GET", NetworkError, "broke off"),
        (Fault.UNAVAILABLE, "GET", NetworkError, "HTTP 503"),
        (Fault.SERVER_ERROR, "", NetworkError, "HTTP 500"),
        (Fault.TOO_MANY, "", NetworkError, "too many requests"),
        (Fault.WRONG_SIZE, "GET", IntegrityError, "another size"),
        (Fault.GATED, "", AccessError, "hf auth login"),
        (Fault.DISABLED, "", MissingError, "was disabled"),
    ],
)
def test_a_lasting_outage_is_explained(
    hub: LoopbackHub,
    repo: Repository,
    fault: Fault,
    method: str,
    kind: type[RefinersError],
    said: str,
) -> None:
    hub.fail(FILE, fault, method=method)
    with pytest.raises(kind, match=said) as caught:
        fetch(pin(repo))
    assert type(caught.value) is kind
    assert caught.value.hint
    assert caught.value.dist == "refiners-x"
    with pytest.raises(OfflineError):
        fetch(pin(repo), offline=True)
    hub.heal()
    assert fetch(pin(repo)).read_bytes() == DATA


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": "hf:org/gone"}, "org/gone does not exist"),
        ({"revision": "e" * 40}, "org/weights has no revision eeee"),
        ({"file": "other.safetensors"}, "org/weights has no file other.safetensors"),
    ],
)
def test_what_the_hub_does_not_have_is_named(
    hub: LoopbackHub, repo: Repository, changes: dict[str, str], said: str
) -> None:
    with pytest.raises(MissingError, match=said) as caught:
        fetch(msgspec.structs.replace(pin(repo), **changes))
    assert caught.value.exit_code == 3


def test_a_hub_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with LoopbackHub() as gone:
        repo = gone.publish("org/weights", {FILE: DATA})
    with gone.in_use(tmp_path), pytest.raises(NetworkError, match="does not answer") as caught:
        fetch(pin(repo))
    assert "offline=True" in caught.value.hint


@pytest.mark.parametrize("variable", ["REFINERS_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_says_what_to_do(
    hub: LoopbackHub, repo: Repository, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("REFINERS_OFFLINE", "1" if variable == "REFINERS_OFFLINE" else "")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", variable == "HF_HUB_OFFLINE")
    with pytest.raises(OfflineError, match="Load it once online") as caught:
        fetch(pin(repo))
    assert caught.value.exit_code == 3
    assert hub.requests == []


def test_the_client_s_own_offline_mode_is_named(
    hub: LoopbackHub, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineError, match="Unset HF_HUB_OFFLINE"):
        fetch(pin(repo), offline=False)


def test_an_unknown_pin_is_resolved_once_and_held_to(hub: LoopbackHub, repo: Repository) -> None:
    wanted = pin(repo, revision="unknown", sha256="unknown", size=None)
    with pytest.raises(OfflineError):
        fetch(wanted, offline=True)
    path = fetch(wanted)
    assert path.read_bytes() == DATA
    hub.publish("org/weights", {FILE: DATA[::-1]})  # main moves on; what was resolved stays
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
    with pytest.raises(IntegrityError, match="other bytes"):
        fetch(pin(repo, revision="unknown", sha256="unknown"))


def test_a_known_hash_without_revision_is_looked_for_on_main(
    hub: LoopbackHub, repo: Repository
) -> None:
    wanted = pin(repo, revision="unknown")
    assert fetch(wanted).read_bytes() == DATA
    hub.publish("org/weights", {FILE: DATA[::-1]})
    assert fetch(wanted).read_bytes() == DATA


@pytest.mark.parametrize("sha256", ["unknown", "pinned"])
def test_small_text_is_verified_by_git_s_hash(
    hub: LoopbackHub, repo: Repository, sha256: str
) -> None:
    wanted = pin(repo, "vocab.json", **({"sha256": "unknown"} if sha256 == "unknown" else {}))
    assert fetch(wanted).read_bytes() == b'{"a": 1}'
    other = pin(repo, "vocab.json", sha256="0" * 64)
    with pytest.raises(IntegrityError, match="other bytes"):
        fetch(other)


def test_small_text_with_wrong_bytes_is_refused(hub: LoopbackHub, repo: Repository) -> None:
    hub.fail("vocab.json", Fault.WRONG_BYTES, method="GET")
    with pytest.raises(IntegrityError, match="other bytes"):
        fetch(pin(repo, "vocab.json", sha256="unknown"))


def test_tokens_go_to_https_alone(
    hub: LoopbackHub, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.fail(FILE, Fault.REDIRECT)
    assert fetch(pin(repo)).read_bytes() == DATA
    assert [request.method for request in hub.requests].count("GET") == 1
    assert not [r for r in hub.requests if "authorization" in {key.lower() for key in r.headers}]
    here = Hub.from_environment()
    assert here.token is False
    assert Hub("https://hf.co", here.cache, here.receipts, is_offline=False).token is None


def test_a_repository_that_wants_a_token_says_so(hub: LoopbackHub, repo: Repository) -> None:
    hub.fail(FILE, Fault.UNAUTHORISED)
    with pytest.raises(AccessError, match="hf auth login"):
        fetch(pin(repo))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_is_explained(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir(mode=0o500)
    with pytest.raises(CacheError, match="HF_HOME"):
        fetch(pin(repo))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "disk is full"),
        (PermissionError(13, "Permission denied"), "cannot be written"),
        (OSError(30, "Read-only file system"), "cannot be written"),
    ],
)
def test_a_disk_that_refuses_is_explained(repo: Repository, error: OSError, said: str) -> None:
    with (
        patch("huggingface_hub.file_download.http_get", side_effect=error),
        pytest.raises(CacheError, match=said),
    ):
        fetch(pin(repo))


def test_what_nobody_foresaw_is_still_ours(repo: Repository) -> None:
    with (
        patch("huggingface_hub.file_download.http_get", side_effect=RuntimeError("odd")),
        pytest.raises(NetworkError, match="RuntimeError: odd") as caught,
    ):
        fetch(pin(repo))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_receipts_that_cannot_be_written_cost_only_time(repo: Repository) -> None:
    with patch("refiners.verify.tempfile.mkstemp", side_effect=PermissionError):
        path = fetch(pin(repo))
    assert path.read_bytes() == DATA
    assert fetch(pin(repo)) == path


def test_a_damaged_receipt_is_no_receipt(repo: Repository) -> None:
    path = fetch(pin(repo))
    for receipt in Hub.from_environment().receipts.folder.iterdir():
        receipt.write_text('{"damaged')
    assert fetch(pin(repo)) == path


def test_another_process_uses_the_same_hub(hub: LoopbackHub, tmp_path: Path) -> None:
    environment = hub.environment(tmp_path)
    assert environment["HF_ENDPOINT"] == hub.url
    with no_pauses():
        assert set(environment) >= {"HF_HOME", "HF_HUB_DISABLE_TELEMETRY"}
