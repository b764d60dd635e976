"""Downloads have a size limit, Ctrl-C cancels them, and special files in a cache are replaced."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import httpx2
import pytest
from huggingface_hub import constants
from refiners.errors import CacheError, IntegrityError, PolicyError
from refiners.host import parallel
from refiners.host.disk import open_regular, read_private, write_whole
from refiners.host.parallel import CalledOff, check_called_off, together
from refiners.hub import contents, request
from refiners.hub.client import Hub
from refiners.hub.receipts import git_hash_of, sha256_of
from refiners.hub.size_limit import metered
from refiners.hub.tensor_header import header_in
from refiners.sources.fetch import fetch_all
from refiners.testing import Fault, LoopbackHub, Repository, safetensors_of

from ..conftest import DATA, FILE, fetch, pin


def parts(folder: Path) -> list[Path]:
    return [*folder.rglob("*.incomplete")]


@pytest.mark.parametrize(
    ("size", "largest", "error"),
    [
        ("pinned", None, IntegrityError),
        (None, 1000, PolicyError),
        ("pinned", 1000, PolicyError),
        ("pinned", 10**9, IntegrityError),
    ],
)
def test_an_endless_body_stops_at_the_pinned_or_allowed_size(
    hub: LoopbackHub,
    repo: Repository,
    tmp_path: Path,
    size: str | None,
    largest: int | None,
    error: type[Exception],
) -> None:
    hub.fail(FILE, Fault.ENDLESS)
    wanted = pin(repo) if size else pin(repo, size=None)
    with pytest.raises(error, match="more than"):
        Hub.from_environment(largest=largest).fetch(wanted)
    assert hub.sent_endlessly < 8_000_000  # the size of the buffers of both sockets
    assert [request.method for request in hub.requests].count("GET") == 1
    assert not parts(tmp_path)
    hub.heal()
    assert fetch(pin(repo)).read_bytes() == DATA


def test_an_announced_size_is_a_limit_without_a_pinned_one(
    hub: LoopbackHub, repo: Repository
) -> None:
    hub.fail(FILE, Fault.ENDLESS, method="GET")
    with pytest.raises(IntegrityError, match=f"more than the {len(DATA)} bytes"):
        fetch(pin(repo, size=None))


def test_an_endless_header_is_not_read_to_its_end(hub: LoopbackHub, repo: Repository) -> None:
    hub.fail(FILE, Fault.ENDLESS)
    with pytest.raises(IntegrityError, match="not a readable safetensors"):
        Hub.from_environment().header(pin(repo))
    assert hub.sent_endlessly < 8_000_000


def test_a_header_is_read_from_as_few_pieces_as_possible() -> None:
    data = safetensors_of({"a": [1.0, 2.0]})
    pieces = (data[at : at + 1] for at in range(len(data)))
    assert header_in(pieces) == {"a": (2,)}
    assert len([*pieces]) == 8  # the values of the tensor, which are not needed
    with pytest.raises(ValueError, match="ends within its header"):
        header_in([data[:20]])
    with pytest.raises(ValueError, match="claims 100000001 bytes"):
        header_in([(100_000_001).to_bytes(8, "little")])


def test_bytes_of_a_restarted_download_are_not_counted_twice() -> None:
    class Bar:
        def __init__(self, name: str = "") -> None:
            self.name = name

        def update(self, n: float | None = 1) -> float | None:
            return n

    error = IntegrityError("more", hint="", dist=None)
    bar = metered(Bar, 10, error)()
    assert [bar.update(8), bar.update(-8), bar.update(10)] == [8, -8, 10]
    with pytest.raises(IntegrityError):
        bar.update(1)
    assert metered(Bar, None, error)().update(10**12) == 10**12
    assert metered(Bar, 1, error)(name="huggingface_hub.xet_get").update(5) == 5


# --- Ctrl-C ---


@pytest.fixture
def press_ctrl_c() -> Iterator[Callable[[threading.Event], None]]:
    """Returns a function that presses Ctrl-C as soon as an event is set."""
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # background jobs of a shell ignore it

    def press(started: threading.Event) -> None:
        def wait() -> None:
            started.wait(10)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        threading.Thread(target=wait, daemon=True).start()

    yield press
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_cancels_running_jobs(press_ctrl_c: Callable[..., None]) -> None:
    started, ended = threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        try:
            for _ in range(2000):
                check_called_off()
                threading.Event().wait(0.005)
        except CalledOff:
            ended.set()
            raise

    press_ctrl_c(started)
    with pytest.raises(KeyboardInterrupt):
        together({1: job, 2: job, 3: job}, 2)
    assert ended.is_set()


def test_ctrl_c_does_not_wait_for_a_stalled_download(
    hub: LoopbackHub, press_ctrl_c: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_GRACE", 0.1)
    repo = hub.publish("org/two", {name: safetensors_of({name: [1.0] * 5000}) for name in "ab"})
    started = threading.Event()
    monkeypatch.setattr(hub, "is_closing", AwaitedEvent(started))
    for name in "ab":
        hub.fail(name, Fault.STALL, method="GET")
    press_ctrl_c(started)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch_all({name: pin(repo, name) for name in "ab"}, Hub.from_environment())
    assert time.monotonic() - start < 5
    hub.is_closing.set()
    for thread in threading.enumerate():  # cancelled jobs end with the next bytes
        if thread.name.startswith("refiners-"):
            thread.join(10)
            assert not thread.is_alive()


class AwaitedEvent(threading.Event):
    """An event that reports the first wait for it."""

    def __init__(self, awaited: threading.Event) -> None:
        super().__init__()
        self.awaited = awaited

    def wait(self, timeout: float | None = None) -> bool:
        self.awaited.set()
        return super().wait(timeout)


def test_jobs_return_in_order_and_fail_together() -> None:
    started: list[int] = []

    def job(number: int) -> int:
        started.append(number)
        if number == 2:
            raise ValueError("two")
        return number * 10

    assert together({3: lambda: job(3), 1: lambda: job(1)}, 4) == {3: 30, 1: 10}
    assert [*together({3: lambda: job(3), 1: lambda: job(1)}, 4)] == [3, 1]
    assert together({}, 4) == {}
    started.clear()
    with pytest.raises(ValueError, match="two"):
        together({number: lambda number=number: job(number) for number in (1, 2, 3, 4)}, 1)
    assert started == [1, 2]  # the remaining jobs are not started
    check_called_off()  # outside of a job nothing is cancelled


def test_of_two_failures_the_first_in_order_is_raised() -> None:
    late = threading.Event()

    def first() -> None:
        late.wait(5)
        raise ValueError("first")

    def second() -> None:
        late.set()
        raise ValueError("second")

    with pytest.raises(ValueError, match="first"):
        together({1: first, 2: second}, 2)


# --- special files ---


def special(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        before = os.getcwd()
        os.chdir(path.parent)  # the path of a socket has at most a hundred characters
        try:
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(path.name)
        finally:
            os.chdir(before)
    else:
        path.symlink_to(path.name)


KINDS = ["pipe", "device", "socket", "link to itself"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sha256", ["pinned", "unknown"])
def test_a_special_file_in_place_of_a_cached_file_is_replaced(
    hub: LoopbackHub, repo: Repository, kind: str, sha256: str
) -> None:
    changes = {} if sha256 == "pinned" else {"sha256": "unknown"}
    for name in (FILE, "vocab.json"):
        path = fetch(pin(repo, name, **changes))
        special(path, kind)
        assert fetch(pin(repo, name, **changes)).read_bytes() == repo.files[name]
        special(path.resolve(), kind)
        assert fetch(pin(repo, name, **changes)).read_bytes() == repo.files[name]


@pytest.mark.parametrize("kind", KINDS)
def test_a_special_file_in_place_of_a_receipt_is_ignored(
    hub: LoopbackHub, repo: Repository, kind: str
) -> None:
    path = fetch(pin(repo))
    for receipt in Hub.from_environment().receipts.folder.iterdir():
        special(receipt, kind)
    assert fetch(pin(repo), offline=True) == path


@pytest.mark.parametrize("kind", KINDS)
def test_a_special_file_is_never_read(tmp_path: Path, kind: str) -> None:
    special(tmp_path / "x", kind)
    for read in (open_regular, sha256_of, git_hash_of, lambda path: read_private(path, 9)):
        with pytest.raises(OSError, match="x"):
            read(tmp_path / "x")


@pytest.mark.parametrize("where", ["name", "blob"])
def test_a_folder_in_place_of_a_cached_file_is_named(
    hub: LoopbackHub, repo: Repository, where: str
) -> None:
    path = fetch(pin(repo))
    path = path if where == "name" else path.resolve()
    path.unlink()
    path.mkdir()
    (path / "something").write_text("text")
    with pytest.raises(CacheError, match="cannot be removed") as caught:
        fetch(pin(repo))
    assert caught.value.hint == f"Remove it: rm -r {path}"
    (path / "something").unlink()
    path.rmdir()
    assert fetch(pin(repo)).read_bytes() == DATA


def test_a_damaged_copy_in_a_cache_without_links_is_replaced(
    hub: LoopbackHub, repo: Repository
) -> None:
    with patch.object(constants, "HF_HUB_DISABLE_SYMLINKS", True):
        path = fetch(pin(repo))
        assert not path.is_symlink()
        path.write_bytes(bytes(len(DATA)))
        assert fetch(pin(repo)).read_bytes() == DATA
    assert [request.method for request in hub.requests].count("GET") == 2


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    assert path.stat().st_mode & 0o777 == 0o600
    write_whole(path, b"new", 0o640)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o640)
    with (
        patch("refiners.host.disk.os.fdopen", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        write_whole(path, b"newer")
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["info", "tree"])
def test_the_list_of_a_repository_has_a_limit(
    hub: LoopbackHub, repo: Repository, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(contents, "LARGEST", 1_000_000)
    hub.fail(kind, Fault.ENDLESS)
    with pytest.raises(IntegrityError, match="more than 1000000 bytes"):
        Hub.from_environment().contents(repo.name)
    assert hub.sent_endlessly < 8_000_000


def test_the_pages_of_a_list_have_a_limit_and_other_servers_get_no_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens: list[bool | None] = []

    @contextmanager
    def get(url: str, token: bool | None) -> Iterator[request.Answer]:
        tokens.append(token)
        link = {"Link": '<http://elsewhere/api/models/org/m?cursor=1>; rel="next"'}
        yield request.Answer(httpx2.Response(200, headers=link, content=b"[]"))

    monkeypatch.setattr(contents, "get", get)
    monkeypatch.setattr(contents, "_MOST_PAGES", 5)
    pages = contents._pages("http://hub/api/models/org/m", "http://hub", None)
    with pytest.raises(IntegrityError, match="endless list"):
        list(pages)
    assert tokens == [None, False, False, False, False]


def test_only_the_beginning_of_an_error_is_read() -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield bytes(0x10000)

    sent_request = httpx2.Request("GET", "http://hub/a")
    response = httpx2.Response(
        404, headers={"X-Error-Code": "a"}, content=body(), request=sent_request
    )
    short = request._shortened(response)
    assert (short.status_code, short.headers["X-Error-Code"], len(short.content)) == (
        404,
        "a",
        0x10000,
    )
    assert sent <= 2
