"""A reply whose server was killed in its middle: what was written is kept, and gone on with when the server is back."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from magistral_ui.chat.conversation import AssistantMessage
from magistral_ui.chat.events import Reasoning
from magistral_ui.chat.reply import Reply
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Ready
from magistral_ui.engines.remote.engine import RemoteEngine
from magistral_ui.sessions.session import Session
from tests.engines.following import follow
from tests.engines.remote.conftest import start_llama_cpp
from tests.servers.processes import ServerProcess

PARAMS = SamplingParams(temperature=0.0, seed=1, max_tokens=200)


def last(session: Session) -> tuple[int, Reply]:
    found = session.conversation.last()
    assert isinstance(found, AssistantMessage)
    return found.id, found.reply


def until_ready(engine: RemoteEngine) -> None:
    deadline = time.monotonic() + 30
    while not isinstance(engine.status(), Ready) and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_reply_continues_on_the_server_that_came_back(
    mortal: ServerProcess, gguf_folder: Path, connect: Callable[..., RemoteEngine], request: pytest.FixtureRequest
) -> None:
    engine = connect(mortal.base_url)
    session = Session(engine)
    whole = session.say("Count from 1 to 200.", (), PARAMS).generation
    assert whole.wait(60)
    expected = last(session)[1]
    server = mortal
    for _ in range(5):  # on a busy machine, the reply may be through before the server is dead
        running = session.regenerate(last(session)[0], PARAMS).generation
        for event in follow(running):
            if isinstance(event, Reasoning) and event.text:
                server.kill()
                break
        assert running.wait(60)
        message, cut = last(session)
        if cut.failure:
            break
        server = start_llama_cpp(gguf_folder, mortal.port)
        request.addfinalizer(server.close)
        until_ready(engine)
    assert cut.failure == "remote_cut"
    assert cut.reasoning
    assert len(cut.reasoning + cut.answer) < len(expected.reasoning + expected.answer)
    again = start_llama_cpp(gguf_folder, mortal.port)
    try:
        until_ready(engine)
        assert session.resume(message, PARAMS).generation.wait(60)
    finally:
        again.close()
    same, reply = last(session)
    assert (same, reply.failure) == (message, None)
    assert (reply.reasoning + reply.answer).startswith(expected.reasoning + expected.answer)
