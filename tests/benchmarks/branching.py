"""What a branch of a long chat copies until its first new token is read, in pages; bytes are counted, so they never vary."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import MistralConfig, MistralForCausalLM

from magistral_ui.engines.local.decoder import Decoder, DecoderInput
from magistral_ui.engines.local.prefix_cache import PrefixCache
from magistral_ui.models.memory import pages_of
from tests.benchmarks.table import Row, at_most

CHAT = 30_000
"""Tokens."""


class CopiedBytes(TorchDispatchMode):
    """Counts the bytes that operations put into new places: copies, and what is gathered or joined."""

    COPIES = ("copy_", "clone", "_to_copy", "index_select", "index", "cat", "gather")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in self.COPIES:
            self.count += result.nbytes
        return result


def rows() -> Iterator[Row]:
    """A chat is answered once more from its middle, while the first answer is kept."""
    config = MistralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, head_dim=8,
        num_key_value_heads=1, sliding_window=None, max_position_embeddings=CHAT,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Decoder(MistralForCausalLM(config).eval())
    cache = PrefixCache(model.open_pool(2 * pages_of(CHAT)))
    chat = [token % 60 for token in range(CHAT)]
    entry = cache.take("a visitor", chat)
    for first in range(0, CHAT, 2_048):
        model([DecoderInput(entry.cache, chat[first : first + 2_048])])
    entry.keys = list(chat)
    kept = CHAT - 100  # in the middle of a page
    with torch.inference_mode(), CopiedBytes() as copied:
        branch = cache.take("a visitor", [*chat[:kept], 63])
        branch.cache.reserve(1)
    assert branch.cache.length == kept
    note = f"{branch.cache.nbytes / model.pool.page_bytes:.0f} pages in all"
    yield at_most(
        "a branch of a chat of 30,000 tokens: bytes copied, in pages", 1, copied.count / model.pool.page_bytes, note
    )
