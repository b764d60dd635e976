"""Answers the requests to a loopback Hub, with the faults that a test plans."""

from __future__ import annotations

import contextlib
import enum
import json
import socket
import struct
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from threading import Event
from typing import Final, NamedTuple, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from refiners.testing.repository import Repository, etag_of, listed, tags_of
from refiners.testing.upload import Published, accept

_END_OF_ENDLESS: Final = 500
"""Pieces of 64 kB after which an endless answer ends, so that a failing test ends too."""


class Fault(enum.Enum):
    """The ways in which the server fails to answer correctly."""

    RESET = "resets the connection in the middle of the body"
    SHORT = "closes the connection in the middle of the body"
    STALL = "stops in the middle of the body and keeps the connection open"
    WRONG_BYTES = "sends other bytes of the right size"
    WRONG_SIZE = "sends, and announces while sending, fewer bytes"
    WRONG_COMMIT = "announces another commit"
    WRONG_HASH = "announces another hash"
    NO_COMMIT = "announces no commit"
    NO_HASH = "announces no hash"
    GATED = "requires the acceptance of a licence"
    DISABLED = "reports that the repository is disabled"
    ENDLESS = "announces no size, and sends without end"
    REDIRECT = "sends the client to another origin for the bytes"
    UNAUTHORISED = 401
    TOO_MANY = 429
    SERVER_ERROR = 500
    UNAVAILABLE = 503


class Request(NamedTuple):
    """A received request."""

    method: str
    path: str
    headers: Mapping[str, str]


class Served(Published, Protocol):
    """The state of a loopback Hub that its answers read and write."""

    requests: list[Request]
    documents: dict[str, object]
    is_closing: Event
    sent_endlessly: int

    @property
    def port(self) -> int:
        """The port of its address."""
        ...

    @property
    def url(self) -> str:
        """Its address."""
        ...

    @property
    def elsewhere(self) -> str:
        """The address of another origin that serves the same bytes."""
        ...

    def take_fault(self, file: str, method: str) -> Fault | None:
        """Returns the fault that is planned for a request."""
        ...


class Answer(BaseHTTPRequestHandler):
    """One answer of a loopback Hub, set up by its class attribute."""

    served: Served
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing; tests read `requests`."""

    def do_HEAD(self) -> None:
        """Announces a file."""
        self._answer()

    def do_GET(self) -> None:
        """Sends a file, a part of it, or a list."""
        self._answer()

    def do_POST(self) -> None:
        """Accepts a step of an upload."""
        path = unquote(self.path.partition("?")[0]).lstrip("/")
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.served.requests.append(Request(self.command, path, dict(self.headers)))
        fault = self.served.take_fault("upload", self.command)
        if fault and isinstance(fault.value, int):
            self._refuse(fault.value, "")
        elif (answer := accept(self.served, path, body, self.served.url)) is None:
            self._refuse(404, "RepoNotFound")
        else:
            self._send_json(answer)

    def _answer(self) -> None:
        path = unquote(self.path.partition("?")[0]).lstrip("/")
        self.served.requests.append(Request(self.command, path, dict(self.headers)))
        if path in self.served.documents:
            self._send_json(self.served.documents[path])
            return
        if path == "api/models":
            self._search(parse_qs(urlsplit(self.path).query))
            return
        if path.startswith("api/models/"):
            self._list(path.removeprefix("api/models/"))
            return
        name, is_file, rest = path.partition("/resolve/")
        revision, _, file = rest.partition("/")
        fault = self.served.take_fault(file, self.command)
        repository = self._repository(name, revision)
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

    def _repository(self, name: str, revision: str) -> Repository | None:
        newest = self.served.repositories.get(name)
        return self.served.history.get((name, revision), newest)

    def _search(self, query: Mapping[str, list[str]]) -> None:
        """Answers a search: repositories with all words in the name, and all tags."""
        fault = self.served.take_fault("search", self.command)
        if fault and isinstance(fault.value, int):
            self._refuse(fault.value, "")
            return
        words = " ".join(query.get("search", [])).lower().split()
        matches = [
            {"id": repository.name, "tags": tags, "downloads": len(repository.files), "likes": 0}
            for repository in self.served.repositories.values()
            if {*query.get("filter", [])} <= {*(tags := tags_of(repository))}
            and all(word in repository.name.lower() for word in words)
        ]
        self._send_json(matches[: int(query.get("limit", ["1000"])[0])])

    def _list(self, path: str) -> None:
        """Answers `organisation/name`, optionally with `/revision/NAME` or `/tree/NAME`."""
        organisation, name, kind, revision = [*path.split("/", 3), "", "", ""][:4]
        repository = self._repository(f"{organisation}/{name}", revision)
        fault = self.served.take_fault(kind or "info", self.command)
        if repository is None:
            self._refuse(404, "RepoNotFound")
        elif fault is Fault.GATED:
            self._refuse(403, "GatedRepo")
        elif fault and isinstance(fault.value, int):
            self._refuse(fault.value, "")
        elif (revision or "main") not in ("main", repository.commit):
            self._refuse(404, "RevisionNotFound")
        elif fault is Fault.ENDLESS:
            self.send_response(200)
            self._send_endlessly()
        elif kind == "tree":
            self._send_json([listed(file, data) for file, data in repository.files.items()])
        else:
            commit = "f" * 40 if fault is Fault.WRONG_COMMIT else repository.commit
            facts = {"id": repository.name, "sha": commit, "tags": tags_of(repository)}
            card = {"license_name": repository.license_name or None}
            self._send_json({**facts, "cardData": card, "siblings": []})

    def _send_json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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
        whole = len(data)
        start, end = _range(self.headers["Range"])
        is_part = bool(start) or end is not None
        data = data if end is None else data[: end + 1]
        is_elsewhere = self.connection.getsockname()[1] != self.served.port
        is_sent_away = fault is Fault.REDIRECT and not is_elsewhere
        self.send_response(302 if is_sent_away else 206 if is_part else 200)
        for header, value in self._announcement(repository, file, fault).items():
            self.send_header(header, value)
        if fault is Fault.ENDLESS:
            self._send_endlessly()
            return
        if is_sent_away:
            self.send_header("Location", f"{self.served.elsewhere}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{whole}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in (Fault.RESET, Fault.SHORT, Fault.STALL):
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            self.wfile.flush()
            if fault is Fault.STALL:
                self.served.is_closing.wait()
            self._hang_up(is_reset=fault is Fault.RESET)
        else:
            with contextlib.suppress(OSError):  # the client needed the beginning alone
                self.wfile.write(data[start:])

    def _send_endlessly(self) -> None:
        if self.command == "HEAD":
            self.end_headers()
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):  # the client closed the connection
            for _ in range(_END_OF_ENDLESS):
                self.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                self.served.sent_endlessly += 0x10000
            self.wfile.write(b"0\r\n\r\n")

    def _announcement(
        self, repository: Repository, file: str, fault: Fault | None
    ) -> dict[str, str]:
        commit = "f" * 40 if fault is Fault.WRONG_COMMIT else repository.commit
        etag = "f" * 64 if fault is Fault.WRONG_HASH else etag_of(file, repository.files[file])
        announced = {
            "X-Repo-Commit": commit if fault is not Fault.NO_COMMIT else "",
            "ETag": f'"{etag}"' if fault is not Fault.NO_HASH else "",
            "X-Linked-Size": str(len(repository.files[file])) if fault is not Fault.ENDLESS else "",
        }
        return {header: value for header, value in announced.items() if value}

    def _hang_up(self, *, is_reset: bool) -> None:
        if is_reset:  # lingering for zero seconds makes close() send RST instead of FIN
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()


def _range(header: str | None) -> tuple[int, int | None]:
    """Parses `bytes=first-last`; the last is optional."""
    first, _, last = (header or "bytes=0-").removeprefix("bytes=").partition("-")
    return int(first), int(last) if last else None
