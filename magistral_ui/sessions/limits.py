"""How much one visitor may send and hold; it does not know what is sent."""

from dataclasses import dataclass

from magistral_ui.chat.pictures import MAX_BYTES, MAX_PIXELS


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep one visitor from taking the whole machine; `app.py` may tighten them for a shared link."""

    pictures: int = 10
    """Pictures in one message."""
    picture_bytes: int = MAX_BYTES
    picture_pixels: int = MAX_PIXELS
    text_length: int = 500_000
    """Characters in one message: about what fits into the longest context."""
    visitors: int = 500
    """Sessions that are kept in memory; the least recently used idle one is forgotten first."""
