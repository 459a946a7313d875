"""Joins the chunks of an HTTP response as they arrive (RFC 9112, section 7.1); it does not know what they say.

h11 does this too, and takes longer for it than everything else that a token costs.
"""

LINE_END = b"\r\n"


class ChunkedBody:
    """The part of a response after its head."""

    def __init__(self) -> None:
        self._unread = b""
        self.ended = False
        """Whether the last chunk, which is empty, has come. Fields after it are not read."""

    def feed(self, received: bytes) -> bytes:
        """What is in the chunks that are complete now; raises ValueError if there is no length where one must be."""
        self._unread += received
        parts: list[bytes] = []
        while not self.ended:
            head, found, rest = self._unread.partition(LINE_END)
            if not found:
                break
            length = int(head.partition(b";")[0], 16)
            if length < 0:
                raise ValueError("a negative length")
            self.ended = length == 0
            if len(rest) < length + len(LINE_END):
                break
            parts.append(rest[:length])
            self._unread = rest[length + len(LINE_END) :]
        return b"".join(parts)
