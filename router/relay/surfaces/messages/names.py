"""Fields of chat completions in requests of Anthropic's API, and errors of engines about them."""

import re
from collections.abc import Mapping
from typing import Any

# Fields that engines have besides Anthropic's: they go to the engine as they are.
PASSED_ON = (
    "seed",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "min_tokens",
    "stop_token_ids",
    "ignore_eos",
)

UNKNOWN = "unknown_parameter"  # the code of an error about a field of chat completions, which is named as it is

# Fields of chat completions that have another name here.
RENAMED: Mapping[str, str] = {
    "stop": "stop_sequences",
    "max_completion_tokens": "max_tokens",
    "response_format": "output_config.format",
    "reasoning_effort": "output_config.effort",
    "functions": "tools",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
}

_WORDS = (
    (re.compile(r"\bresponse_format(?:\.json_schema)?\b"), "output_config.format"),
    (re.compile(r"\btool_choice\.function\.name\b"), "tool_choice.name"),
    (re.compile(r"\b(tools\[\d+\])\.function\.parameters\b"), r"\1.input_schema"),
    (re.compile(r"\b(tools\[\d+\])\.function\b"), r"\1"),
    (re.compile(r"\bstop(?= =|\[\d+\])"), "stop_sequences"),
)


def renamed_answer(answer: dict[str, Any]) -> dict[str, Any]:
    """An error answer of OpenAI's shape that names fields as they are called here."""
    error = answer.get("error")
    if not isinstance(error, dict) or error.get("code") == UNKNOWN:
        return answer
    if not isinstance(message := error.get("message"), str):
        return answer
    for pattern, name in _WORDS:
        message = pattern.sub(name, message)
    return {**answer, "error": {**error, "message": message}}
