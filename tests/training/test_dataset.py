"""The demo model's training data is right and encoded as mistral-common encodes it; nothing is trained here."""

import random
import re
from collections.abc import Callable

import numpy as np
import pytest
from mistral_common.protocol.instruct.chunk import ImageChunk, TextChunk, ThinkChunk
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest

from training import dataset, drawings, exercises, sums
from training.blank_model import FOLDER
from training.dataset import Conversation, Turn
from training.samples import Encoder
from training.wording import LANGUAGES, say

EQUATION = re.compile(r"(?<![\d-])(\d[\d+-]*)=(\d+)")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(FOLDER)


@pytest.mark.parametrize("language", LANGUAGES)
def test_reasoning_is_arithmetic(language: str) -> None:
    rng = random.Random(7)
    for _ in range(400):
        a, b, minus = rng.randint(-999, 1998), rng.randint(0, 999), rng.random() < 0.5
        text = sums.reasoning(a, b, minus, say(language))
        right = a - b if minus else a + b
        assert re.findall(r"-?\d+", text)[-1] == str(right)
        assert EQUATION.findall(text)
        for left, value in EQUATION.findall(text):
            assert sum(int(term) for term in re.findall(r"[+-]?\d+", left)) == int(value), text
        assert sums.answer(a, b, minus).endswith(f"= **{right}**")


def test_reasoning_shows_carrying_and_borrowing() -> None:
    added = sums.reasoning(487, 265, False, say("en")).splitlines()
    assert added[:2] == ["487+265", "487+265, from the right:"]
    assert added[2:5] == ["7+5=12, write 2, carry 1", "8+6+1=15, write 5, carry 1", "4+2+1=7, write 7"]
    taken = sums.reasoning(402, 17, True, say("en")).splitlines()
    assert taken[:3] == ["402-17", "402-017: 4,0 >", "402-017, from the right:"]
    assert taken[3:6] == ["2-7: borrow 1, 12-7=5, write 5", "0-1-1: borrow 1, 10-1-1=8, write 8", "4-1-0=3, write 3"]


@pytest.mark.parametrize(("a", "b"), [(120, 45), (24, 54), (7, 700), (88, 86), (554, 554), (0, 0), (999, 1000)])
def test_a_difference_is_restated_and_compared(a: int, b: int) -> None:
    asked, compared, then, *_ = sums.reasoning(a, b, True, say("en")).splitlines()
    assert asked == f"{a}-{b}"
    lined_up, signs = compared.split(": ")
    top, bottom = lined_up.split("-")
    assert (len(top), int(top), int(bottom)) == (len(bottom), a, b)
    pairs = re.findall(r"(\d),(\d) ([<=>])", signs)
    assert [(x, y) for x, y, _ in pairs] == list(zip(top, bottom, strict=True))[: len(pairs)]
    assert all((int(x) > int(y)) - (int(x) < int(y)) == "<=>".index(sign) - 1 for x, y, sign in pairs)
    assert all(sign == "=" for *_, sign in pairs[:-1])
    assert then.startswith(f"{b} is larger" if a < b else lined_up)


@pytest.mark.parametrize("language", LANGUAGES)
def test_reasoning_that_was_ended_early_names_no_wrong_result(language: str) -> None:
    rng = random.Random(5)
    for _ in range(600):
        a, b, minus = rng.randint(-999, 1998), rng.randint(0, 999), rng.random() < 0.5
        whole, right = sums.reasoning(a, b, minus, say(language)), sums.result(a, b, minus)
        cut = rng.randint(0, len(whole))
        answer, number = sums.closed_early(a, b, minus, cut, say(language))
        if "**" in answer:
            assert (answer, number) == (sums.answer(a, b, minus), right)
            assert sums.by_heart(a, b) or not EQUATION.search(whole, cut)
        else:
            assert abs(number - right) <= 10
            assert re.findall(r"-?\d+", answer)[-1] == str(number)


def test_a_person_may_overrule_the_reasoning() -> None:
    rng = random.Random(2)
    for language in LANGUAGES:
        for _ in range(50):
            turn = exercises.overruled(dataset.sum_turn(language, rng), language, rng)
            assert str(turn.result) in turn.given.rpartition("\n")[2]
            assert turn.answer.endswith(f"= **{turn.result}**")
            assert turn.result != sums.result(*dataset.numbers_of(turn))


def test_images_are_all_counted_and_the_first_are_named() -> None:
    rng = random.Random(1)
    for count in range(2, dataset.MOST_SHOWN + 1):
        shown = tuple(drawings.figure(rng) for _ in range(count))
        reasoning, answer = dataset.described(shown, "de")
        assert reasoning.startswith(f"{count} Bilder. ")
        assert answer.startswith(f"Ich sehe **{count} Bilder**")
        assert answer.count("Die Form ist") == min(count, dataset.MOST_NAMED)


def test_held_out_pairs_are_never_trained() -> None:
    for seed in range(400):
        for turn in exercises.practice(random.Random(seed)).turns:
            if turn.closed == 0 and turn.given:
                continue  # the number that a person gave is no result
            if turn.numbers:
                assert not sums.held_out(*turn.numbers)
            found = re.match(r"(-?\d+) ([+-]) (\d+) =", turn.answer)
            if found:
                assert not sums.held_out(int(found[1]), int(found[3]), found[2] == "-")
    rng = random.Random(0)
    for _ in range(100):
        answer = dataset.sum_turn("fr", rng, held_out=True).answer
        a, sign, b = answer.split(" ")[:3]
        assert sums.held_out(int(a), int(b), sign == "-")


@pytest.mark.parametrize("seed", range(18))
def test_encoding_is_that_of_mistral_common(encoder: Encoder, seed: int) -> None:
    rng = random.Random(seed)
    made = dataset.conversation(rng) if seed % 3 else exercises.budgeted("fr", rng)
    made = Conversation(made.system, made.turns, seed % 2 == 0, brief=False)
    ours = encoder.encode(made)
    request = ChatCompletionRequest(messages=_messages(made, encoder)[:-1])
    theirs = encoder.tokenizer.encode_chat_completion(request)
    assert ours.tokens[: len(theirs.tokens)] == theirs.tokens
    last = made.turns[-1]
    thought = [*_text(encoder, last.given), *_text(encoder, last.reasoning)]
    if last.closed is not None:
        thought = thought[: len(ours.tokens) - len(theirs.tokens) - len(_text(encoder, last.answer)) - 3]
    reply = [encoder.mark("[THINK]"), *thought, encoder.mark("[/THINK]"), *_text(encoder, last.answer)]
    assert ours.tokens[len(theirs.tokens) :] == [*reply, encoder.mark("</s>")]
    assert len(ours.images) == len(theirs.images)
    for mine, yours in zip(ours.images, theirs.images, strict=True):
        np.testing.assert_array_equal(mine, yours)


def test_only_replies_with_reasoning_are_learned(encoder: Encoder) -> None:
    turns = (Turn("1+1", "thought", "2", "sum"), Turn("+1", "again", "3", "sum"))
    dropped = encoder.encode(Conversation(None, turns, keep_reasoning=False))
    learned = [token for token, weight in zip(dropped.tokens, dropped.weights, strict=True) if weight]
    assert learned == [*_thought(encoder, turns[1]), *_text(encoder, "3"), encoder.mark("</s>")]


def test_reasoning_that_was_ended_early_is_a_beginning_in_tokens(encoder: Encoder) -> None:
    rng, begin = random.Random(4), encoder.mark("[THINK]")
    for language in LANGUAGES:
        for _ in range(25):
            turn = dataset.sum_turn(language, rng)
            cut = rng.randint(0, len(turn.reasoning))
            turn = dataset.closed(turn, cut, language)
            whole = _text(encoder, turn.reasoning)
            given, written = encoder.thought(turn)
            assert not given
            assert written == whole[: len(written)]
            text = encoder.thought_text(turn)
            assert turn.reasoning[:cut].startswith(text)
            assert cut - len(text) < 12
            made = encoder.encode(Conversation(None, (turn,)))
            tokens = [token for token, weight in zip(made.tokens, made.weights, strict=True) if weight]
            assert tokens == [begin, *written, *_text(encoder, turn.answer), encoder.mark("</s>")]


def test_what_a_person_gave_is_not_learned(encoder: Encoder) -> None:
    turn = Turn("1+1", "\n1+1=2", "2", "sum", given="Well")
    made = encoder.encode(Conversation(None, (turn,)))
    learned = [token for token, weight in zip(made.tokens, made.weights, strict=True) if weight]
    end = [encoder.mark("[/THINK]"), *_text(encoder, "2"), encoder.mark("</s>")]
    assert learned == [encoder.mark("[THINK]"), *_text(encoder, turn.reasoning), *end]
    assert made.tokens[-len(learned) - len(_text(encoder, "Well"))] == encoder.mark("[THINK]")


def test_an_answer_that_stands_without_reasoning_is_not_learned(encoder: Encoder) -> None:
    turns = (Turn("1+1", "1+1=2", "two", "sum", closed=0), Turn("+1", "2+1=3", "3", "sum"))
    made = encoder.encode(Conversation(None, turns))
    learned = [token for token, weight in zip(made.tokens, made.weights, strict=True) if weight]
    assert learned == [*_thought(encoder, turns[1]), *_text(encoder, "3"), encoder.mark("</s>")]


def test_a_brief_reply_is_the_beginning_of_the_whole(encoder: Encoder) -> None:
    turn = dataset.sum_turn("en", random.Random(1))
    whole, brief = (encoder.encode(Conversation(None, (turn,), brief=brief)) for brief in (False, True))
    assert len(brief.tokens) < len(whole.tokens)
    assert whole.tokens[: len(brief.tokens)] == brief.tokens
    assert whole.weights[: len(brief.weights)] == brief.weights
    assert encoder.mark("</s>") not in brief.tokens


@pytest.mark.parametrize("draw", [drawings.figure, drawings.plain, drawings.scene])
def test_images_repeat_with_their_seed(draw: Callable[[random.Random], drawings.Drawing]) -> None:
    first, second = draw(random.Random(3)), draw(random.Random(3))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert (first.kind, first.colour) == (second.kind, second.colour)


def test_figures_stand_out() -> None:
    for seed in range(60):
        drawn = drawings.figure(random.Random(seed))
        figure = drawn.mask > 250
        assert 0.002 < figure.mean() < 0.95
        inside, outside = drawn.pixels[figure].mean(0), drawn.pixels[drawn.mask == 0].mean(0)
        assert np.linalg.norm(inside - outside) > 40, seed


def _messages(made: Conversation, encoder: Encoder) -> list[SystemMessage | UserMessage | AssistantMessage]:
    messages: list[SystemMessage | UserMessage | AssistantMessage] = []
    if made.system is not None:
        before, _, rest = made.system.partition("[THINK]")
        thought, _, after = rest.partition("[/THINK]")
        parts = [TextChunk(text=before), ThinkChunk(thinking=thought), TextChunk(text=after)]
        messages.append(SystemMessage(content=parts if rest else before))
    for turn in made.turns:
        shown = [ImageChunk(image=image.image) for image in turn.images]
        messages.append(UserMessage(content=[*shown, TextChunk(text=turn.text)] if shown else turn.text))
        thought = encoder.thought_text(turn)
        thought_chunk = [ThinkChunk(thinking=thought)] if made.keep_reasoning and thought else []
        messages.append(AssistantMessage(content=[*thought_chunk, TextChunk(text=turn.answer)]))
    return messages


def _text(encoder: Encoder, text: str) -> list[int]:
    return list(encoder.tokenizer.instruct_tokenizer.tokenizer.encode(text, bos=False, eos=False))


def _thought(encoder: Encoder, turn: Turn) -> list[int]:
    return [encoder.mark("[THINK]"), *_text(encoder, turn.reasoning), encoder.mark("[/THINK]")]
