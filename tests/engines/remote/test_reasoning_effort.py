"""What each kind of server is sent for a reply without reasoning, or with more or less of it."""

from dataclasses import replace

import pytest

from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import Effort, SamplingParams
from magistral_ui.engines.base import GenerationRequest, ModelInfo
from magistral_ui.engines.remote.completion_body import body_of, from_tokens, refuse_unsupported
from magistral_ui.engines.remote.dialects import (
    DIALECTS,
    LLAMA_CPP,
    LM_STUDIO,
    MISTRAL,
    TRANSFORMERS,
    UNKNOWN,
    VLLM,
    Dialect,
    effort_fields,
    with_effort,
    without_mark,
)
from magistral_ui.engines.remote.error_body import ServerRefusal, read_refusal
from magistral_ui.engines.remote.served_models import GENERAL
from magistral_ui.engines.remote.server_profile import ServerProfile, updated_profile
from magistral_ui.errors import ParameterRefused
from magistral_ui.models.cards import MAGISTRAL_1_2

OTHER_TEMPLATE = {"chat_template_kwargs": {"enable_thinking": False}}
MARK = {"logit_bias": {"34": -100}}


def prompt(effort: Effort | None) -> Prompt:
    return Prompt((), (UserTurn("hi"),), effort=effort)


def fields(dialect: Dialect, effort: Effort | None) -> dict[str, object]:
    return effort_fields(prompt(effort), dialect)


@pytest.mark.parametrize(
    ("dialect", "off"),
    [
        (without_mark(VLLM, 34), MARK),
        (LLAMA_CPP, {"thinking_budget_tokens": 0, **OTHER_TEMPLATE}),
        (LM_STUDIO, {}),
        (TRANSFORMERS, OTHER_TEMPLATE),
        (UNKNOWN, {}),
    ],
    ids=lambda each: each.key if isinstance(each, Dialect) else "",
)
def test_a_magistral_does_without_by_its_prompt_and_what_else_the_server_takes(
    dialect: Dialect, off: dict[str, object]
) -> None:
    known = with_effort(dialect, "magistral-small-2509", {}, MAGISTRAL_1_2, has_think_marks=True)
    assert fields(known, "none") == off
    assert fields(known, None) == {}
    assert known.answers_without_reasoning
    assert not known.effort


@pytest.mark.parametrize(
    ("dialect", "off"),
    [
        (VLLM, {"reasoning_effort": "none", **OTHER_TEMPLATE}),
        (LLAMA_CPP, {"thinking_budget_tokens": 0, **OTHER_TEMPLATE}),
        (LM_STUDIO, {"reasoning_effort": "none"}),
        (TRANSFORMERS, OTHER_TEMPLATE),
        (UNKNOWN, {"reasoning_effort": "none"}),
    ],
    ids=lambda each: each.key if isinstance(each, Dialect) else "",
)
def test_another_model_is_told_by_fields(dialect: Dialect, off: dict[str, object]) -> None:
    known = with_effort(dialect, "qwen3-8b", {}, GENERAL, has_think_marks=False)
    assert fields(known, "none") == off
    assert fields(known, None) == {}
    assert "without_reasoning" not in known.missing()


@pytest.mark.parametrize("name", ["mistralai/Mistral-Small-4-119B-2603", "mistral-medium-3.5", "Leanstral-1.5"])
def test_a_model_with_the_tokenizer_v15_reads_an_effort(name: str) -> None:
    known = with_effort(VLLM, name, {}, GENERAL, has_think_marks=False)
    assert known.effort == "reasoning_effort"
    assert fields(known, "none") == {"reasoning_effort": "none"}
    assert fields(known, "low") == {"reasoning_effort": "low"}
    assert fields(known, None) == {"reasoning_effort": "high"}


@pytest.mark.parametrize("reads", [True, False])
def test_a_llama_cpp_template_says_whether_it_reads_an_effort(reads: bool) -> None:
    facts = {"chat_template_caps": {"supports_reasoning_effort": reads}}
    assert with_effort(LLAMA_CPP, "any", facts, GENERAL, has_think_marks=False).effort == (
        "reasoning_effort" if reads else ""
    )


def test_the_fields_are_in_the_body_but_not_of_a_completion_from_tokens() -> None:
    known = with_effort(LLAMA_CPP, "any", {}, MAGISTRAL_1_2, has_think_marks=True)
    info = ModelInfo("m", "m", "", "", 4_096, missing=known.missing())
    profile = ServerProfile(known, MAGISTRAL_1_2, "m", info)
    request = GenerationRequest(prompt("none"), SamplingParams(seed=1, reasoning_budget=0))
    body = body_of(request, profile, lambda _: "", None, 100)
    assert body["thinking_budget_tokens"] == 0
    # An empty system message, so that no template adds one that shows how to reason.
    assert body["messages"] == [{"role": "system", "content": ""}, {"role": "user", "content": "hi"}]
    assert "chat_template_kwargs" not in from_tokens(body, [1])


def test_a_field_that_a_server_refuses_is_left_out_from_then_on() -> None:
    known = with_effort(UNKNOWN, "any", {}, GENERAL, has_think_marks=False)
    profile = ServerProfile(known, GENERAL, "m", ModelInfo("m", "m", "", "", 4_096, missing=known.missing()))
    refusal = ServerRefusal("no such field", fields=("reasoning_effort",), unknown=True)
    update = updated_profile(profile, refusal, {"reasoning_effort": "none"}, frozenset())
    assert update is not None
    assert [notice.key for notice in update.notices] == ["remote_left_out"]
    assert fields(update.profile.dialect, "none") == {}
    # Now there is no way left, and the page says so.
    assert update.profile.info.missing["without_reasoning"] == "missing_without_reasoning"


def test_an_effort_that_a_server_refuses_is_left_out_too() -> None:
    profile = ServerProfile(MISTRAL, GENERAL, "m", ModelInfo("m", "m", "", "", 4_096))
    update = updated_profile(
        profile, ServerRefusal(fields=("reasoning_effort",)), {"reasoning_effort": "high"}, frozenset()
    )
    assert update is not None
    assert fields(update.profile.dialect, "low") == {}


MISTRAL_WORDS = (
    "reasoning_effort='medium' is not supported for this model. "
    "Must be one of (<ReasoningEffort.none: 'none'>, <ReasoningEffort.high: 'high'>)"
)


@pytest.mark.parametrize(
    ("message", "tried", "efforts"),
    [
        (MISTRAL_WORDS, "medium", ("none", "high")),
        ("reasoning_effort must be one of ['low', 'high', 'max']", "medium", ("low", "high")),
        (
            "'reasoning_effort' does not support 'none' with this model. Supported: 'low', and 'high'.",
            "none",
            ("low", "high"),
        ),
        ("reasoning_effort=<ReasoningEffort.low: 'low'> is not supported for this model", "low", ()),
        ("reasoning_effort is not enabled for this model", "high", ()),
    ],
)
def test_the_efforts_that_a_refusal_names_are_taken_from_then_on(
    message: str, tried: Effort, efforts: tuple[Effort, ...]
) -> None:
    dialect = replace(VLLM, effort="reasoning_effort", without_reasoning={})
    profile = ServerProfile(dialect, GENERAL, "m", ModelInfo("m", "m", "", "", 4_096))
    sent = {"messages": [], **fields(dialect, tried)}
    refusal = read_refusal(400, {"object": "error", "message": message, "code": "3051"}, "", sent)
    update = updated_profile(profile, refusal, sent, frozenset())
    assert update is not None
    known = update.profile.dialect
    if not efforts:
        assert (known.effort, [notice.key for notice in update.notices]) == ("", ["remote_left_out"])
        return
    assert (known.effort, known.efforts, update.notices) == ("reasoning_effort", efforts, ())
    assert fields(known, None) == {"reasoning_effort": "high"}
    assert fields(known, "none")["reasoning_effort"] == efforts[0]


def test_mistral_s_own_models_reason_or_do_not() -> None:
    sent = [fields(MISTRAL, each)["reasoning_effort"] for each in ("none", "low", "medium", "high", None)]
    assert sent == ["none", "high", "high", "high", "high"]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda each: each.key)
def test_a_budget_of_0_is_refused_only_where_there_is_no_way(dialect: Dialect) -> None:
    off = SamplingParams(reasoning_budget=0)
    refuse_unsupported(off, dialect, "server")
    lost = replace(dialect, without_reasoning={}, effort="", resume=None)
    with pytest.raises(ParameterRefused) as refused:
        refuse_unsupported(off, lost, "server")
    assert refused.value.message.values["reason"] == "missing_without_reasoning"
