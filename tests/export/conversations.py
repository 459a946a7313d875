"""Conversations for the tests of export and import: any that can be made, and one that shows all there is."""

import io
from dataclasses import replace
from datetime import datetime, timezone
from functools import cache
from typing import get_args

from hypothesis import strategies as st
from PIL import Image

from magistral_ui.chat.conversation import AssistantMessage, Conversation, UserMessage
from magistral_ui.chat.events import FinishReason, Usage
from magistral_ui.chat.images import ImageFile, read_image
from magistral_ui.chat.reply import Provenance, Reply
from magistral_ui.chat.sampling import MAX_SEED, SamplingParams
from magistral_ui.export.document import Document


@cache
def image(colour: str, format: str = "PNG", name: str = "", size: tuple[int, int] = (12, 8)) -> ImageFile:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, format)
    return read_image(out.getvalue(), name)


# Half a surrogate pair is no character, and the only thing that is not kept: hypothesis makes none.
TEXTS = st.text(max_size=30)
COUNTS = st.integers(0, 10**6)
SECONDS = st.floats(0, 1e6)
KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
IMAGES = st.builds(
    image,
    st.sampled_from(["red", "green", "blue"]),
    st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP"]),
    st.sampled_from(["", "a.png", "Ünïcode ✓.jpg"]),
)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, SECONDS, SECONDS, SECONDS)
PARAMS = st.builds(
    SamplingParams,
    temperature=st.floats(0, 2),
    top_p=st.floats(0.01, 1),
    top_k=st.integers(0, 1000),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.5, 2),
    max_tokens=st.integers(1, 131_072),
    reasoning_budget=st.none() | st.integers(0, 131_072),
    seed=st.none() | st.integers(0, MAX_SEED),
)
PLAIN = ("model", "source", "revision", "precision", "device", "engine", "instructions", "prompt")
PROVENANCES = st.builds(
    Provenance,
    **dict.fromkeys(PLAIN, TEXTS),
    system_prompt=st.none() | TEXTS,
    keep_reasoning=st.booleans(),
    begun_reasoning=COUNTS,
    begun_answer=COUNTS,
    begun_closed=st.booleans(),
    edited=st.booleans(),
)
VALUES = TEXTS | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
REPLIES = st.builds(
    Reply,
    reasoning=TEXTS,
    answer=TEXTS,
    reasoning_closed=st.booleans(),
    finish_reason=st.none() | st.sampled_from(get_args(FinishReason)),
    failure=st.none() | KEYS,
    failure_values=st.dictionaries(TEXTS, VALUES, max_size=3),
    notices=st.lists(KEYS, max_size=3).map(tuple),
    usage=USAGES,
    params=st.none() | PARAMS,
    model=TEXTS,
    provenance=st.none() | PROVENANCES,
)
CHANGES = st.sampled_from(["say", "say", "reply", "reply", "edit", "choose", "delete", "cut", "keep"])


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Any conversation that its own methods can make, deleted and cut branches among them."""
    conversation = Conversation()
    for _ in range(draw(st.integers(0, 12))):
        ids = list(conversation.messages)
        message = conversation.messages[draw(st.sampled_from(ids))] if ids else None
        match draw(CHANGES):
            case "say":
                conversation = conversation.say(draw(TEXTS), tuple(draw(st.lists(IMAGES, max_size=2))))
            case "reply" if conversation.last_user():
                conversation = conversation.with_reply(draw(REPLIES))
            case "edit" if isinstance(message, UserMessage):
                conversation = conversation.edit(message.id, draw(TEXTS))
            case "choose" if message:
                conversation = conversation.choose(message.id)
            case "delete" if message:
                conversation = conversation.without(message.id)
            case "cut" if message:
                conversation = conversation.at(message.id)
            case "keep" if isinstance(message, AssistantMessage):
                conversation = conversation.keep_reasoning(message.id, draw(st.none() | st.booleans()))
    return conversation


TIMES = st.none() | st.datetimes(timezones=st.just(timezone.utc))
DOCUMENTS = st.builds(Document, conversations(), TEXTS, TIMES, TIMES)


def sample() -> Document:
    """A conversation with a picture, reasoning, branches, a reply that was cut and one that failed."""
    params = SamplingParams(seed=7)
    good = Reply(
        reasoning="First, 487 + 265.\n\nCarry the one.",
        answer="It is **752**.",
        finish_reason="stop",
        usage=Usage(40, 0, 843, 60, 0.4, 12.3, 15.0),
        params=params,
        model="Magistral Small 1.2",
        provenance=Provenance("Magistral Small 1.2", "mistralai/Magistral-Small-2509", "abc123", "nf4", "cuda:0"),
    )
    cut = replace(good, answer="", reasoning_closed=False, finish_reason="length", notices=("budget_spent",))
    failed = Reply(failure="queue_full", failure_values={"limit": 3})
    conversation = Conversation().say("What is 487 + 265?", (image("red", "PNG", "sum.png", (64, 48)),))
    conversation = conversation.with_reply(good).say("and plus 10?").with_reply(cut)
    conversation = conversation.edit(3, "and plus 20?").with_reply(failed)
    when = datetime(2026, 11, 24, 15, 30, tzinfo=timezone.utc)
    return Document(conversation, "A sum", when, when)
