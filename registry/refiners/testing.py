"""A Hub on this machine that serves the real client, and breaks off when told to.

For the tests of the registry and of plugins: files are served from memory on 127.0.0.1, the
huggingface_hub client is the real one, and no other address is reached.

Example:
    ```python
    with LoopbackHub() as hub, hub.in_use(tmp_path):
        repo = hub.publish("org/weights", {"model.safetensors": data})
        hub.fail("model.safetensors", Fault.RESET, times=1)
        ...
    ```
"""

from __future__ import annotations

import enum
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple, Self
from unittest.mock import patch
from urllib.parse import unquote


class Fault(enum.Enum):
    """What the server does instead of answering as it should."""

    RESET = "resets the connection in the middle of the body"
    SHORT = "closes the connection in the middle of the body"
    WRONG_BYTES = "sends other bytes of the right size"
    WRONG_SIZE = "sends, and announces while sending, fewer bytes"
    WRONG_COMMIT = "announces another commit"
    WRONG_HASH = "announces another hash"
    NO_COMMIT = "announces no commit"
    NO_HASH = "announces no hash"
    GATED = "asks for the acceptance of a licence"
    DISABLED = "says that the repository is disabled"
    REDIRECT = "sends the client to another origin for the bytes"
    UNAUTHORISED = 401
    TOO_MANY = 429
    SERVER_ERROR = 500
    UNAVAILABLE = 503


class Repository(NamedTuple):
    """A published repository, and what its manifest would pin."""

    name: str
    commit: str
    files: Mapping[str, bytes]

    def sha256(self, file: str) -> str:
        """Returns the hash of a file."""
        return hashlib.sha256(self.files[file]).hexdigest()


class Request(NamedTuple):
    """A request that was received."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class _Planned:
    fault: Fault
    method: str
    left: int


@dataclass
class LoopbackHub:
    """A Hub on 127.0.0.1, up for the length of a `with` block.

    Attributes:
        repositories: What it serves, by name.
        requests: What it was asked, in order.
    """

    repositories: dict[str, Repository] = field(default_factory=dict[str, Repository])
    requests: list[Request] = field(default_factory=list[Request])
    _planned: dict[str, list[_Planned]] = field(default_factory=dict[str, list[_Planned]])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        hub = self

        class Handler(_Handler):
            served = hub

        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def elsewhere(self) -> str:
        """Another origin that serves the same bytes, as a content network does."""
        return f"http://127.0.0.1:{self._servers[1].server_port}"

    def publish(self, name: str, files: Mapping[str, bytes]) -> Repository:
        """Serves files as `organisation/name`; publishing again makes another commit."""
        parts = [name, *(f"{k}{hashlib.sha256(v).hexdigest()}" for k, v in sorted(files.items()))]
        commit = hashlib.sha1("\n".join(parts).encode(), usedforsecurity=False).hexdigest()
        self.repositories[name] = Repository(name, commit, dict(files))
        return self.repositories[name]

    def fail(self, file: str, fault: Fault, *, method: str = "", times: int = 1_000_000) -> None:
        """Breaks the next requests for a file.

        Args:
            file: Its path in the repository.
            fault: How.
            method: `HEAD` or `GET`; both by default.
            times: How many requests suffer.
        """
        self._planned.setdefault(file, []).append(_Planned(fault, method, times))

    def heal(self) -> None:
        """Breaks nothing any more."""
        self._planned.clear()

    def environment(self, folder: Path) -> dict[str, str]:
        """Returns the variables by which another process uses this Hub and a cache of its own."""
        home = {"HF_HOME": str(folder), "HF_TOKEN_PATH": str(folder / "token")}
        return home | {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_TELEMETRY": "1"}

    @contextmanager
    def in_use(self, folder: Path) -> Generator[Self]:
        """Makes the client of this process use this Hub, a cache of its own, and no pauses."""
        from huggingface_hub import constants

        settings = {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(folder / "hub"),
            "HF_ASSETS_CACHE": str(folder / "assets"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_TELEMETRY": True,
        }
        with ExitStack() as stack:
            for name, value in settings.items():
                stack.enter_context(patch.object(constants, name, value))
            stack.enter_context(no_pauses())
            yield self

    def take_fault(self, file: str, method: str) -> Fault | None:
        """Returns what to do to a request; each planned fault is used up."""
        with self._lock:
            for planned in self._planned.get(file, ()):
                if planned.left and planned.method in ("", method):
                    planned.left -= 1
                    return planned.fault
        return None


@contextmanager
def no_pauses() -> Generator[None]:
    """Lets neither the client nor the registry sleep before it tries again."""
    with patch("time.sleep"):
        yield


class _Handler(BaseHTTPRequestHandler):
    served: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing; tests read `requests`."""

    def do_HEAD(self) -> None:
        """Announces a file."""
        self._answer()

    def do_GET(self) -> None:
        """Sends a file, or a part of it."""
        self._answer()

    def _answer(self) -> None:
        path = unquote(self.path.partition("?")[0]).lstrip("/")
        self.served.requests.append(Request(self.command, path, dict(self.headers)))
        name, is_file, rest = path.partition("/resolve/")
        revision, _, file = rest.partition("/")
        fault = self.served.take_fault(file, self.command)
        repository = self.served.repositories.get(name)
        if not is_file or repository is None:
            self._refuse(404, "RepoNotFound")
        elif fault is Fault.GATED:
            self._refuse(403, "GatedRepo")
        elif fault is Fault.DISABLED:
            self._refuse(403, "", "Access to this resource is disabled.")
        elif fault and isinstance(fault.value, int):
            self._refuse(fault.value, "")
        elif revision not in ("main", repository.commit):
            self._refuse(404, "RevisionNotFound")
        elif file not in repository.files:
            self._refuse(404, "EntryNotFound", commit=repository.commit)
        else:
            self._send(repository, file, fault)

    def _refuse(self, status: int, code: str, message: str = "", commit: str = "") -> None:
        self.send_response(status)
        for header, value in (
            ("X-Error-Code", code),
            ("X-Error-Message", message),
            ("X-Repo-Commit", commit),
        ):
            if value:
                self.send_header(header, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, repository: Repository, file: str, fault: Fault | None) -> None:
        data = repository.files[file]
        if fault is Fault.WRONG_SIZE:
            data = data[:-1]
        elif fault is Fault.WRONG_BYTES:
            data = bytes(byte ^ 1 for byte in data)
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").split("-")[0])
        is_elsewhere = self.server is self.served._servers[1]
        is_sent_away = fault is Fault.REDIRECT and not is_elsewhere
        self.send_response(302 if is_sent_away else 206 if start else 200)
        for header, value in self._announcement(repository, file, fault).items():
            self.send_header(header, value)
        if is_sent_away:
            self.send_header("Location", f"{self.served.elsewhere}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in (Fault.RESET, Fault.SHORT):
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            self.wfile.flush()
            self._hang_up(is_reset=fault is Fault.RESET)
        else:
            self.wfile.write(data[start:])

    def _announcement(
        self, repository: Repository, file: str, fault: Fault | None
    ) -> dict[str, str]:
        commit = "f" * 40 if fault is Fault.WRONG_COMMIT else repository.commit
        etag = "f" * 64 if fault is Fault.WRONG_HASH else _etag(file, repository.files[file])
        announced = {
            "X-Repo-Commit": commit if fault is not Fault.NO_COMMIT else "",
            "ETag": f'"{etag}"' if fault is not Fault.NO_HASH else "",
            "X-Linked-Size": str(len(repository.files[file])),
        }
        return {header: value for header, value in announced.items() if value}

    def _hang_up(self, *, is_reset: bool) -> None:
        if is_reset:  # lingering for zero seconds makes close() send RST instead of FIN
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()


def _etag(file: str, data: bytes) -> str:
    """Names small text as git does, and everything else by its sha256, as the Hub does."""
    if file.endswith((".json", ".txt")):
        blob = b"blob %d\0" % len(data) + data
        return hashlib.sha1(blob, usedforsecurity=False).hexdigest()
    return hashlib.sha256(data).hexdigest()


def safetensors_of(values: Mapping[str, list[float]]) -> bytes:
    """Returns the bytes of a safetensors file of one-dimensional float32 tensors."""
    header: dict[str, object] = {}
    body = b""
    for name, numbers in values.items():
        data = struct.pack(f"<{len(numbers)}f", *numbers)
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": "F32", "shape": [len(numbers)], "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body
