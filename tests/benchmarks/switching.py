"""Switches between the demo model and a full-size model of the family, and tells what each state holds and each switch takes.

    python -m tests.benchmarks.switching [KEY] [--precision NAME] [--folder FOLDER] [--rounds N] [--tokens N]

The weights are random. The 3B needs 7.7 GB of disk and 2.3 GB for the copy in nf4; in bfloat16, 12 GB of memory. A folder that is
named is kept, and read again the next time.
"""

import gc
import time
from collections.abc import Callable
from pathlib import Path

from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest, Loading, ModelRequest, Ready, Unloaded
from magistral_ui.engines.switching.switchable import SwitchableEngine
from magistral_ui.models.cards import ModelCard
from magistral_ui.models.memory import GIB
from tests.benchmarks.full_size import full_size_model, options_of, own_bytes

COLUMNS = ("state", "seconds", "planned, GiB", "held, GiB", "above the demo, GiB")


class States:
    """One engine, and what is told of each state that it reaches."""

    def __init__(self, engine: SwitchableEngine) -> None:
        self.engine = engine
        self._first: int | None = None

    def reach(self, name: str, act: Callable[[], object], tokens: int = 0) -> None:
        """Do `act`, wait for what it leads to, let the model write so many `tokens`, and note what is held then."""
        start = time.monotonic()
        act()
        while isinstance(status := self.engine.status(), Loading):
            time.sleep(0.05)
        seconds = time.monotonic() - start
        if not isinstance(status, Ready | Unloaded) or self.engine.last_failure is not None:
            raise RuntimeError(f"{name}: {status}, {self.engine.last_failure}")
        if tokens:
            self.ask(tokens)
        gc.collect()
        held, planned = own_bytes(), self.engine.held_bytes()
        self._first = held if self._first is None else self._first
        sizes = (planned / GIB, held / GIB, (held - self._first) / GIB)
        print(" | ".join((name, f"{seconds:.1f}", *(f"{size:.3f}" for size in sizes))), flush=True)

    def ask(self, tokens: int) -> None:
        """Also where the model is unloaded: the reply waits for it."""
        params = SamplingParams(temperature=0.7, max_tokens=tokens, seed=1)
        generation = self.engine.submit(GenerationRequest(Prompt((), (UserTurn("What is 12 + 30?"),)), params))
        while not generation.wait(0.1):
            pass


def run(card: ModelCard, folder: Path, copy: Path, precision: str, rounds: int, tokens: int) -> None:
    demo = ModelRequest("demo", device="cpu", save_quantized="no")
    large = ModelRequest(
        str(folder),
        device="cpu",
        precision=precision,
        save_quantized=str(copy) if precision in ("nf4", "int8") else "no",
    )
    states = States(SwitchableEngine(demo))
    engine = states.engine
    try:
        states.reach("demo", engine.start, tokens)
        for number in range(1, rounds + 1):
            states.reach(f"{card.name} in {precision}, {number}", lambda: engine.switch(large), tokens)
            states.reach(f"demo, {number}", lambda: engine.switch(demo), tokens)
        states.reach(f"{card.name} in {precision}", lambda: engine.switch(large), tokens)
        states.reach("unloaded", engine.unload)
        states.reach("loaded again by a message", lambda: states.ask(tokens))
        states.reach("unloaded again", engine.unload)
    finally:
        engine.close()


def main() -> None:
    parser = options_of(__doc__, "nf4", 8)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with full_size_model(options.key, options.folder) as (card, folder, scratch):
        print(" | ".join(COLUMNS))
        run(card, folder, scratch / "copy", options.precision, options.rounds, options.tokens)


if __name__ == "__main__":
    main()
