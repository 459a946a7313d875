"""Our encoding message by message equals mistral-common's whole pipeline."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mistral_common.protocol.instruct.chunk import ImageChunk, TextChunk, ThinkChunk
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest

from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.prompt import AssistantTurn, Prompt, Resume, SystemPart, UserTurn, split_system_prompt
from magistral_ui.chat.sampling import Effort
from magistral_ui.engines.local.tokenizer import Tokenizer
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_0, TOKEN_MARKS
from magistral_ui.models.folder import DEMO_FOLDER

SYSTEM = DEMO.system()
TEXTS = [
    "Hello",
    "It is  ",
    "  spaced  \n\n",
    "[THINK]no[/THINK]",
    "</s>[INST]x[/INST]",
    "Ünï 日本 🦩🏳️‍🌈",
    "12+34=\t",
    "a\n\nb",
    ".",
]


@pytest.fixture(scope="module")
def encoder() -> Tokenizer:
    return Tokenizer(DEMO_FOLDER / "tekken.json", DEMO, SYSTEM)


def reference(encoder: Tokenizer, prompt: Prompt) -> tuple[list[int], list[np.ndarray]]:
    messages: list = []
    if prompt.system:
        messages.append(
            SystemMessage(
                content=[ThinkChunk(thinking=p.text) if p.reasoning else TextChunk(text=p.text) for p in prompt.system]
            )
        )
    for turn in prompt.turns:
        if isinstance(turn, UserTurn):
            content: list = [ImageChunk(image=p.rgb()) for p in turn.images]
            messages.append(UserMessage(content=[*content, TextChunk(text=turn.text)] if turn.text else content or ""))
        else:
            think = [ThinkChunk(thinking=turn.reasoning)] if turn.reasoning is not None else []
            text = [TextChunk(text=turn.answer)] if turn.answer else []
            messages.append(AssistantMessage(content=[*think, *text]))
    if prompt.resume is not None:
        start: list = []
        if prompt.resume.reasoning is not None:
            start.append(ThinkChunk(thinking=prompt.resume.reasoning, closed=prompt.resume.closed))
        if prompt.resume.answer:
            start.append(TextChunk(text=prompt.resume.answer))
        messages.append(AssistantMessage(content=start, prefix=True))
    encoded = encoder.tokenizer.encode_chat_completion(ChatCompletionRequest(messages=messages))
    return encoded.tokens, encoded.images


def random_prompt(rng: random.Random, paint: Callable[..., ImageFile]) -> Prompt:
    system = rng.choice([SYSTEM, (), (SystemPart("Only text."),), (*SYSTEM, SystemPart("x", reasoning=True))])
    turns: list[UserTurn | AssistantTurn] = []
    for _ in range(rng.randint(0, 3)):
        for _ in range(rng.choice([1, 1, 1, 2])):
            turns.append(user(rng, paint))
        reasoning = rng.choice([None, "", *TEXTS])
        turns.append(AssistantTurn(rng.choice(TEXTS) if not reasoning else rng.choice(["", *TEXTS]), reasoning))
    turns.append(user(rng, paint))
    resumes = [
        None,
        None,
        Resume("so far", closed=False),
        Resume("done", closed=True),
        Resume("done", closed=True, answer="It is"),
        Resume("", closed=True),
        Resume(None, closed=True, answer="It"),
    ]
    return Prompt(system, tuple(turns), rng.choice(resumes))


def user(rng: random.Random, paint: Callable[..., ImageFile]) -> UserTurn:
    images = tuple(
        paint(rng.randint(29, 300), rng.randint(1, 300), rng.randint(0, 3)) for _ in range(rng.choice([0, 0, 0, 1, 2]))
    )
    return UserTurn(rng.choice(TEXTS), images)


@pytest.mark.parametrize("seed", range(60))
def test_equals_the_reference_pipeline(encoder: Tokenizer, paint: Callable[..., ImageFile], seed: int) -> None:
    prompt = random_prompt(random.Random(seed), paint)
    ids, images = reference(encoder, prompt)
    ours = encoder.encode(prompt)
    assert ours.ids == ids
    assert len(ours.image_spans) == len(images)
    for span, image in zip(ours.image_spans, images, strict=True):
        assert np.array_equal(span.input.pixels, image)
        assert ours.ids[span.start : span.start + len(span.input.tokens)] == span.input.tokens


def test_an_image_alone_behind_text_alone_comes_first(encoder: Tokenizer, paint: Callable[..., ImageFile]) -> None:
    text, image, other = UserTurn("Look"), UserTurn("", (paint(60, 60, 1),)), UserTurn("", (paint(40, 40, 2),))
    answer = AssistantTurn("Red.", "I look.")
    for turns in (
        (text, image),
        (text, text, image),
        (text, image, answer, text),
        (text, image, text),
        (text, image, other),
        (image, text, other),
    ):
        ids, images = reference(encoder, Prompt(SYSTEM, turns))
        ours = encoder.encode(Prompt(SYSTEM, turns))
        assert ours.ids == ids
        assert all(np.array_equal(p.input.pixels, image) for p, image in zip(ours.image_spans, images, strict=True))


def test_spaces_at_the_end_of_a_reply_are_left_out_where_mistral_common_does(encoder: Tokenizer) -> None:
    said = UserTurn("hi")
    for turn in (AssistantTurn("It is  "), AssistantTurn("It is \n "), AssistantTurn("It is  ", "a  ")):
        prompt = Prompt((), (said, turn, said))
        assert encoder.encode(prompt).ids == reference(encoder, prompt)[0]
    for resume in (Resume(None, True, "It is  "), Resume("a  ", False), Resume("a", True, "It is  ")):
        prompt = Prompt((), (said,), resume)
        assert encoder.encode(prompt).ids == reference(encoder, prompt)[0]


def test_a_reply_is_gone_on_from_its_own_tokens_less_spaces_at_its_end(encoder: Tokenizer) -> None:
    own = [*encoder._text("It"), *encoder._text(" is"), *encoder._text(" ")]  # not as the tokenizer would cut it
    encoder.remember_reply("eve", None, "It is ", own)
    resumed = encoder.encode(Prompt((), (UserTurn("hi"),), Resume(None, True, "It is")), "eve")
    assert resumed.ids[-resumed.resumed :] == own[:-1]


def test_an_empty_thought_is_none_in_the_history(encoder: Tokenizer) -> None:
    control = encoder.control_tokens()
    encoder.remember_reply("eve", None, "Hello", [*control.opening, *control.closing, *encoder._text("Hello")])
    prompt = Prompt((), (UserTurn("hi"), AssistantTurn("Hello"), UserTurn("y")))
    assert encoder.encode(prompt, "eve").ids == reference(encoder, prompt)[0]
    resumed = encoder.encode(Prompt((), (UserTurn("hi"),), Resume(None, True, "Hello")), "eve")
    assert control.opening[0] in resumed.ids, "a reply is gone on from what the model wrote"


def test_equal_sized_images_have_different_keys(encoder: Tokenizer, paint: Callable[..., ImageFile]) -> None:
    one, other = (encoder.encode(Prompt((), (UserTurn("?", (paint(64, 64, s),)),))) for s in (1, 2))
    assert one.ids == other.ids
    assert one.keys != other.keys
    assert [k < 0 for k in one.keys] == [i == 10 for i in one.ids]


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (1, 28), (5, 2)])
def test_a_lone_image_token_is_avoided(
    encoder: Tokenizer, paint: Callable[..., ImageFile], size: tuple[int, int]
) -> None:
    encoded = encoder.encode(Prompt((), (UserTurn("?", (paint(*size),)),)))
    assert encoded.ids.count(10) > 1


def test_measure_adds_up(encoder: Tokenizer, paint: Callable[..., ImageFile]) -> None:
    prompt = Prompt(
        SYSTEM,
        (
            UserTurn("What is this?", (paint(100, 60),), 1),
            AssistantTurn("Red.", "I look.", 2),
            UserTurn("Sure?", (), 3),
        ),
    )
    measure, encoded = encoder.measure(prompt)
    assert measure.total == len(encoded.ids) == measure.system + sum(measure.per_message.values())
    assert measure.system == encoded.common
    assert 0 < measure.reasoning[2] < measure.per_message[2]
    assert next(iter(measure.images.values())) == len(encoded.image_spans[0].input.tokens)


@pytest.mark.parametrize(
    "size",
    [(1, 1), (5, 2), (28, 28), (29, 1), (300, 200), (640, 480), (1540, 1540), (3000, 2000), (4000, 30), (1, 1700)],
)
def test_an_image_s_size_alone_tells_its_tokens(
    encoder: Tokenizer, paint: Callable[..., ImageFile], size: tuple[int, int]
) -> None:
    prompt = Prompt((), (UserTurn("?", (paint(*size),), 1),))
    measure, outlined = encoder.measure(prompt)
    encoded = encoder.encode(prompt)
    assert (outlined.ids, outlined.keys) == (encoded.ids, encoded.keys)
    assert list(measure.images.values()) == [len(encoded.image_spans[0].input.tokens)]


def test_measuring_encodes_only_what_is_new(encoder: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = (
        UserTurn("How far?", (), 1),
        AssistantTurn("Far.", "I think so.", 2),
        AssistantTurn("Very.", None, 3, "Hm."),
    )
    measure, _ = encoder.measure(Prompt(SYSTEM, (*turns, UserTurn("Sur", (), 4))), "ann")
    encoded: list[str] = []
    encode = Tokenizer._text
    monkeypatch.setattr(Tokenizer, "_text", lambda self, text: encoded.append(text) or encode(self, text))
    again, _ = encoder.measure(Prompt(SYSTEM, (*turns, UserTurn("Sure?", (), 4))), "ann")
    assert encoded == ["Sure?"]
    assert again.reasoning == measure.reasoning
    assert again.reasoning[2] > again.reasoning[3] > 2
    assert again.total == len(encoder.encode(Prompt(SYSTEM, (*turns, UserTurn("Sure?", (), 4)))).ids)
    encoder.forget("ann")
    encoder.measure(Prompt(SYSTEM, (*turns, UserTurn("Sure?", (), 4))), "ann")
    assert "How far?" in encoded


def test_a_reply_is_spliced_in_as_it_was_written(encoder: Tokenizer) -> None:
    """The model may cut a text into other tokens than the tokenizer would: those are in its cache."""
    begin, end = encoder.control_tokens().opening[0], encoder.control_tokens().closing[0]
    letters = [token for text in "red" for token in encoder._text(text)]
    written = [begin, *letters, end, *letters]
    prompt = Prompt((), (UserTurn("?"), AssistantTurn("red", "red"), UserTurn("!")))
    before = encoder.encode(prompt, "ann").ids
    encoder.remember_reply("ann", "red", "red", written)
    after = encoder.encode(prompt, "ann").ids
    assert before != after
    assert any(after[i : i + len(written)] == written for i in range(len(after)))
    assert encoder.encode(prompt, "bob").ids == before


def test_instructions_leave_the_common_part(encoder: Tokenizer) -> None:
    assert encoder.encode(Prompt((*SYSTEM, SystemPart("Be brief.")), (UserTurn("?"),))).common == 0
    assert encoder.encode(Prompt(SYSTEM, (UserTurn("?"),))).common > 3


def test_textual_marks(text_folder: Path) -> None:
    """Magistral 1.0 has no control tokens: its template's marks are text, and so is its history."""
    encoder = Tokenizer(text_folder / "tekken.json", MAGISTRAL_1_0, MAGISTRAL_1_0.system())
    assert MAGISTRAL_1_0.system()[0].text.endswith("Problem:\n\n")
    prompt = Prompt((), (UserTurn("Q"), AssistantTurn("A", "R"), UserTurn("Q2")), Resume("so", closed=False))
    text = encoder._base.decode(encoder.encode(prompt).ids)
    assert text == "Q<think>\nR\n</think>\nAQ2<think>\nso"
    reader = encoder.reader()
    pieces = [p for t in encoder._text("<think>\nso [/THINK]\n</think>\nyes </think>") for p in reader.feed(t)]
    pieces += reader.finish()
    assert "".join(p.text for p in pieces if type(p).__name__ == "Reasoning") == "so [/THINK]"
    assert "".join(p.text for p in pieces if type(p).__name__ == "Answer") == "yes </think>"


def test_the_own_prompt_is_split_at_its_marks() -> None:
    assert [p.reasoning for p in split_system_prompt("a[THINK]b[/THINK]c\n", TOKEN_MARKS)] == [False, True, False]


def test_images_are_scaled_down_to_what_the_plan_has_room_for(paint: Callable[..., ImageFile]) -> None:
    image = paint(300, 200)
    prompt = Prompt((), (UserTurn("What is this?", (image,)),))

    def pixels(side: int) -> tuple[int, ...]:
        (span,) = Tokenizer(DEMO_FOLDER / "tekken.json", DEMO, SYSTEM, side).encode(prompt).image_spans
        assert span.input.pixels is not None
        return span.input.pixels.shape

    assert pixels(56) == (3, 56, 56)
    assert pixels(1_540) == pixels(0), "never larger than the model takes"
    assert max(pixels(0)) == 112


@pytest.fixture
def v15(tmp_path: Path) -> Callable[..., Tokenizer]:
    """A tokenizer of version 15, which allows these efforts."""

    def make(*efforts: str) -> Tokenizer:
        told = json.loads((DEMO_FOLDER / "tekken.json").read_text(encoding="utf-8"))
        told["config"]["version"] = "v15"
        for token, name in ((36, "[MODEL_SETTINGS]"), (37, "[/MODEL_SETTINGS]")):
            told["special_tokens"][token]["token_str"] = name
        effort = {"type": "enum", "values": efforts, "accepts_none": True, "default": "none"}
        told["model_settings_builder"] = {"reasoning_effort": effort}
        (tmp_path / "tekken.json").write_text(json.dumps(told), encoding="utf-8")
        card = replace(DEMO, takes_effort=True)
        return Tokenizer(tmp_path / "tekken.json", card, card.system())

    return make


@pytest.mark.parametrize("effort", ["none", "low", "medium", "high"])
def test_an_effort_is_read_before_the_first_message(v15: Callable[..., Tokenizer], effort: Effort) -> None:
    encoder = v15("none", "low", "medium", "high")
    turns = (UserTurn("Q"), AssistantTurn("A", "R"), UserTurn("Q2"))
    prompt = Prompt((SystemPart("Be brief."),), turns, effort=effort)
    messages = [
        SystemMessage(content=[TextChunk(text="Be brief.")]),
        UserMessage(content="Q"),
        AssistantMessage(content=[ThinkChunk(thinking="R"), TextChunk(text="A")]),
        UserMessage(content="Q2"),
    ]
    asked = ChatCompletionRequest(messages=messages, reasoning_effort=effort)
    out = encoder.encode(prompt)
    assert out.ids == encoder.tokenizer.encode_chat_completion(asked).tokens
    assert f'{{"reasoning_effort": "{effort}"}}' in encoder._base.decode(out.ids[: out.system])
    assert out.common == 0
    assert encoder.measure(prompt)[0].total == len(out.ids)


@pytest.mark.parametrize(("effort", "chosen"), [("none", "none"), ("low", "high"), ("high", "high"), (None, "high")])
def test_an_effort_that_a_model_does_not_have_is_the_nearest(
    v15: Callable[..., Tokenizer], effort: Effort | None, chosen: str
) -> None:
    out = (encoder := v15("none", "high")).encode(Prompt((), (UserTurn("Q"),), effort=effort))
    assert f'{{"reasoning_effort": "{chosen}"}}' in encoder._base.decode(out.ids)
    assert out.common == 1


def test_a_tokenizer_without_settings_reads_no_effort(encoder: Tokenizer) -> None:
    asked, plain = (encoder.encode(Prompt(SYSTEM, (UserTurn("Q"),), effort=each)) for each in ("none", None))
    assert asked.ids == plain.ids


def test_a_visitor_s_replies_are_handed_out_to_nobody_else(encoder: Tokenizer) -> None:
    encoder.remember_reply("zoe", "so", "yes", [100, 101, 102])
    encoder.remember_reply("max", None, "no", [900])
    encoder.remember_reply("zoe", None, "well", [200, 201])
    assert encoder.replies_of("zoe") == [[100, 101, 102], [200, 201]]
    encoder.forget("zoe")
    assert encoder.replies_of("zoe") == encoder.replies_of("nobody") == []
    assert encoder.replies_of("max") == [[900]]
