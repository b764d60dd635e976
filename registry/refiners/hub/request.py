"""Sends requests to the Hub, with a limit on the size of the answers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from refiners.errors import RefinersError

_PIECE: Final = 1 << 16
"""The most bytes that are received before a limit is checked."""
_ERROR_BODY: Final = 1 << 16
"""The most bytes that are read of an error."""


class Answer:
    """The answer to a request, before its body is received.

    Args:
        response: The client's response.
    """

    def __init__(self, response: Any) -> None:
        self._response = response

    def header(self, *names: str) -> str:
        """Returns a header from the first answer along the redirects that has one; else "".

        The Hub answers first, and the content network that it redirects to answers last.

        Args:
            names: The names of the header, in order of preference.
        """
        answers = (*self._response.history, self._response)
        return next((a.headers[name] for a in answers for name in names if name in a.headers), "")

    @property
    def next_page(self) -> str:
        """The address of the next page of a list; empty on the last page."""
        return self._response.links.get("next", {}).get("url", "")

    @property
    def is_part(self) -> bool:
        """Whether the server sends the requested range rather than the whole file."""
        return self._response.status_code == 206

    def pieces(self) -> Iterator[bytes]:
        """Yields the body as it is received."""
        yield from self._response.iter_bytes(_PIECE)

    def read(self, most: int, error: RefinersError) -> bytes:
        """Returns the body.

        Args:
            most: The most bytes of the body.
            error: The error to raise for a longer body.
        """
        body = bytearray()
        for piece in self.pieces():
            body += piece
            if len(body) > most:
                raise error
        return bytes(body)


@contextmanager
def get(
    url: str, token: bool | None, headers: Mapping[str, str] | None = None
) -> Generator[Answer]:
    """Sends a GET request and yields its answer.

    Args:
        url: The address.
        token: Whether to send the user's token; None leaves it to the client.
        headers: More headers.

    Raises:
        Exception: The server refuses the request; the client's own error, whose body is limited.
    """
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    sent = build_hf_headers(token=token, library_name="refiners") | dict(headers or {})
    with get_session().stream("GET", url, headers=sent, follow_redirects=True) as response:
        if response.is_error:
            hf_raise_for_status(_shortened(response))
        yield Answer(response)


def _shortened(response: Any) -> Any:
    """Returns an error response with a limited body, because the client reads all of it."""
    import httpx2

    body = bytearray()
    for piece in response.iter_bytes(_PIECE):
        body += piece
        if len(body) >= _ERROR_BODY:
            break
    of_body = ("content-encoding", "content-length", "transfer-encoding")
    headers = [(k, v) for k, v in response.headers.multi_items() if k.lower() not in of_body]
    return httpx2.Response(
        response.status_code,
        headers=headers,
        content=bytes(body[:_ERROR_BODY]),
        request=response.request,
    )
