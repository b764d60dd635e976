"""Refuses connections to other machines, and records who asked for one."""

import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

_NEAR: Final = ("127.", "::1", "localhost", "0.0.0.0", "/", "\0")
"""The beginnings of addresses of this machine."""


def _is_near(host: Any) -> bool:
    text = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    return text.startswith(_NEAR)


@contextmanager
def no_network() -> Generator[list[str]]:
    """Refuses connections to other machines; yields the list of the hosts that were asked for."""
    hosts: list[str] = []
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def refuse(host: Any) -> None:
        if not _is_near(host):
            hosts.append(str(host))
            raise OSError(f"a check of the package refuses the connection to {host}")

    def connected(self: socket.socket, address: Any) -> Any:
        refuse(address[0] if isinstance(address, tuple) else address)
        return connect(self, address)

    def resolved(host: Any, *arguments: Any, **options: Any) -> Any:
        refuse(host)
        return resolve(host, *arguments, **options)

    with ExitStack() as stack:
        stack.enter_context(patch.object(socket.socket, "connect", connected))
        stack.enter_context(patch.object(socket.socket, "connect_ex", connected))
        stack.enter_context(patch.object(socket, "getaddrinfo", resolved))
        stack.enter_context(patch.object(socket, "gethostbyname", resolved))
        yield hosts
