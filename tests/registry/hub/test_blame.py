"""Errors name the party at fault: this machine, its settings, the Hub, or what was published."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import httpx2
import msgspec
import pytest
from huggingface_hub import close_session, constants
from refiners.errors import (
    AccessError,
    CacheError,
    MachineError,
    NetworkError,
    RefinersError,
    SettingError,
    UnsupportedError,
)
from refiners.host.machine import machine_fault
from refiners.host.secret import hidden
from refiners.hub.errors import explained, is_transient, shown_cause
from refiners.hub.local_settings import proxy_for, setting_fault
from refiners.testing import Fault, LoopbackHub, Repository

from ..conftest import DATA, FILE, fetch, pin


@pytest.fixture(autouse=True)
def _new_connections() -> Iterator[None]:
    """The client keeps the proxies and certificates of its first request."""
    close_session()
    yield
    close_session()


def refusal(repo: Repository, error: BaseException) -> RefinersError:
    """Returns the error of a fetch whose download raises an exception."""
    with (
        patch("huggingface_hub.file_download.http_get", side_effect=error),
        pytest.raises(RefinersError) as caught,
    ):
        fetch(pin(repo))
    return caught.value


@pytest.mark.parametrize(
    "name",
    [
        *("ENOSPC", "EDQUOT", "EACCES", "EROFS", "ENOTDIR", "EISDIR", "ELOOP", "ENAMETOOLONG"),
        *("ESTALE", "EIO", "ENOLCK", "ENXIO", "EMFILE", "ENFILE", "ENOMEM", "EBUSY", "ETXTBSY"),
    ],
)
def test_a_fault_of_this_machine_is_not_the_network(repo: Repository, name: str) -> None:
    number = getattr(errno, name)
    error = refusal(repo, OSError(number, os.strerror(number)))
    assert isinstance(error, MachineError)
    assert error.hint
    assert error.dist is None
    assert "HF_ENDPOINT" not in str(error)


@pytest.mark.parametrize("name", ["ECONNRESET", "ENETUNREACH", "EHOSTUNREACH", "ETIMEDOUT"])
def test_a_broken_connection_is_the_network(repo: Repository, name: str) -> None:
    number = getattr(errno, name)
    assert isinstance(refusal(repo, OSError(number, os.strerror(number))), NetworkError)


def test_exhausted_memory_is_not_the_network(repo: Repository) -> None:
    assert refusal(repo, MemoryError()).code == "machine"


def test_a_folder_that_is_a_file_is_named(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        patch.object(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub")),
        pytest.raises(CacheError, match="file/hub"),
    ):
        fetch(pin(repo))


def test_a_name_that_the_client_refuses_is_not_requested(hub: LoopbackHub, repo: Repository):
    with pytest.raises(UnsupportedError, match="'org/a--b' is not the name of a repository"):
        fetch(msgspec.structs.replace(pin(repo), source="hf:org/a--b"))
    assert hub.requests == []


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:1", "huggingface.co", "ftp://host", "https://", "http://host:port"]
)
def test_an_invalid_address_is_named_and_not_retried(repo: Repository, endpoint: str) -> None:
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    with (
        patch.object(constants, "ENDPOINT", endpoint),
        patch.object(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template),
        patch("time.sleep", side_effect=AssertionError("waited")),
        pytest.raises(SettingError, match="is not the address of a Hub") as caught,
    ):
        fetch(pin(repo))
    assert "HF_ENDPOINT" in caught.value.hint


def test_a_proxy_that_refuses_is_named_without_its_password(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://me:word@127.0.0.1:9")
    with pytest.raises(SettingError, match="set by HTTP_PROXY") as caught:
        fetch(pin(repo))
    assert "word" not in f"{caught.value} {caught.value.__cause__}"
    assert "HTTP_PROXY" in caught.value.hint


def test_hosts_of_no_proxy_are_reached_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "hub.example")
    assert proxy_for("https://hub.example") is None
    assert proxy_for("https://huggingface.co") == ("https_proxy", "http://proxy:3128")


def test_a_proxy_that_needs_a_password_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "")
    answer = httpx2.Response(407, request=httpx2.Request("GET", "https://huggingface.co"))
    error = httpx2.HTTPStatusError("407", request=answer.request, response=answer)
    fault = setting_fault(error, "https://huggingface.co")
    assert fault is not None
    assert "https_proxy" in fault.message


@pytest.mark.parametrize("content", [None, "no certificates"])
def test_unusable_certificates_are_named(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(SettingError, match=r"SSL_CERT_FILE is .*ca\.pem"):
        fetch(pin(repo))


def test_an_untrusted_certificate_is_a_setting() -> None:
    error = httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")
    fault = setting_fault(error, "https://hub.example")
    assert fault is not None
    assert "SSL_CERT_FILE" in fault.hint
    assert not is_transient(error)


def test_an_invalid_token_is_reported_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh\x07")
    error = httpx2.LocalProtocolError("Illegal header value b'Bearer hf_abcdefgh\\x07'")
    fault = setting_fault(error, "https://huggingface.co")
    assert fault is not None
    assert "HF_TOKEN" in fault.hint
    assert shown_cause(error) is None


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("https://me:word@host/a", "word"),
        ("https://cdn/a?X-Amz-Signature=c0ffee&Expires=1", "c0ffee"),
        ("Authorization: Bearer abc.def", "abc.def"),
        ("token hf_AbCdEfGhIj is invalid", "hf_AbCdEfGhIj"),
    ],
)
def test_no_secret_is_printed(repo: Repository, text: str, secret: str) -> None:
    assert secret not in hidden(text)
    for error in (httpx2.ReadError(text), RuntimeError(text), OSError(errno.EIO, text)):
        assert secret not in str(explained(error, pin(repo), "https://me:word@host", None))


# --- the content network and Xet --------------------------------------------------------------


def test_the_content_network_is_retried_like_the_hub(hub: LoopbackHub, repo: Repository) -> None:
    hub.fail(FILE, Fault.REDIRECT, method="HEAD")
    hub.fail(FILE, Fault.UNAVAILABLE, method="GET", times=2)
    assert fetch(pin(repo)).read_bytes() == DATA


@pytest.mark.parametrize(("status", "is_retried"), [(403, True), (503, True), (404, False)])
def test_the_server_that_answered_is_named(
    hub: LoopbackHub, repo: Repository, status: int, is_retried: bool
) -> None:
    answer = httpx2.Response(status, request=httpx2.Request("GET", "https://cdn.example/x?sig=1"))
    error = httpx2.HTTPStatusError("", request=answer.request, response=answer)
    assert is_transient(error) is is_retried
    explanation = explained(error, pin(repo), hub.url, None)
    assert type(explanation) is NetworkError
    assert f"https://cdn.example answered HTTP {status}" in explanation.message
    of_hub = httpx2.Response(403, request=httpx2.Request("GET", f"{hub.url}/x"))
    error = httpx2.HTTPStatusError("", request=of_hub.request, response=of_hub)
    assert not is_transient(error)
    assert isinstance(explained(error, pin(repo), hub.url, None), AccessError)


def xet_get(text: str) -> None:
    """Raises a plain `RuntimeError`, as the client's function of this name does."""
    raise RuntimeError(text)


@pytest.mark.parametrize(
    ("text", "kind", "is_retried"),
    [
        ("CAS Client Error: HTTP status server error (503)", NetworkError, True),
        ("error sending request: Connection refused (os error 111)", NetworkError, True),
        ("I/O error: No space left on device (os error 28)", CacheError, False),
        ("I/O error: Permission denied (os error 13)", CacheError, False),
    ],
)
def test_errors_of_the_transfer_library_are_classified(
    repo: Repository, text: str, kind: type[RefinersError], is_retried: bool
) -> None:
    with pytest.raises(RuntimeError) as caught:
        xet_get(text)
    assert is_transient(caught.value) is is_retried
    explanation = explained(caught.value, pin(repo), "https://huggingface.co", None)
    assert type(explanation) is kind
    assert ("HF_HUB_DISABLE_XET=1" in explanation.hint) is (kind is NetworkError)


def test_variables_that_the_client_cannot_read_are_named() -> None:
    code = "import sys\nfrom refiners.cli import main\nmain(['fetch', 'playground', '--json'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_DOWNLOAD_TIMEOUT": "soon"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "setting"
    assert "HF_HUB_DOWNLOAD_TIMEOUT" in error["hint"]


@pytest.mark.parametrize("name", ["ENOSPC", "EACCES", "ENOTDIR", "ENAMETOOLONG", "EIO"])
def test_a_file_outside_the_cache_has_other_hints(name: str) -> None:
    error = OSError(getattr(errno, name), name)
    cache, other = machine_fault(error, "x"), machine_fault(error, "x", place="out.png")
    assert cache is not None
    assert other is not None
    assert "HF_HOME" in cache.hint
    assert "HF_HOME" not in other.hint
