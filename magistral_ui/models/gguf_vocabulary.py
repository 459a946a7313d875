"""How a GGUF file spells a tekken vocabulary: its marks first, then the 256 bytes, then longer tokens, all as visible text."""

from collections.abc import Sequence


def _visible_bytes() -> tuple[str, ...]:
    """The character for each byte, as GPT-2's vocabulary files have them."""
    shown = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return tuple(chr(byte if byte in shown else next(others)) for byte in range(256))


BYTES = _visible_bytes()
_BYTE_OF = {ord(character): byte for byte, character in enumerate(BYTES)}


def spelled(token: bytes) -> str:
    """A token as a GGUF file has it."""
    return "".join(BYTES[byte] for byte in token)


def token_bytes(spelled: str) -> bytes:
    """The bytes of a token as a GGUF file has it. Raises ValueError if it is spelled otherwise."""
    try:
        return bytes(map(_BYTE_OF.__getitem__, map(ord, spelled)))
    except KeyError as error:
        raise ValueError(f"not a spelled token: {spelled!r:.80}") from error


def split_vocabulary(tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """The marks, and the tokens of text. Raises ValueError unless the text begins with the 256 single bytes in their order.

    The types that the file gives are not asked: converters disagree on whether [THINK] is a control token.
    """
    first = tokens.index(BYTES[0])
    if tuple(tokens[first : first + len(BYTES)]) != BYTES:
        raise ValueError("the single bytes are not in their order")
    return list(tokens[:first]), list(tokens[first:])


def merges_of(tokens: Sequence[bytes]) -> list[str]:
    """All pairs of tokens that make another one, the earliest token first."""
    rank = {token: n for n, token in enumerate(tokens)}
    merges: list[str] = []
    for token in tokens:
        cuts = [(token[:n], token[n:]) for n in range(1, len(token))]
        pairs = sorted((rank[a], rank[b]) for a, b in cuts if a in rank and b in rank)
        merges += [f"{spelled(tokens[a])} {spelled(tokens[b])}" for a, b in pairs]
    return merges
