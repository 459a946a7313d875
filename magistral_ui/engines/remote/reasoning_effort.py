"""How a server is told how much to reason (the reasoning effort), or not to; it does not close reasoning itself.

What makes a model answer without reasoning depends more on the model than on the server: Magistral does if its prompt does
not show how to reason and the mark that opens reasoning is excluded; others read an effort, or a template variable.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from magistral_ui.chat.prompt import Prompt
from magistral_ui.chat.sampling import nearest_effort
from magistral_ui.engines.remote.dialects import Dialect
from magistral_ui.engines.remote.sse import json_object
from magistral_ui.models.cards import ModelCard

TEMPLATE_FIELDS = ("chat_template_kwargs", "reasoning_effort")
"""Fields of a request that a template reads."""
BY_MISTRAL = re.compile(r"mistral|magistral|ministral|devstral|leanstral", re.I)
READS_EFFORT = re.compile(r"mistral-(?:small-(?:4|2603)|medium-3[.-][5-9]|large-4)|leanstral", re.I)
"""Models whose tokenizer (v15) reads an effort; without one, they do not reason."""


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
