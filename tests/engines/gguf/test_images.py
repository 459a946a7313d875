"""Prompts with images for a real llama.cpp: how many tokens it makes of them, which ones, and what it answers."""

from dataclasses import replace
from pathlib import Path

import pytest
from mistral_common.protocol.instruct.chunk import ImageChunk
from PIL import Image

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.prompt import AssistantTurn, PromptChoices, Resume, SystemPart, compose
from magistral_ui.chat.reply import Reply
from magistral_ui.engines.gguf.images import (
    BREAK,
    PromptWriter,
    ServerPrompt,
)
from magistral_ui.engines.local.tokenizer import Tokenizer
from tests.engines.gguf.prompted import CARD, Model, Server, drawn

SIZES = [(1, 1), (20, 20), (28, 28), (56, 56), (60, 100), (100, 60), (224, 224), (300, 200), (640, 480), (800, 600)]
LARGE = [(1024, 768), (1540, 1540), (1920, 1080), (3000, 1000), (4000, 3000), (1540, 28), (30, 1540), (1, 9000)]
EXACT = {
    "English": "I don't think that'll work; it's O'Reilly's.\n\n  1,234.5 reasons (or more)?",
    "German": "Warum geht die Sonne im Osten auf? Grüße!",
    "Russian": "Почему солнце встаёт на востоке?",
    "Hebrew": "ספר לי למה השמש זורחת במזרח",
    "Arabic": "أخبرني لماذا تشرق الشمس من الشرق وتغرب في الغرب",
    "Vietnamese": "Hãy cho tôi biết tại sao mặt trời mọc ở phía đông",
    "Japanese": "なぜ太陽は東から昇るのですか。",
    "Korean": "해는 왜 동쪽에서 뜨나요?",
    "code": "def f(x):\n    return {'a': [x**2 for _ in range(10)]}\n",
    "LaTeX": r"\begin{align} \frac{\partial f}{\partial x} &= \sum_{i=1}^{n} x_i^2 \\ \end{align}",
    "emoji": "👩‍👩‍👧‍👦 🇩🇪🇫🇷 👍🏽",
    "NUL": "a\0b",
}
CUT_OTHERWISE = {
    "Hindi": "मुझे बताइए कि सूर्य पूर्व में क्यों उगता है और पश्चिम में क्यों डूबता है।",
    "Bengali": "আমাকে বলুন কেন সূর্য পূর্ব দিকে ওঠে এবং পশ্চিমে অস্ত যায়।",
    "Tamil": "சூரியன் ஏன் கிழக்கில் உதித்து மேற்கில் மறைகிறது என்று சொல்லுங்கள்.",
    "Thai": "บอกฉันว่าทำไมดวงอาทิตย์จึงขึ้นทางทิศตะวันออก",
    "Arabic with vowels": "أَخْبِرْنِي لِمَاذَا تُشْرِقُ الشَّمْسُ مِنَ الشَّرْقِ",
}
MARKS = (
    "[/INST]",
    "[THINK]",
    "[/THINK]x</s>",
    "<s>",
    "[IMG]",
    "[IMG_END]",
    "[[INST]]",
    "<SPECIAL_38>",
    "[SYSTEM_PROMPT]",
)


def control_tokens(model: Model, ids: list[int]) -> list[int]:
    return [token for token in ids if token < len(model.tokenizer.control_texts)]


@pytest.mark.parametrize("size", SIZES + LARGE, ids=str)
def test_an_image_has_as_many_tokens_as_mistral_common_says(full: Model, size: tuple[int, int]) -> None:
    prompt = full.prompt_of("What is this?", drawn(size))
    assert prompt.exact
    assert full.server.reads(prompt) == prompt.tokens
    images = full.tokenizer.tokenizer.instruct_tokenizer.image_encoder
    enlarged = full.tokenizer.image_grid.enlarged(*size)
    said = len(images(ImageChunk(image=Image.new("RGB", enlarged))).tokens)
    assert prompt.tokens == full.prompt_of("What is this?").tokens + said


@pytest.mark.parametrize("side", [56, 300, 1024])
def test_images_are_scaled_down_to_the_longest_side_that_was_chosen(full: Model, side: int) -> None:
    tekken = Path(str(full.tokenizer.tokenizer.instruct_tokenizer.tokenizer.file_path))
    smaller = Model(full.server, tekken)
    smaller.tokenizer = Tokenizer(tekken, CARD, (), side, pixels=False)
    smaller.writer = PromptWriter(smaller.tokenizer, full.server)
    for size in ((4000, 3000), (90, 2000), (28, 28)):
        prompt = smaller.prompt_of("What is this?", drawn(size))
        assert full.server.reads(prompt) == prompt.tokens


@pytest.mark.parametrize("language", EXACT)
def test_most_texts_beside_an_image_have_our_own_tokens(full: Model, language: str) -> None:
    prompt = full.prompt_of(EXACT[language], drawn((60, 60)))
    assert prompt.exact
    assert full.server.reads(prompt) == prompt.tokens


@pytest.mark.parametrize("language", CUT_OTHERWISE)
def test_texts_with_combining_marks_beside_an_image_are_counted_as_they_are_read(full: Model, language: str) -> None:
    said = Conversation().say(CUT_OTHERWISE[language], [drawn((60, 60))])
    sequence = full.sequence(said)
    prompt = full.writer.prompt_of(sequence)
    assert not prompt.exact
    assert prompt.tokens > len(sequence.tokens)
    assert full.server.reads(prompt) == prompt.tokens
    assert full.writer.prepare(sequence.prompt, "ann") == prompt.tokens - len(sequence.tokens)
    measured, encoded = full.tokenizer.measure(compose(said, (), PromptChoices()), "ann")
    corrected = full.writer.measure(measured, encoded, "ann")
    assert (corrected.total, corrected.estimated) == (prompt.tokens, False)
    assert corrected.system == measured.system
    assert corrected.per_message == {1: prompt.tokens - measured.system}
    assert full.prompt_of(CUT_OTHERWISE[language]).exact  # without an image, it is ids


def test_each_message_beside_an_image_is_counted_as_it_is_read(full: Model) -> None:
    hindi, tamil = CUT_OTHERWISE["Hindi"], CUT_OTHERWISE["Tamil"]
    said = Conversation().say(hindi, [drawn((60, 60))]).with_reply(Reply(tamil, hindi, finish_reason="stop"))
    prompt = compose(said.say("And [/INST] now?"), (SystemPart(tamil),), PromptChoices(keep_reasoning=True))
    measured, encoded = full.tokenizer.measure(prompt, "ann")
    corrected = full.writer.measure(measured, encoded, "ann")
    assert corrected.total == corrected.system + sum(corrected.per_message.values())
    (reply,) = measured.reasoning
    (turn,) = (each for each in prompt.turns if isinstance(each, AssistantTurn))
    assert turn.reasoning == tamil
    again = full.writer.measure(measured, encoded, "ann", {reply: tamil})
    assert again.reasoning == {reply: len(full.server.cut(tamil)) + 2}
    assert again.reasoning[reply] > measured.reasoning[reply]
    assert corrected.total == measured.total + full.writer.prepare(encoded, "ann")
    grown = [corrected.per_message[message] - tokens for message, tokens in measured.per_message.items()]
    assert corrected.system > measured.system
    held = replace(measured, reused=measured.system)
    assert full.writer.measure(held, encoded, "ann").reused == corrected.system
    assert len(grown) == 3
    assert min(grown) > 0


@pytest.mark.parametrize("mark", MARKS)
def test_a_typed_mark_beside_an_image_is_text(full: Model, mark: str) -> None:
    sequence = full.sequence(Conversation().say(f"What does {mark}mean?{mark}", [drawn((60, 60))]))
    prompt = full.writer.prompt_of(sequence)
    assert full.server.reads(prompt) == prompt.tokens
    assert isinstance(prompt.value, dict)
    text = prompt.value["prompt_string"].replace(full.server.props["media_marker"], "")
    ours = [token for token in sequence.tokens if token not in sequence.prompt.image_spans[0].input.tokens]
    assert control_tokens(full, full.server.cut(text)) == control_tokens(full, ours)[1:]  # llama.cpp adds the first
    assert mark in text.replace(BREAK, "")


def test_the_marker_of_images_in_a_text_stands_for_none(full: Model) -> None:
    marker = full.server.props["media_marker"]
    typed = f"{marker} <__media__> <__media_{'x' * 32}__> <__image__> [IMG]{marker}"
    prompt = full.prompt_of(typed, drawn((60, 60)))
    assert full.server.reads(prompt) == prompt.tokens
    assert isinstance(prompt.value, dict)
    assert prompt.value["prompt_string"].count(marker) == 1
    assert prompt.value["prompt_string"].replace(BREAK, "").count(marker) == 3


@pytest.mark.parametrize("count", [2, 10])
def test_several_images(full: Model, count: int) -> None:
    said = Conversation()
    images = [drawn((40 + 30 * n, 60), ("red", "blue", "green")[n % 3]) for n in range(count)]
    half = count // 2
    said = said.say("These?", images[:half]).say("And these?", images[half:])
    prompt = full.writer.prompt_of(full.sequence(said))
    assert prompt.exact
    assert full.server.reads(prompt) == prompt.tokens


def test_an_image_is_reused_from_the_slot_and_scaled_once(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    image = drawn((333, 222))
    sequence = demo.sequence(Conversation().say("What colour is this?", [image]))
    demo.writer.prepare(sequence.prompt, "ann")
    monkeypatch.setattr(ImageFile, "fitted", None)
    first = demo.server.complete(demo.writer.prompt_of(sequence), 5, id_slot=0, cache_prompt=True)
    for token in first["tokens"]:
        assert sequence.write(token)
    prompt = demo.writer.prompt_of(sequence)
    assert prompt.exact
    again = demo.server.complete(prompt, id_slot=0, cache_prompt=True)
    assert again["tokens_evaluated"] == prompt.tokens == len(sequence.tokens)
    assert again["timings"]["cache_n"] >= prompt.tokens - 2
    demo.writer.forget("ann")
    with pytest.raises(TypeError):
        demo.writer.prompt_of(sequence)


def test_a_reply_is_reopened_after_tokens_of_its_own(demo: Model) -> None:
    """Those that a tokenizer would not make, and those that leave a character incomplete, among them."""
    sequence = demo.sequence(Conversation().say("What colour is this?", [drawn((60, 60))]))
    begin, end = (demo.tokenizer.control_texts.index(mark) for mark in ("[THINK]", "[/THINK]"))
    single = {demo.tokenizer.token_bytes(n): n for n in range(64, 2112) if len(demo.tokenizer.token_bytes(n)) == 1}
    written = [begin, *(single[bytes([byte])] for byte in "the colour is नीला".encode()[:-1]), end]
    for token in written:
        sequence.write(token)
        prompt = demo.writer.prompt_of(sequence)
    assert not prompt.exact
    assert prompt.tokens < len(sequence.tokens)
    assert demo.server.reads(prompt) == prompt.tokens


def test_a_resumed_reply_beside_an_image(demo: Model) -> None:
    said = Conversation().say("What colour is this?", [drawn((60, 60))])
    for resume in (Resume("It is red", False), Resume("It is red", True, "The co"), Resume(None, True, "The co")):
        prompt = demo.writer.prompt_of(demo.sequence(said, resume))
        assert prompt.exact
        assert demo.server.reads(prompt) == prompt.tokens


def test_nothing_is_asked_for_a_prompt_without_images(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.writer, "_ask", None)
    sequence = demo.sequence(Conversation().say("Hello[/INST]नमस्ते"))
    assert demo.writer.prompt_of(sequence) == ServerPrompt(sequence.tokens, len(sequence.tokens), True)
    measured, encoded = demo.tokenizer.measure(compose(Conversation().say("Hi"), (), PromptChoices()))
    assert demo.writer.measure(measured, encoded, "ann") is measured


def test_a_server_that_is_gone_is_an_error_of_the_system(demo: Model) -> None:
    gone = PromptWriter(demo.tokenizer, Server("127.0.0.1", 9, "", demo.server.props))
    with pytest.raises(OSError, match="refused"):
        gone.prompt_of(demo.sequence(Conversation().say("What is this?", [drawn((60, 60))])))
