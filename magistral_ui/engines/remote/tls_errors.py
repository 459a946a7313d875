"""What may be wrong with a line to a server before a word is said: its certificate, or TLS where there is none."""

import asyncio
import contextlib
import ssl
from collections.abc import Iterator

from magistral_ui.engines.remote.server_address import ServerAddress
from magistral_ui.errors import Message

NOT_YET, EXPIRED, OTHER_NAME, OTHER_ADDRESS = 9, 10, 62, 64
"""OpenSSL's reasons to refuse a certificate (x509_vfy.h); all others mean that nobody who is trusted signed it."""
CERTIFICATE_ERROR_KEYS = {
    NOT_YET: "remote_certificate_expired",
    EXPIRED: "remote_certificate_expired",
    OTHER_NAME: "remote_certificate_name",
    OTHER_ADDRESS: "remote_certificate_name",
}
PLAIN_TEXT_REASONS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "UNKNOWN_PROTOCOL",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
)
"""What TLS makes of an answer in plain text."""
TLS_PROBE_TIMEOUT = 3.0
"""Seconds to find out whether a port speaks TLS."""


class InsecureConnection(ConnectionError):
    """There is no secure connection to the server; `message` says why, without the server's name."""

    def __init__(self, key: str) -> None:
        self.message = Message(key)
        super().__init__(key)


def not_secure(error: BaseException) -> InsecureConnection | None:
    """What `error`, or what it comes from, means where it is about TLS; None where it is not."""
    for each in _causes(error):
        # aiohttp's errors are of these kinds, too, but only what they come from tells why.
        code, reason = getattr(each, "verify_code", None), getattr(each, "reason", None)
        if isinstance(each, ssl.SSLCertVerificationError) and code is not None:
            return InsecureConnection(CERTIFICATE_ERROR_KEYS.get(code, "remote_certificate_untrusted"))
        if isinstance(each, ssl.SSLError) and reason in PLAIN_TEXT_REASONS:
            return InsecureConnection("remote_not_tls")
    return None


def was_hung_up(error: BaseException) -> bool:
    """Whether somebody was there and ended the line without an answer, as a TLS port does to plain text."""
    return not any(isinstance(each, ConnectionRefusedError | TimeoutError) for each in _causes(error))


async def speaks_tls(address: ServerAddress) -> bool:
    """Whether the port of a plain address is one of TLS; nothing is sent, so no certificate is looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        opening = asyncio.open_connection(address.name, address.port, ssl=context)
        _, line = await asyncio.wait_for(opening, TLS_PROBE_TIMEOUT)
    except (OSError, asyncio.TimeoutError):
        return False
    line.close()
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        await asyncio.wait_for(line.wait_closed(), TLS_PROBE_TIMEOUT)
    return True


def _causes(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__
