"""What it costs to tell, at every pause of a writer, what a long conversation and the message being written hold in tokens."""

import statistics
import time

from magistral_ui.chat.prompt import AssistantTurn, Prompt, Turn, UserTurn
from magistral_ui.engines.local.tokenizer import Tokenizer
from magistral_ui.models.cards import DEMO
from magistral_ui.models.folder import DEMO_FOLDER

TEXT = "The quick brown fox jumps over a lazy dog and rests under an old tree. "


def measuring(tokens: int = 100_000, times: int = 5) -> tuple[float, float]:
    """CPU seconds to measure a message behind so many `tokens` of conversation, and those ÷ what encoding it all anew costs."""
    turns: list[Turn] = []
    each = 3_600  # tokens of one turn below, with the demo model's small vocabulary
    for number in range(max(1, tokens // each)):
        turns += [
            UserTurn(f"{number} {TEXT * 5}", (), 2 * number + 1),
            AssistantTurn(TEXT * 20, f"{number} {TEXT * 100}", 2 * number + 2),
        ]
    encoder = Tokenizer(DEMO_FOLDER / "tekken.json", DEMO, DEMO.system())

    def seconds(word: int, visitor: str) -> float:
        prompt = Prompt(DEMO.system(), (*turns, UserTurn(f"Message {word}", (), 2 * len(turns))))
        start = time.process_time()
        encoder.measure(prompt, visitor)
        return time.process_time() - start

    anew = statistics.median(seconds(n, f"visitor {n}") for n in range(times))
    again = statistics.median(seconds(n, "visitor 0") for n in range(times, 2 * times))
    return again, again / anew
