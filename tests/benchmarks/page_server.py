"""The two pages that are measured, each in a process of its own: ours over a scripted engine, and a naive Gradio chat.

    python -m tests.benchmarks.page_server ours | naive

What is to be written, and how fast, is said in the message that is sent to the page, as JSON: see `Order`. On its standard
input the process takes commands, one a line, and answers each with a line of JSON:
`count` (updates sent and CPU seconds used so far), `prepare TURNS SAID REASONING ANSWER` (how many turns of how
many characters new visitors find there).
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.benchmarks.page_texts import text, tokens


@dataclass(frozen=True, slots=True)
class Order:
    """What to write: first `reasoning` and `answer` characters at once, then `count` pieces, one each `pace` seconds."""

    reasoning: int = 0
    answer: int = 0
    settle: float = 0.0
    """Seconds of silence between the two."""
    part: str = "reasoning"
    """Which of the two goes on growing."""
    count: int = 0
    pace: float = 0.01
    group: int = 1
    """Tokens in a piece."""
    then: int = 0
    """Tokens of answer that follow, at the same pace."""
    mark: bool = False
    """Whether the last words are "The very end." """

    def pieces(self) -> Iterator[tuple[str, str, float]]:
        """(part, piece, seconds to wait for it), to the clock of whoever asks."""
        if self.reasoning:
            yield "reasoning", text(self.reasoning), 0.0
        if self.answer:
            yield "answer", text(self.answer, seed=1), 0.0
        due = time.monotonic() + self.settle
        for part, count in ((self.part, self.count), ("answer", self.then)):
            source = tokens(text(int(count * self.group * 5), seed=2))
            for _ in range(count):
                piece = "".join(next(source) for _ in range(self.group))
                due += self.pace
                yield part, piece, max(0.0, due - time.monotonic())
        if self.mark:
            yield "answer", "\n\nThe very end.", 0.0

    @staticmethod
    def read(message: str) -> "Order":
        """The order in a message; a small one where there is none."""
        try:
            return Order(**json.loads(message))
        except (ValueError, TypeError):
            return Order(answer=20)


class Counter:
    """Updates that were sent to browsers."""

    def __init__(self) -> None:
        self.count = 0
        self.turns = (0, 0, 0, 0)

    def obey(self) -> None:
        """Answer commands until the other side hangs up."""
        for line in sys.stdin:
            name, *values = line.split()
            if name == "prepare":
                self.turns = tuple(map(int, values))
            print(json.dumps({"count": self.count, "cpu": time.process_time()}), flush=True)


def ours(counter: Counter) -> str:
    """Serve our page; its address."""
    from magistral_ui.chat.events import Answer, Reasoning
    from magistral_ui.chat.sampling import SamplingParams
    from magistral_ui.engines.base import Ready
    from magistral_ui.sessions.live_view import LiveView
    from magistral_ui.sessions.session import Session
    from magistral_ui.sessions.visitors import TabState, Visitors
    from magistral_ui.ui.launch import launch
    from magistral_ui.ui.page import build_page
    from tests.scripted_engine import INFO, Pause, ScriptedEngine

    prepared: list[Order] = []
    lock = threading.Lock()

    def script(request: Any) -> Iterator[Any]:
        order = prepared.pop() if prepared else Order.read(request.prompt.turns[-1].text)
        for part, piece, wait in order.pieces():
            if wait:
                yield Pause(wait)
            yield (Reasoning if part == "reasoning" else Answer)(piece, max(1, order.group))

    class Prepared(Visitors):
        """Visitors who have said something before they come."""

        def open(self, place: object = None) -> tuple[TabState, Session]:
            place, session = super().open(place)
            with lock:
                if not session.snapshot()[0].messages:
                    prepare(session)
            return place, session

    def prepare(session: Session) -> None:
        count, said, reasoning, answer = counter.turns
        for number in range(count):
            prepared.append(Order(reasoning, answer))
            session.say(text(said, seed=number), (), SamplingParams()).generation.wait()

    written = LiveView.value

    def value(view: LiveView) -> dict[str, Any]:
        counter.count += 1
        return written(view)

    LiveView.value = value  # type: ignore[method-assign]
    engine = ScriptedEngine(script, status=Ready(replace(INFO, context_length=1_000_000)))  # type: ignore[arg-type]
    visitors = Prepared(engine)
    return launch(build_page(engine, visitors), visitors)


def naive(counter: Counter) -> str:
    """Serve what most people write first: the whole chat, yielded again for every token."""
    import gradio as gr

    delimiters = [
        {"left": left, "right": right, "display": display}
        for left, right, display in (("$$", "$$", True), ("\\[", "\\]", True), ("\\(", "\\)", False), ("$", "$", False))
    ]

    def before() -> list[dict[str, Any]]:
        count, said, _, answer = counter.turns
        sizes = (("user", said), ("assistant", answer))
        return [{"role": role, "content": text(size, seed=n)} for n in range(count) for role, size in sizes]

    def reply(message: str, history: list[dict[str, Any]]) -> Iterator[Any]:
        history = [*history, {"role": "user", "content": message}]
        thought = {"role": "assistant", "content": "", "metadata": {"title": "Thinking", "status": "pending"}}
        answer = {"role": "assistant", "content": ""}
        for part, piece, wait in Order.read(message).pieces():
            time.sleep(wait)
            if part == "answer":
                thought["metadata"]["status"] = "done"
            chosen = thought if part == "reasoning" else answer
            chosen["content"] += piece
            shown = [each for each in (thought, answer) if each["content"]]
            counter.count += 1
            yield "", [*history, *shown]

    with gr.Blocks() as demo:
        chat = gr.Chatbot(latex_delimiters=delimiters, height=600)
        box = gr.Textbox(elem_id="box")
        demo.load(before, None, chat)
        box.submit(reply, [box, chat], [box, chat])
    _, url, _ = demo.queue().launch(prevent_thread_lock=True, quiet=True, server_port=None)
    return str(url)


def main() -> None:
    """Serve, print the address, and obey."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    counter = Counter()
    print({"ours": ours, "naive": naive}[sys.argv[1]](counter), flush=True)
    counter.obey()
    os._exit(0)


if __name__ == "__main__":
    main()
