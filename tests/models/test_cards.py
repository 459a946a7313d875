"""The cards' system prompts reach the model as their makers meant them: with control tokens where marks are tokens."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mistral_common.protocol.instruct.chunk import TextChunk, ThinkChunk
from mistral_common.protocol.instruct.messages import SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import SpecialTokenPolicy, Tekkenizer

from magistral_ui.chat.prompt import SystemPart
from magistral_ui.chat.reasoning import TokenIdReader
from magistral_ui.models.cards import (
    BENCHMARKS,
    CARDS,
    DEMO,
    FAMILY,
    MAGISTRAL_1_0,
    MAGISTRAL_1_1,
    MAGISTRAL_1_2,
    MINISTRAL_3_3B,
    MINISTRAL_3_14B,
    ModelCard,
    find_card,
)
from magistral_ui.models.folder import DEMO_FOLDER
from tests.chat.joined import joined

BY_TOKEN = [card for card in CARDS.values() if card.marks == "tokens"]


@pytest.fixture(scope="module")
def tokenizer() -> MistralTokenizer:
    return MistralTokenizer.from_file(str(DEMO_FOLDER / "tekken.json"))


@pytest.fixture(scope="module")
def tekken(tokenizer: MistralTokenizer) -> Tekkenizer:
    found = tokenizer.instruct_tokenizer.tokenizer
    assert isinstance(found, Tekkenizer)
    return found


@pytest.mark.parametrize("card", BY_TOKEN, ids=lambda card: card.key)
def test_a_system_prompt_shows_the_reasoning_between_its_marks(card: ModelCard) -> None:
    before, thought, after = card.system()
    assert (before.reasoning, thought.reasoning, after.reasoning) == (False, True, False)
    assert f"{before.text}[THINK]{thought.text}[/THINK]{after.text}" == card.system_prompt().removesuffix("\n")
    assert not any("THINK]" in part.text for part in card.system())


@pytest.mark.parametrize("card", BY_TOKEN, ids=lambda card: card.key)
def test_mistral_common_encodes_the_parts_with_control_tokens(
    card: ModelCard, tokenizer: MistralTokenizer, tekken: Tekkenizer
) -> None:
    chunks = [ThinkChunk(thinking=p.text) if p.reasoning else TextChunk(text=p.text) for p in card.system()]
    request = ChatCompletionRequest(messages=[SystemMessage(content=chunks), UserMessage(content="Hi")])
    tokens = tokenizer.encode_chat_completion(request).tokens
    begin, end = tekken.get_special_token("[THINK]"), tekken.get_special_token("[/THINK]")
    assert tokens.count(begin) == tokens.count(end) == 1
    inside = tokens[tokens.index(begin) + 1 : tokens.index(end)]
    assert tekken.decode(inside, SpecialTokenPolicy.IGNORE) == card.system()[1].text


def test_the_lengths_of_the_published_prompts() -> None:
    # Bytes of the model cards' prompts without a trailing newline; 2509's is SYSTEM_PROMPT.txt as in the repository.
    sizes = [len(card.system_prompt().removesuffix("\n").encode()) for card in (MAGISTRAL_1_1, MAGISTRAL_1_2)]
    assert sizes == [554, 565]


def test_magistral_1_0_marks_reasoning_as_text() -> None:
    (part,) = MAGISTRAL_1_0.system()
    assert not part.reasoning
    assert "<think>\n" in part.text
    assert part.text.endswith("Problem:\n\n")
    assert MAGISTRAL_1_0.reasoning_marks == ("<think>", "</think>")


def test_another_prompt_is_split_in_the_same_way() -> None:
    assert DEMO.system("a[THINK]b[/THINK]c") == (SystemPart("a"), SystemPart("b", True), SystemPart("c"))
    assert DEMO.system("") == MAGISTRAL_1_0.system("") == ()


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("demo", DEMO),
        ("Demo", DEMO),
        ("mistralai/magistral-small-2509", MAGISTRAL_1_2),
        ("magistral-small-2507", MAGISTRAL_1_1),
        ("Ministral-3-14B", MINISTRAL_3_14B),
        ("mistralai/ministral-3-3b-reasoning-2512", MINISTRAL_3_3B),
        ("mistralai/Ministral-3-3B-Instruct-2512", None),
        ("", None),
        ("someone/else", None),
    ],
)
def test_a_card_is_found_by_key_or_repository(name: str, card: ModelCard | None) -> None:
    assert find_card(name) is card


@pytest.mark.parametrize("card", CARDS.values(), ids=lambda card: card.key)
def test_without_reasoning_the_card_s_template_is_left_out(card: ModelCard) -> None:
    assert card.prompts_reasoning
    assert card.system(budget=0) == ()
    assert card.effort(0) == "none"
    begin, end = card.reasoning_marks
    own = f"I am{begin}so{end}here."
    assert card.system(own, 0) == card.system(own)
    for budget in (None, 512):
        assert card.system(budget=budget) == card.system()
        assert card.effort(budget) is None


def test_a_model_that_reads_an_effort_gets_no_template() -> None:
    card = replace(MAGISTRAL_1_2, takes_effort=True)
    assert card.system() == card.system(budget=0) == ()
    assert card.system("a[THINK]b[/THINK]c") == (SystemPart("a[THINK]b[/THINK]c"),)
    assert [card.effort(budget) for budget in (0, 512, 4_096, None)] == ["none", "low", "medium", "high"]


def test_recommended_lengths_and_limits_agree() -> None:
    for card in CARDS.values():
        assert card.recommended_length <= card.context_length
        assert card.sampling.max_tokens <= card.context_length


def test_the_family_s_cards_have_all_facts_for_a_choice() -> None:
    assert [card.shape.parameters for card in FAMILY if card.shape] == [
        24_011_361_280,
        13_945_031_680,
        8_918_026_240,
        3_849_090_048,
    ]
    for card in FAMILY:
        assert card.shape is not None
        assert tuple(card.benchmarks) == BENCHMARKS
        assert all(0 < solved < 100 for solved in card.benchmarks.values())
        assert card.download_bytes == 2 * card.shape.parameters
        assert card.context_length == card.shape.context_length
        assert (card.license, card.languages[0]) == ("Apache-2.0", "en")
        assert card.system() == MAGISTRAL_1_2.system()


# The reader over a real vocabulary: what mistral-common decodes in one go is what the reader gives piece by piece.

CONTROL = 64


@given(tokens=st.lists(st.integers(0, 34 + CONTROL + 300), max_size=60), data=st.data())
def test_the_reader_agrees_with_mistral_common(tekken: Tekkenizer, tokens: list[int], data: st.DataObject) -> None:
    begin, end = tekken.get_special_token("[THINK]"), tekken.get_special_token("[/THINK]")
    texts = data.draw(st.lists(st.text(max_size=8), max_size=2))
    for text in texts:
        at = data.draw(st.integers(0, len(tokens)))
        tokens = [*tokens[:at], *tekken.encode(text, bos=False, eos=False), *tokens[at:]]
    reader = TokenIdReader(begin, end, lambda t: tekken.id_to_byte_piece(t, SpecialTokenPolicy.IGNORE))
    pieces = [*itertools.chain.from_iterable(map(reader.feed, tokens)), *reader.finish()]
    runs: list[tuple[bool, list[int]]] = [(False, [])]
    for token in tokens:
        inside = runs[-1][0]
        if token in (begin, end):
            runs.append((token == begin or (inside and token != end), []))
        else:
            runs[-1][1].append(token)
    decoded = [(inside, tekken.decode(run, SpecialTokenPolicy.IGNORE)) for inside, run in runs]
    assert joined(pieces) == (
        "".join(text for inside, text in decoded if inside),
        "".join(text for inside, text in decoded if not inside),
    )


@given(st.text(max_size=30), st.text(max_size=30))
def test_text_streams_whole_through_the_demo_vocabulary(tekken: Tekkenizer, thought: str, answer: str) -> None:
    spelled = [tekken.encode(text, bos=False, eos=False) for text in (thought, answer)]
    tokens = [tekken.get_special_token("[THINK]"), *spelled[0], tekken.get_special_token("[/THINK]"), *spelled[1]]
    reader = TokenIdReader(tokens[0], 35, lambda t: tekken.id_to_byte_piece(t, SpecialTokenPolicy.IGNORE))
    pieces = [*itertools.chain.from_iterable(map(reader.feed, tokens)), *reader.finish()]
    assert joined(pieces) == (thought, answer)
    assert all("\ufffd" not in p.text or "\ufffd" in thought + answer for p in pieces)
