"""Transient outages are retried, lasting ones explained; no half-written file is left."""

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
from refiners.testing import Fault, LoopbackHub, Repository

from ..conftest import DATA, FILE, fetch, pin


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.SHORT, Fault.UNAVAILABLE, Fault.TOO_MANY])
def test_a_transient_outage_is_retried(hub: LoopbackHub, repo: Repository, fault: Fault) -> None:
    hub.fail(FILE, fault, method="GET", times=2)
    assert fetch(pin(repo)).read_bytes() == DATA


@pytest.mark.parametrize(
    ("fault", "method", "kind", "words"),
    [
        (Fault.RESET, "GET", NetworkError, "closed the connection"),
        (Fault.SHORT, "GET", NetworkError, "closed the connection"),
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
    words: str,
) -> None:
    hub.fail(FILE, fault, method=method)
    with pytest.raises(kind, match=words) as caught:
        fetch(pin(repo))
    assert type(caught.value) is kind
    assert caught.value.hint
    assert caught.value.dist == "refiners-x"
    with pytest.raises(OfflineError):
        fetch(pin(repo), offline=True)
    hub.heal()
    assert fetch(pin(repo)).read_bytes() == DATA


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "hf:org/gone"}, "org/gone does not exist"),
        ({"revision": "e" * 40}, "org/weights has no revision eeee"),
        ({"file": "other.safetensors"}, "org/weights has no file other.safetensors"),
    ],
)
def test_what_is_missing_on_the_hub_is_named(
    hub: LoopbackHub, repo: Repository, changes: dict[str, str], words: str
) -> None:
    with pytest.raises(MissingError, match=words) as caught:
        fetch(msgspec.structs.replace(pin(repo), **changes))
    assert caught.value.exit_code == 3


def test_an_unreachable_hub_is_explained(tmp_path: Path) -> None:
    with LoopbackHub() as gone:
        repo = gone.publish("org/weights", {FILE: DATA})
    with gone.in_use(tmp_path), pytest.raises(NetworkError, match="did not answer") as caught:
        fetch(pin(repo))
    assert "offline=True" in caught.value.hint


@pytest.mark.parametrize("variable", ["REFINERS_OFFLINE", "HF_HUB_OFFLINE"])
def test_an_offline_error_names_the_remedy(
    hub: LoopbackHub, repo: Repository, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("REFINERS_OFFLINE", "1" if variable == "REFINERS_OFFLINE" else "")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", variable == "HF_HUB_OFFLINE")
    with pytest.raises(OfflineError, match="Load it once online") as caught:
        fetch(pin(repo))
    assert caught.value.exit_code == 3
    assert hub.requests == []


def test_the_offline_mode_of_the_client_is_named(
    hub: LoopbackHub, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineError, match="Unset HF_HUB_OFFLINE"):
        fetch(pin(repo), offline=False)


def test_a_repository_that_needs_a_token_is_explained(hub: LoopbackHub, repo: Repository) -> None:
    hub.fail(FILE, Fault.UNAUTHORISED)
    with pytest.raises(AccessError, match="hf auth login"):
        fetch(pin(repo))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_is_explained(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir(mode=0o500)
    with pytest.raises(CacheError, match="HF_HOME"):
        fetch(pin(repo))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "disk is full"),
        (PermissionError(13, "Permission denied"), "cannot be written"),
        (OSError(30, "Read-only file system"), "cannot be written"),
    ],
)
def test_a_failing_disk_is_explained(repo: Repository, error: OSError, words: str) -> None:
    with (
        patch("huggingface_hub.file_download.http_get", side_effect=error),
        pytest.raises(CacheError, match=words),
    ):
        fetch(pin(repo))


def test_an_unforeseen_exception_is_wrapped(repo: Repository) -> None:
    with (
        patch("huggingface_hub.file_download.http_get", side_effect=RuntimeError("odd")),
        pytest.raises(NetworkError, match="RuntimeError: odd") as caught,
    ):
        fetch(pin(repo))
    assert isinstance(caught.value.__cause__, RuntimeError)
