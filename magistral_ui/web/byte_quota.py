"""Counts the bytes of an address by the hour, as they come, whatever a request announces; it does not know what they mean."""

from starlette.types import ASGIApp, Message, Receive

from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.token_buckets import TokenBuckets
from magistral_ui.web.error_responses import error_response


class QuotaExceeded(Exception):
    """The hour's bytes of this address are used up; `seconds` until there are some again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    @property
    def refusal(self) -> ASGIApp:
        """The answer to the request, with the time to wait."""
        return error_response(429, "too_many_uploads", wait=int(self.seconds) + 1, minutes=int(self.seconds // 60) + 1)


class ByteQuota:
    """What an address may still send. All bodies count: files, imports, events and what programs send."""

    def __init__(self, limits: Limits) -> None:
        hourly = limits.upload_mb_per_hour_per_address * 10**6
        self._rate = TokenBuckets(hourly / 60, burst=hourly)

    def check(self, address: str, count: int) -> None:
        """Raises Spent where so many more bytes are too many; nothing is taken."""
        if wait := self._rate.wait(address, max(1, count)):
            raise QuotaExceeded(wait)

    def take(self, address: str, count: int) -> None:
        """Count so many bytes; raises Spent where they are too many."""
        if count and (wait := self._rate.take(address, count)):
            raise QuotaExceeded(wait)

    def owe(self, address: str, count: int) -> None:
        """Count what has happened already, even where it is too much."""
        self._rate.owe(address, count)

    def counted(self, receive: Receive, address: str) -> Receive:
        """`receive` that counts each piece of a body, and raises Spent in place of one that is too much."""

        async def count() -> Message:
            message = await receive()
            self.take(address, len(message.get("body", b"")))
            return message

        return count
