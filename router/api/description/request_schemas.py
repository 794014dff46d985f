"""What requests for workers have, as OpenAPI describes it: the fields that most engines know.

Each engine knows more. The router passes all of them on, and the engine refuses what it does not take.
"""

from typing import Any

_Json = dict[str, Any]

# Endpoints, below /v1, whose fields stand here; those of the others are the engine's.
SCHEMAS = {"chat/completions": "ChatRequest", "completions": "CompletionRequest", "embeddings": "EmbeddingsRequest",
           "responses": "ResponseRequest", "responses/input_tokens": "ResponseRequest",
           "messages": "MessageRequest", "messages/count_tokens": "CountRequest"}  # fmt: skip


def request_schemas() -> _Json:
    """The schemas by name."""
    message = {
        "type": "object",
        "properties": {"role": {"type": "string"}, "content": {"type": ["string", "array", "null"]}},
        "required": ["role"],
    }
    chat = {
        "messages": {"type": "array", "items": message, "description": "the conversation so far"},
        "max_completion_tokens": _count("the newer name of max_tokens"),
        "logprobs": _flag("log-probabilities of the answer's tokens"),
        "top_logprobs": {**_count("alternatives for each token", least=0), "maximum": 20},
        "tools": _objects("functions that the model may call, where the engine takes them"),
        "tool_choice": {"type": ["string", "object"], "description": "none, auto, required, or one function"},
        "response_format": {"type": "object", "description": "a JSON schema for the answer, where the engine takes it"},
    }
    completion = {
        "prompt": {"type": ["string", "array"], "description": "a text, token ids, or a list of either"},
        "logprobs": {**_count("alternatives for each token", least=0), "maximum": 20},
        "echo": _flag("the answer begins with the prompt, where the engine takes it"),
    }
    embeddings = {
        "input": {"type": ["string", "array"], "description": "a text, token ids, or a list of either"},
        "encoding_format": {"enum": ["float", "base64"]},
        "dimensions": _count("of each vector, where the model can be cut"),
    }
    responses = {
        "input": {"type": ["string", "array"], "description": "a text, or the items of a conversation"},
        "instructions": {"type": "string", "description": "the first system message"},
        "previous_response_id": {"type": "string", "description": "the response that this goes on with"},
        "store": _flag("false: the response is not kept"),
        "stream": _STREAM,
        "max_output_tokens": _count("of the answer, reasoning included"),
        "temperature": _number(0, 2, "0 takes the likeliest token each time"),
        "top_p": _number(0, 1, "draw from the likeliest tokens that have this much of the probability"),
        "tools": _objects("functions that the model may call, where the engine takes them"),
        "tool_choice": {"type": ["string", "object"], "description": "none, auto, required, or one function"},
        "text": {"type": "object", "description": "format: a JSON schema for the answer, where the engine takes it"},
        "reasoning": {"type": "object", "description": "effort, where the engine takes it"},
    }
    counted = {
        "messages": {"type": "array", "items": message, "minItems": 1, "description": "the conversation so far"},
        "system": {"type": ["string", "array"], "description": "instructions before the conversation"},
        "tools": _objects("tools with a name and an input_schema, where the engine takes them"),
        "tool_choice": {"type": "object", "description": "type: auto, any, tool or none"},
        "thinking": {"type": "object", "description": "type: enabled, adaptive or disabled, where the model can"},
    }
    messages = {
        **counted,
        "max_tokens": _count("of the answer"),
        "stream": _STREAM,
        "temperature": _number(0, 1, "0 takes the likeliest token each time"),
        "top_p": _number(0, 1, "draw from the likeliest tokens that have this much of the probability"),
        "top_k": _count("draw from so many of the likeliest tokens"),
        "stop_sequences": {"type": "array", "items": {"type": "string"}, "description": "texts that end the answer"},
        "output_config": {"type": "object", "description": "format: a JSON schema for the answer; effort"},
    }
    return {
        "MessageRequest": _request(messages, ["messages", "max_tokens"], _TRANSLATED),
        "CountRequest": _request(counted, ["messages"], _TRANSLATED),
        "Request": _request({"stream": _STREAM}, []),
        "ResponseRequest": _request(responses, ["input"]),
        "ChatRequest": _request({**chat, **_sampling()}, ["messages"]),
        "CompletionRequest": _request({**completion, **_sampling()}, ["prompt"]),
        "EmbeddingsRequest": _request(embeddings, ["input"]),
    }


_STREAM: _Json = {"type": "boolean", "description": "server-sent events, in place of one answer at the end"}


_PASSED_ON = "Further fields are passed on to the engine."
_TRANSLATED = "Further fields change nothing."


def _request(fields: _Json, required: list[str], others: str = _PASSED_ON) -> _Json:
    model = {"type": "string", "description": "a name that /v1/models lists; left out: the first one"}
    first = {name: fields[name] for name in required}
    return {
        "type": "object",
        "description": others,
        "properties": {"model": model, **first, **fields},
        "required": required,
    }


def _sampling() -> _Json:
    return {
        "stream": _STREAM,
        "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
        "max_tokens": _count("of the answer"),
        "temperature": _number(0, 2, "0 takes the likeliest token each time"),
        "top_p": _number(0, 1, "draw from the likeliest tokens that have this much of the probability"),
        "n": _count("answers to the same prompt"),
        "stop": {"type": ["string", "array"], "description": "texts that end the answer"},
        "seed": {"type": "integer", "description": "the same seed draws the same tokens"},
        "presence_penalty": _number(-2, 2, "above 0: less of what was said at all"),
        "frequency_penalty": _number(-2, 2, "above 0: less of what was said often"),
        "logit_bias": {"type": "object", "description": "by token id: what is added to its logit"},
    }


def _count(description: str, *, least: int = 1) -> _Json:
    return {"type": "integer", "minimum": least, "description": description}


def _number(least: float, most: float, description: str) -> _Json:
    return {"type": "number", "minimum": least, "maximum": most, "description": description}


def _flag(description: str) -> _Json:
    return {"type": "boolean", "description": description}


def _objects(description: str) -> _Json:
    return {"type": "array", "items": {"type": "object"}, "description": description}
