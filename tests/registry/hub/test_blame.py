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
from refiners.hub.errors import explained, is_passing, shown_cause
from refiners.hub.local_settings import proxy_for, setting_fault
from refiners.testing import Fault, LoopbackHub, Repository

from ..conftest import DATA, FILE, fetch, pin


@pytest.fixture(autouse=True)
def _new_connections() -> Iterator[None]:
    """The client keeps proxies and certificates of its first request for all that follow."""
    close_session()
    yield
    close_session()


def refusal(repo: Repository, error: BaseException) -> RefinersError:
    """Returns what a fetch says when a download fails in some way."""
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


def test_memory_that_ran_out_is_not_the_network(repo: Repository) -> None:
    assert refusal(repo, MemoryError()).code == "machine"


def test_a_folder_that_is_a_file_is_named(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        patch.object(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub")),
        pytest.raises(CacheError, match="file/hub"),
    ):
        fetch(pin(repo))


def test_a_name_that_the_client_refuses_is_not_looked_up(hub: LoopbackHub, repo: Repository):
    with pytest.raises(UnsupportedError, match="'org/a--b' is not a name of a repository"):
        fetch(msgspec.structs.replace(pin(repo), source="hf:org/a--b"))
    assert hub.requests == []


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:1", "huggingface.co", "ftp://host", "https://", "http://host:port"]
)
def test_an_address_that_is_none_is_named_and_not_waited_for(
    repo: Repository, endpoint: str
) -> None:
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
    with pytest.raises(SettingError, match="which HTTP_PROXY names") as caught:
        fetch(pin(repo))
    assert "word" not in f"{caught.value} {caught.value.__cause__}"
    assert "HTTP_PROXY" in caught.value.hint


def test_hosts_that_need_no_proxy_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "hub.example")
    assert proxy_for("https://hub.example") is None
    assert proxy_for("https://huggingface.co") == ("https_proxy", "http://proxy:3128")


def test_a_proxy_that_wants_a_password_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "")
    answer = httpx2.Response(407, request=httpx2.Request("GET", "https://huggingface.co"))
    error = httpx2.HTTPStatusError("407", request=answer.request, response=answer)
    found = setting_fault(error, "https://huggingface.co")
    assert found is not None
    assert "https_proxy" in found.message


@pytest.mark.parametrize("content", [None, "no certificates"])
def test_certificates_that_cannot_be_used_are_named(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(SettingError, match=r"SSL_CERT_FILE is .*ca\.pem"):
        fetch(pin(repo))


def test_a_certificate_that_is_not_trusted_is_a_setting() -> None:
    error = httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")
    found = setting_fault(error, "https://hub.example")
    assert found is not None
    assert "SSL_CERT_FILE" in found.hint
    assert not is_passing(error)


def test_a_token_that_is_none_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh\x07")
    error = httpx2.LocalProtocolError("Illegal header value b'Bearer hf_abcdefgh\\x07'")
    found = setting_fault(error, "https://huggingface.co")
    assert found is not None
    assert "HF_TOKEN" in found.hint
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
def test_no_secret_is_told(repo: Repository, text: str, secret: str) -> None:
    assert secret not in hidden(text)
    for error in (httpx2.ReadError(text), RuntimeError(text), OSError(errno.EIO, text)):
        assert secret not in str(explained(error, pin(repo), "https://me:word@host", None))


# --- the content network and Xet --------------------------------------------------------------


def test_the_content_network_is_waited_for_like_the_hub(hub: LoopbackHub, repo: Repository) -> None:
    hub.fail(FILE, Fault.REDIRECT, method="HEAD")
    hub.fail(FILE, Fault.UNAVAILABLE, method="GET", times=2)
    assert fetch(pin(repo)).read_bytes() == DATA


@pytest.mark.parametrize(("status", "is_waited_for"), [(403, True), (503, True), (404, False)])
def test_who_answered_is_named(
    hub: LoopbackHub, repo: Repository, status: int, is_waited_for: bool
) -> None:
    answer = httpx2.Response(status, request=httpx2.Request("GET", "https://cdn.example/x?sig=1"))
    error = httpx2.HTTPStatusError("", request=answer.request, response=answer)
    assert is_passing(error) is is_waited_for
    found = explained(error, pin(repo), hub.url, None)
    assert type(found) is NetworkError
    assert f"https://cdn.example answered HTTP {status}" in found.message
    of_hub = httpx2.Response(403, request=httpx2.Request("GET", f"{hub.url}/x"))
    error = httpx2.HTTPStatusError("", request=of_hub.request, response=of_hub)
    assert not is_passing(error)
    assert isinstance(explained(error, pin(repo), hub.url, None), AccessError)


def xet_get(text: str) -> None:
    """Fails as the client's function of this name does, with a plain `RuntimeError`."""
    raise RuntimeError(text)


@pytest.mark.parametrize(
    ("text", "kind", "is_waited_for"),
    [
        ("CAS Client Error: HTTP status server error (503)", NetworkError, True),
        ("error sending request: Connection refused (os error 111)", NetworkError, True),
        ("I/O error: No space left on device (os error 28)", CacheError, False),
        ("I/O error: Permission denied (os error 13)", CacheError, False),
    ],
)
def test_the_transfer_library_is_understood(
    repo: Repository, text: str, kind: type[RefinersError], is_waited_for: bool
) -> None:
    with pytest.raises(RuntimeError) as caught:
        xet_get(text)
    assert is_passing(caught.value) is is_waited_for
    found = explained(caught.value, pin(repo), "https://huggingface.co", None)
    assert type(found) is kind
    assert ("HF_HUB_DISABLE_XET=1" in found.hint) is (kind is NetworkError)


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
def test_what_is_not_the_cache_has_hints_of_its_own(name: str) -> None:
    error = OSError(getattr(errno, name), name)
    cache, other = machine_fault(error, "x"), machine_fault(error, "x", place="out.png")
    assert cache is not None
    assert other is not None
    assert "HF_HOME" in cache.hint
    assert "HF_HOME" not in other.hint
