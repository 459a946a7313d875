"""Why servers refuse: error bodies of every shape, and the words that many servers have for a prompt or a reply too long."""

import json
from typing import Any

import pytest

from magistral_ui.engines.remote.error_body import error_detail, read_refusal

SENT: dict[str, Any] = {"model": "m", "messages": [], "stream": True, "max_tokens": 40_960, "temperature": 0.7}
SENT |= {"top_p": 0.95, "seed": 3, "top_k": 0, "stream_options": {}}
WITHOUT = {name: value for name, value in SENT.items() if name != "max_tokens"}


@pytest.mark.parametrize(
    ("words", "most", "limit"),
    [
        (
            "This model's maximum context length is 4096 tokens. However, you requested 40998 tokens (38 in the messages, "
            "40960 in the completion). Please reduce the length of the messages or completion.",
            4058,
            4096,
        ),
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 40960. This model's maximum context length is 4096 "
            "tokens and your request has 38 input tokens (40960 > 4096 - 38).",
            4058,
            4096,
        ),
        (
            "This model's maximum context length is 4096 tokens. However, you requested 40960 output tokens and your prompt "
            "contains at least 38 input tokens, for a total of at least 40998 tokens.",
            4058,
            4096,
        ),
        ("max_tokens is too large: 40960. This model supports at most 16384 completion tokens.", 16_384, 0),
        ("max_tokens: 40960 > 8192, which is the maximum allowed number of output tokens for some-3-5-model", 8192, 0),
        (
            "`inputs` tokens + `max_new_tokens` must be <= 4097. Given: 38 `inputs` tokens and 40960 `max_new_tokens`",
            4059,
            4097,
        ),
        ("`max_tokens` must be less than or equal to `8192`, the maximum value for this model", 8192, 0),
        (
            "This endpoint's maximum context length is 8192 tokens. However, you requested about 41000 tokens (40 of text "
            "input, 40960 in the output).",
            8152,
            8192,
        ),
        (
            "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 41000 "
            "tokens: 40 tokens from the input messages and 40960 tokens for the completion.",
            4056,
            4096,
        ),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", 8192, 0),
        (
            "a maxOutputTokens value of 40960, but the supported range is from 1 (inclusive) to 8193 (exclusive)",
            8192,
            0,
        ),
        (
            "The maximum tokens you requested exceeds the model limit of 4096. Try a value that is lower than 4096.",
            4095,
            0,
        ),
        ("The sum of prompt length (38.0) and max_tokens (40960) should not exceed max_num_tokens (8192)", 8154, 8192),
        (
            "litellm.BadRequestError: OpenAIException - Error code: 400 - {'message': \"This model's maximum context length is "
            '4,096 tokens. However, you requested 40,998 tokens (38 in the messages, 40,960 in the completion)."}',
            4058,
            4096,
        ),
        ("You asked for 40960 tokens of output, but this model allows 2,048.", 2048, 0),
        ("max_tokens 的最大值为 8192，当前为 40960", 8192, 0),
    ],
)
def test_how_much_a_server_would_write_instead(words: str, most: int, limit: int) -> None:
    refusal = read_refusal(400, None, words, SENT)
    assert (refusal.reply_bounded, refusal.max_tokens, refusal.limit, refusal.too_long) == (
        True,
        most,
        limit,
        False,
    )


@pytest.mark.parametrize(
    ("words", "tokens", "limit"),
    [
        ("This model's maximum context length is 4096 tokens. However, you requested 6004 tokens", 6004, 4096),
        ("`inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000 `inputs` tokens and 0", 5000, 4097),
        ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", 5000, 4096),
        ("request (900 tokens) exceeds the available context size (512 tokens), try increasing it", 900, 512),
        ("the request exceeds the available context size, try increasing it", 0, 0),
        (
            "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context "
            "length of only 4096 tokens, which is not enough.",
            5000,
            4096,
        ),
        ("The number of tokens to keep from the initial prompt is greater than the context length.", 0, 0),
        ("input length exceeds maximum context length", 0, 0),
        ("prompt too long; exceeded max context length by 4 tokens", 0, 0),
        ("The prompt is too long: 5000, model maximum context length: 4096", 5000, 4096),
        ("too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292", 4292, 4081),
        ("Prompt length (5000) exceeds maximum input length (4096)", 5000, 4096),
        ("Prompt length 5000 is greater than max_seq_len 4096", 5000, 4096),
        ("ContextWindowExceededError: litellm.BadRequestError", 0, 0),
        ("Input is too long for requested model.", 0, 0),
        ("The input token count (40000) exceeds the maximum number of tokens allowed (32768).", 40_000, 32_768),
        ("Please reduce the length of the messages. Current length is 9000 while limit is 8192", 9000, 8192),
        ("This model's maximum prompt length is 131072 but the request contains 537812 tokens.", 537_812, 131_072),
        (
            "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
            40_000,
            32_768,
        ),
        ("Input validation error: `inputs` must have less than 4095 tokens. Given: 5000", 5000, 4095),
        ("prompt is too long: 208310 tokens > 200000 maximum", 208_310, 200_000),
        ("the model context is 4096", 0, 4096),
        ("your prompt has 5,120 tokens, but the model's context is 4,096", 5120, 4096),
        ("The context window of this model (8192) is exceeded by the 9000 tokens of the prompt", 9000, 8192),
        ("Requested tokens (5000) exceed context window of 4096", 5000, 4096),
        ("n_tokens 5000 exceeds n_ctx 4096", 5000, 4096),
        ("max_tokens must be at least 1, got -1908.", 0, 0),
        ("prompt has 5,000 tokens but the context holds only 4,096", 5000, 4096),
        ("This prompt needs 5000 tokens, the window holds 4096.", 5000, 4096),
        ("ctx size 4096 is not enough for 5000 tokens", 5000, 4096),
        ("The message you submitted was too long, please submit something shorter.", 0, 0),
        ("The sequence is too long for the KV cache: 5000 > 4096", 5000, 4096),
        ("输入长度5000超过模型最大上下文长度4096", 5000, 4096),
        ("模型的上下文长度为4096，请求为5000个token", 5000, 4096),
        ("Prompt 超长", 0, 0),
    ],
)
def test_a_prompt_too_long_in_the_words_of_many_servers(words: str, tokens: int, limit: int) -> None:
    refusal = read_refusal(400, {"error": {"message": words}}, "", WITHOUT)
    assert (refusal.too_long, refusal.tokens, refusal.limit) == (True, tokens, limit)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (429, "Rate limit reached: 6000 tokens per minute, your context needs 9000"),
        (413, "Request too large on tokens per minute (TPM): Limit 6000, Requested 41000"),
        (400, "image exceeds 5 MB maximum"),
        (400, "no such template"),
        (400, "no context for user 12345678"),
        (404, "model some-4096-context not found"),
        (400, "temperature must be between 0 and 2"),
    ],
)
def test_what_is_about_something_else_is_not_taken_for_it(status: int, words: str) -> None:
    refusal = read_refusal(status, {"error": words}, "", SENT)
    assert not refusal.too_long
    assert not refusal.reply_bounded


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"error": "out of cheese"}', "out of cheese"),
        ('{"error": {"message": "out of cheese", "type": "x", "code": 1}}', "out of cheese"),
        ('{"error": {"message": {"detail": [{"loc": ["body", "x"], "msg": "no"}]}}}', "body.x: no"),
        ('{"error": {"error": {"message": "out of cheese"}}}', "out of cheese"),
        ('{"error": ["one", {"message": "two"}]}', "one; two"),
        ('{"detail": "out of cheese"}', "out of cheese"),
        ('{"detail": [{"loc": ["body", "top_k"], "msg": "extra"}]}', "body.top_k: extra"),
        ('{"detail": {"message": "out of cheese"}}', "out of cheese"),
        ('{"message": "out of cheese"}', "out of cheese"),
        ('{"msg": "out of cheese", "code": 7}', "out of cheese"),
        ('{"errors": [{"message": "out of cheese"}]}', "out of cheese"),
        ('{"error_description": "out of cheese"}', "out of cheese"),
        ('{"error": true, "reason": "out of cheese"}', "out of cheese"),
        ('{"error_code": 110, "error_msg": "out of cheese"}', "out of cheese"),
        ('{"base_resp": {"status_code": 1008, "status_msg": "out of cheese"}}', "out of cheese"),
        ('{"fault": {"faultstring": "out of cheese"}}', "out of cheese"),
        ('{"Message": "out of cheese"}', "out of cheese"),
        ('{"errors": {"top_k": ["out of cheese"]}}', "top_k: out of cheese"),
        ('{"error": {"code": "out_of_cheese"}}', "out_of_cheese"),
        ('{"title": "Bad", "status": 400, "detail": "out of cheese"}', "out of cheese"),
        ('{"object": "error", "message": "out of cheese"}', "out of cheese"),
        ('[{"error": {"message": "out of cheese", "status": "INVALID"}}]', "out of cheese"),
        ('"out of cheese"', "out of cheese"),
        ("out of\n  cheese", "out of cheese"),
        ("<html><head><title>502 Bad &amp; Ugly</title></head><body><h1>x</h1></body></html>", "502 Bad & Ugly"),
        (
            "<!DOCTYPE html><html><body><h1>413 Request Entity\nToo Large</h1></body></html>",
            "413 Request Entity Too Large",
        ),
        ("<html></html>", ""),
        ("", ""),
        ("null", ""),
        ("{}", ""),
        ('{"error": {}}', ""),
        ('{"error": null}', ""),
    ],
)
def test_a_server_s_own_words_are_found_in_any_body(body: str, words: str) -> None:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    assert error_detail(value, body) == words


def test_a_long_body_is_cut() -> None:
    assert len(error_detail(None, "word " * 10_000)) <= 300
