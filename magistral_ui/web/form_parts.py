"""Counts the parts of a form while it comes; it does not look into them."""

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope


class TooManyParts(Exception):
    """More parts than a form of the page has."""


def bounded_parts(scope: Scope, receive: Receive, most: int) -> Receive:
    """`receive` that raises TooManyParts in place of what brings more than `most` parts."""
    # The boundary as the parser behind this reads it, so that no odd header makes two of it.
    _, options = parse_options_header(Headers(scope=scope).get("content-type", ""))
    mark = b"--" + options.get(b"boundary", b"")
    seen, rest = 0, b""

    async def counted() -> Message:
        nonlocal seen, rest
        message = await receive()
        body = rest + message.get("body", b"")
        seen += body.count(mark)
        rest = body[max(0, len(body) - len(mark) + 1) :]
        seen -= rest.count(mark)
        if seen > most + 1:  # the last mark ends the form
            raise TooManyParts
        return message

    return counted
