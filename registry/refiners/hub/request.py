"""Sends a request to the Hub and receives no more of the answer than it may have."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from refiners.errors import RefinersError

_PIECE: Final = 1 << 16
"""The most bytes that are received before a limit is checked."""
_ERROR_BODY: Final = 1 << 16
"""The most bytes that are read of the answer to a refused request."""


class Answer:
    """The answer to a request, whose body has not been received yet.

    Args:
        response: The client's response.
    """

    def __init__(self, response: Any) -> None:
        self._response = response

    def header(self, *names: str) -> str:
        """Returns the first of these headers in the answers along the redirects; else nothing.

        The Hub answers first; the content network to which it redirects answers last.
        """
        answers = (*self._response.history, self._response)
        return next((a.headers[name] for a in answers for name in names if name in a.headers), "")

    @property
    def next_page(self) -> str:
        """The address of the next page of a list; empty on the last page."""
        return self._response.links.get("next", {}).get("url", "")

    def pieces(self) -> Iterator[bytes]:
        """Yields the body as it is received."""
        yield from self._response.iter_bytes(_PIECE)

    def read(self, most: int, error: RefinersError) -> bytes:
        """Returns the body.

        Args:
            most: The most bytes that it may have.
            error: The error to raise when there are more.
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
        Exception: The client's own error for a refusal; at most 64 kB of the body are read for it.
    """
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    sent = build_hf_headers(token=token, library_name="refiners") | dict(headers or {})
    with get_session().stream("GET", url, headers=sent, follow_redirects=True) as response:
        if response.is_error:
            hf_raise_for_status(_shortened(response))
        yield Answer(response)


def _shortened(response: Any) -> Any:
    """Returns a response with the beginning of its body: the client reads all of an error's."""
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
