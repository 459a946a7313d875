"""Finds out how a llama.cpp server divides images, by asking it what images of known sizes cost; the model reads none of them."""

import asyncio
import base64
import io
from typing import Any

from PIL import Image

from magistral_ui.engines.remote.dialects import Dialect
from magistral_ui.engines.remote.http_client import ServerClient
from magistral_ui.models.cards import ModelCard
from magistral_ui.models.image_grid import PIXTRAL, ImageGrid, Size

SMALLEST: Size = (56, 56)
ORDINARY: Size = (448, 280)
"""An image that no server scales: it shows whether the model divides images as Mistral's models do."""
LARGEST: Size = (1_540, 1_540)
DEFAULT = ImageGrid(fewest=9, most=1_024)
"""What a server takes that was started without other bounds; the real least is 8, but 3 × 3 is the least square above that."""


async def image_grid(
    server: ServerClient, dialect: Dialect, card: ModelCard, model: str, *, loaded: bool
) -> tuple[ImageGrid | None, bool]:
    """The grid to which images are scaled before they are sent, and whether the server confirmed it.

    None if the model divides images otherwise, or the server is of another kind.
    """
    if dialect.key != "llama.cpp" or not card.vision:
        return None, False
    found = await _costs(server, model) if loaded else None
    if found is None:  # an older server, or the model is yet to be loaded
        return (DEFAULT if card.key != "remote" else None), False
    small, ordinary, large = found
    fewest, most = _square(small), _square(large)
    if ordinary != PIXTRAL.tokens(*ORDINARY) or fewest is None or most is None:
        return None, False
    return ImageGrid(fewest=fewest if small > PIXTRAL.tokens(*SMALLEST) else 1, most=most), True


async def _costs(server: ServerClient, model: str) -> list[int] | None:
    """What images of the three sizes cost; None if the server cannot say."""
    counts = await asyncio.gather(*(_count(server, model, size) for size in (None, SMALLEST, ORDINARY, LARGEST)))
    known = [count for count in counts if count is not None]
    return [count - known[0] for count in known[1:]] if len(known) == len(counts) else None


async def _count(server: ServerClient, model: str, size: Size | None) -> int | None:
    content: list[dict[str, Any]] = [{"type": "text", "text": "."}]
    if size is not None:
        data = io.BytesIO()
        Image.new("L", size).save(data, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
        content.append({"type": "image_url", "image_url": {"url": url}})
    body = {"model": model, "messages": [{"role": "user", "content": content}]}
    tokens = (await server.try_ask("chat/completions/input_tokens", body)).fields.get("input_tokens")
    return tokens if isinstance(tokens, int) else None


def _square(tokens: int) -> int | None:
    """The tokens of a square image without those that end its rows, if a square can have this many with them."""
    return next((side * side for side in range(1, 56) if side * (side + 1) == tokens), None)
