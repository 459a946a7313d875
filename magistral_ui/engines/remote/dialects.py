"""The dialects of OpenAI-compatible servers: how each kind of server differs in what it accepts; it sends nothing.

Sources: the servers' documentation and source code, and their answers in this project's tests. What makes a model answer
without reasoning depends more on the model than on the server: Magistral does if its prompt does not show how to reason and the
mark that opens reasoning is excluded; others read an effort, or a template variable.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from magistral_ui.chat.prompt import Prompt
from magistral_ui.chat.sampling import EFFORTS, PARAMETERS, Effort, nearest_effort
from magistral_ui.engines.remote.sse import json_object
from magistral_ui.models.cards import ModelCard

SystemShape = Literal["text", "chunks", "plain"]
"""`text`: one string with literal marks; `chunks`: a list with thinking chunks; `plain`: one string without the marks."""
HistoryShape = Literal["reasoning_content", "nested", "inline", "left_out"]
"""Earlier reasoning: a field of its own; nested thinking chunks (Mistral); marks in the text; or not at all."""
ResumeShape = Literal["chunks", "named", "prefix"]
"""A reply to resume: vLLM's chunks with a flag, llama.cpp's flag that names the field, or Mistral's `prefix`."""
Tokenizer = Literal["vllm", "llama_cpp"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One kind of server. Detection may adjust it, since much depends on how a server was started."""

    key: str
    name: str
    system: SystemShape = "text"
    history: HistoryShape = "left_out"
    resume: ResumeShape | None = None
    """None if a partial reply cannot be resumed."""
    resumes_reasoning: bool = True
    """Whether that includes replies with reasoning; if not, a plain answer can still be resumed."""
    tokenizer: Tokenizer | None = None
    """Which API for counting tokens the server has; None if it cannot count them in advance."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Our parameter → the field of the request. Other parameters are not supported."""
    always: Mapping[str, object] = field(default_factory=dict)
    without_reasoning: Mapping[str, object] = field(default_factory=dict)
    """Fields of a request for a reply without reasoning. Servers ignore or refuse those that they do not know."""
    effort: str = ""
    """The field for how much to reason, as one of `efforts`; empty if the model reads none."""
    efforts: tuple[Effort, ...] = EFFORTS
    """The values that this field takes; a refusal may name fewer."""
    prompts_reasoning: bool = False
    """Whether the model reasons only because our system prompt asks it to."""
    stream_options: Mapping[str, bool] = field(default_factory=dict)
    """What requests the usage; empty if it comes automatically or never."""
    open_by_tokens: bool = False
    """Whether open reasoning is resumed from the prompt's tokens, outside the chat API.

    vLLM's grammar for Mistral's tokenizer never lets a continued reply close its reasoning (seen in 0.32); from tokens, it can.
    """
    one_token_a_chunk: bool = False
    """Whether each piece of a stream is one token; if not, tokens are estimated from the text until the usage arrives."""
    must_fit: bool = False
    """Whether a request is refused if its prompt and `max_tokens` together exceed the context."""
    sends_default_max_tokens: bool = True
    """Whether `max_tokens` is sent even if nobody chose it.

    A gateway may lead to a server that refuses more than fits, or to a provider that charges for what is requested.
    """
    lists_all_models: bool = True
    """Whether only listed models can be requested."""

    @property
    def closes_reasoning(self) -> bool:
        return self.resume is not None and self.resumes_reasoning

    @property
    def answers_without_reasoning(self) -> bool:
        """Whether there is any way to get a reply without reasoning."""
        known = self.effort or self.without_reasoning or self.prompts_reasoning
        return bool(known) or self.closes_reasoning

    def missing(self) -> dict[str, str]:
        """What the page offers but this server does not support → key of the sentence that says why."""
        missing = {name: "missing_parameter" for name in PARAMETERS if name not in self.fields}
        if self.resume is None:
            missing["continue"] = "missing_resume"
        if self.closes_reasoning:
            missing.pop("reasoning_budget", None)
        else:
            missing |= dict.fromkeys(NEEDS_RESUMED_REASONING, "missing_resume")
        if self.effort:
            missing.pop("reasoning_budget", None)
        if not self.answers_without_reasoning:
            missing["without_reasoning"] = "missing_without_reasoning"
        if self.history == "left_out":
            missing["keep_reasoning"] = "missing_history"
        return missing


NEEDS_RESUMED_REASONING = ("continue_reasoning", "answer_again", "answer_now", "reasoning_budget")
"""What works only if a reply with reasoning can be resumed."""
SAMPLERS = ("penalties", "temperature", "top_k", "top_p", "min_p")
"""The order of the samplers in the local engine and in transformers; llama.cpp's default has the temperature last.

Sending it also disables any other sampler that the server was started with.
"""
OPENAI_FIELDS = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_tokens", "seed": "seed"}
ALL_FIELDS = {**OPENAI_FIELDS, "top_k": "top_k", "min_p": "min_p"}

NO_THINKING: Mapping[str, object] = {"chat_template_kwargs": {"enable_thinking": False}}
"""For templates that support it, such as Qwen's; others ignore it."""
TEMPLATE_FIELDS = ("chat_template_kwargs", "reasoning_effort")
"""Fields of a request that a template reads."""
BY_MISTRAL = re.compile(r"mistral|magistral|ministral|devstral|leanstral", re.I)
READS_EFFORT = re.compile(r"mistral-(?:small-(?:4|2603)|medium-3[.-][5-9]|large-4)|leanstral", re.I)
"""Models whose tokenizer (v15) reads an effort; without one, they do not reason."""

VLLM = Dialect(
    key="vllm",
    name="vLLM",
    system="chunks",
    history="reasoning_content",
    resume="chunks",
    tokenizer="vllm",
    without_reasoning={"reasoning_effort": "none", **NO_THINKING},
    fields={**ALL_FIELDS, "repetition_penalty": "repetition_penalty"},
    stream_options={"include_usage": True, "continuous_usage_stats": True},
    open_by_tokens=True,
    one_token_a_chunk=True,
    must_fit=True,
)
LLAMA_CPP = Dialect(
    key="llama.cpp",
    name="llama.cpp",
    history="reasoning_content",
    resume="named",
    tokenizer="llama_cpp",
    # The first works with Magistral's marks; the second with templates that open the reasoning themselves.
    without_reasoning={"thinking_budget_tokens": 0, **NO_THINKING},
    fields={**ALL_FIELDS, "repetition_penalty": "repeat_penalty"},
    always={"return_progress": True, "cache_prompt": True, "samplers": list(SAMPLERS)},
    stream_options={"include_usage": True},
    one_token_a_chunk=True,
    lists_all_models=False,  # a server with one model accepts any name
)
LM_STUDIO = Dialect(
    key="lm-studio",
    name="LM Studio",
    without_reasoning={"reasoning_effort": "none"},
    fields={**OPENAI_FIELDS, "top_k": "top_k", "repetition_penalty": "repeat_penalty"},
    stream_options={"include_usage": True},
    one_token_a_chunk=True,
)
MISTRAL = Dialect(
    key="mistral",
    name="Mistral",
    system="plain",
    history="nested",
    resume="prefix",
    fields={**OPENAI_FIELDS, "seed": "random_seed", "top_k": "top_k", "repetition_penalty": "repetition_penalty"},
    effort="reasoning_effort",
    efforts=("none", "high"),
    must_fit=True,
)
TRANSFORMERS = Dialect(
    key="transformers",
    name="transformers serve",
    history="inline",
    without_reasoning=NO_THINKING,
    fields=OPENAI_FIELDS,
    one_token_a_chunk=True,
    lists_all_models=False,  # it lists what was downloaded, not what it was started with
)
UNKNOWN = Dialect(
    key="unknown",
    name="OpenAI",
    without_reasoning={"reasoning_effort": "none"},
    fields=OPENAI_FIELDS,
    stream_options={"include_usage": True},
    lists_all_models=False,
    sends_default_max_tokens=False,
)

DIALECTS = {dialect.key: dialect for dialect in (VLLM, LLAMA_CPP, LM_STUDIO, MISTRAL, TRANSFORMERS, UNKNOWN)}


def effort_fields(prompt: Prompt, dialect: Dialect) -> dict[str, object]:
    """The fields of a request that set the reasoning effort."""
    fields = dict(dialect.without_reasoning) if prompt.effort == "none" else {}
    if dialect.effort:
        fields[dialect.effort] = nearest_effort(prompt.effort or "high", dialect.efforts)
    return fields


def with_effort(
    dialect: Dialect, name: str, facts: Mapping[str, Any], card: ModelCard, *, has_think_marks: bool
) -> Dialect:
    """`dialect` with the fields that the model `name` takes; `has_think_marks` says whether its template has reasoning marks."""
    marked = has_think_marks or card.key != "remote"
    fields = dict(dialect.without_reasoning)
    if marked:
        fields.pop("reasoning_effort", None)  # Mistral's tokenizers before version 15 refuse it
    if dialect.key == "vllm" and (marked or BY_MISTRAL.search(name)):
        fields.pop("chat_template_kwargs", None)  # vLLM refuses it with Mistral's tokenizer
    reads = json_object(facts.get("chat_template_caps")).get("supports_reasoning_effort") is True
    if not marked and (reads or (dialect.key != "llama.cpp" and READS_EFFORT.search(name))):
        dialect = replace(dialect, effort="reasoning_effort")
    return replace(dialect, without_reasoning=fields, prompts_reasoning=card.prompts_reasoning)


def without_mark(dialect: Dialect, token: int) -> Dialect:
    """`dialect` with the opening mark excluded from replies without reasoning, as in the local engine."""
    return replace(dialect, without_reasoning={**dialect.without_reasoning, "logit_bias": {str(token): -100}})
