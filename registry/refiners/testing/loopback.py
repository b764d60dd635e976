"""Runs the loopback Hub: publishes repositories, plans faults, configures the client."""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Self
from unittest.mock import patch

from refiners.testing.answer import Answer, Fault, Request
from refiners.testing.repository import Repository


@dataclass
class _Planned:
    fault: Fault
    method: str
    left: int


@dataclass
class LoopbackHub:
    """A Hub on 127.0.0.1 that runs during a `with` block.

    Attributes:
        repositories: The published repositories by name.
        history: The repositories as they were before an upload, by name and commit; their commits
            stay valid.
        requests: The received requests, in order.
        documents: The JSON that is served at other paths, such as the provenance of a wheel at
            `integrity/distribution/1.0/FILE.whl/provenance`.
        is_closing: Set when the Hub stops; stalled answers wait for it.
        sent_endlessly: The bytes that endless answers have sent.
    """

    repositories: dict[str, Repository] = field(default_factory=dict[str, Repository])
    history: dict[tuple[str, str], Repository] = field(
        default_factory=dict[tuple[str, str], Repository]
    )
    requests: list[Request] = field(default_factory=list[Request])
    documents: dict[str, object] = field(default_factory=dict[str, object])
    _planned: dict[str, list[_Planned]] = field(default_factory=dict[str, list[_Planned]])
    _lock: threading.Lock = field(default_factory=threading.Lock)
    is_closing: threading.Event = field(default_factory=threading.Event)
    sent_endlessly: int = 0

    def __enter__(self) -> Self:
        hub = self

        class Handler(Answer):
            served = hub

        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def port(self) -> int:
        """The port of the Hub."""
        return self._servers[0].server_port

    @property
    def url(self) -> str:
        """The address of the Hub."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def elsewhere(self) -> str:
        """The address of a second server of the same files, as of a content network."""
        return f"http://127.0.0.1:{self._servers[1].server_port}"

    def publish(
        self,
        name: str,
        files: Mapping[str, bytes],
        license: str = "",
        tags: Sequence[str] = (),
        license_name: str = "",
    ) -> Repository:
        """Serves files as `organisation/name`; other files make another commit.

        Args:
            name: The name of the repository.
            files: The contents by path.
            license: The licence in the card.
            tags: More tags, such as `base_model:adapter:organisation/name`.
            license_name: The name in the card of a licence that is `other`.
        """
        parts = [name, *(f"{k}{hashlib.sha256(v).hexdigest()}" for k, v in sorted(files.items()))]
        commit = hashlib.sha1("\n".join(parts).encode(), usedforsecurity=False).hexdigest()
        self.repositories[name] = Repository(
            name, commit, dict(files), license, tuple(tags), license_name
        )
        return self.repositories[name]

    def fail(self, file: str, fault: Fault, *, method: str = "", times: int = 1_000_000) -> None:
        """Plans a fault for the next requests for a file.

        Args:
            file: The path in the repository; `info`, `revision` or `tree` for requests about the
                repository, `upload` for uploads.
            fault: The fault.
            method: `HEAD` or `GET`; both by default.
            times: The number of requests with the fault.
        """
        self._planned.setdefault(file, []).append(_Planned(fault, method, times))

    def heal(self) -> None:
        """Removes the planned faults."""
        self._planned.clear()

    def environment(self, folder: Path) -> dict[str, str]:
        """Returns the variables that make another process use this Hub and its own cache."""
        home = {"HF_HOME": str(folder), "HF_TOKEN_PATH": str(folder / "token")}
        return home | {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_TELEMETRY": "1"}

    @contextmanager
    def in_use(self, folder: Path) -> Generator[Self]:
        """Makes the client of this process use this Hub and a separate cache, without pauses."""
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
        """Returns the fault for a request, and counts it."""
        with self._lock:
            for planned in self._planned.get(file, ()):
                if planned.left and planned.method in ("", method):
                    planned.left -= 1
                    return planned.fault
        return None


@contextmanager
def no_pauses() -> Generator[None]:
    """Makes the client and the registry retry without a pause."""
    with patch("time.sleep"):
        yield


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
