"""Every field of a request to /v1/responses: obeyed, ignored or refused, and fields that have another name here.

The page docs/reference/responses-fields.md is generated from these tables. A field of none of them, such as `top_k`,
goes to the engine as it is.
"""

from collections.abc import Mapping

OBEYED: Mapping[str, str] = {
    "model": "as for chat completions",
    "input": "a string, or items: messages (text, and images if the engine takes them), function calls, their outputs, "
    "reasoning, and references to items of kept responses",
    "instructions": "the first system message; not carried over from a previous response",
    "previous_response_id": "the conversation goes on after that response, as long as it is kept",
    "store": "false: the response is not kept",
    "stream": "typed server-sent events",
    "max_output_tokens": "at least 1; tokens of reasoning count",
    "temperature": "as the engine takes it",
    "top_p": "as the engine takes it",
    "tools": "of type function, also within a namespace; other types are refused",
    "tool_choice": "none, auto, required, a function, or allowed_tools",
    "parallel_tool_calls": "as the engine takes it",
    "text": "format: text, json_object, json_schema; verbosity is ignored",
    "reasoning": "effort, as the engine takes it; summary is ignored: reasoning is in reasoning_text",
    "include": "message.output_text.logprobs; other values that the API knows are ignored",
    "top_logprobs": "0 to 20 alternatives of each token",
    "metadata": "returned with the response",
    "user": 'names the session where [router] policy = "session"; goes to the engine',
    "prompt_cache_key": "stands for `user` where there is none",
}

IGNORED: Mapping[str, str] = {
    "client_metadata": "information of Codex about itself",
    "safety_identifier": "returned with the response",
    "service_tier": "there is one tier; the header X-Priority sets a request's priority",
    "stream_options": "it has only include_obfuscation, and events have none",
    "max_tool_calls": "it limits tools that the server runs, and there are none",
    "prompt_cache_options": "the engine's cache has no options",
    "prompt_cache_retention": "the engine's cache keeps what it has room for",
}

REFUSED: Mapping[str, str] = {
    "background": "responses are generated while the client waits; the batch API takes requests that may wait",
    "background_options": "there are no background responses",
    "conversation": "use previous_response_id",
    "context_management": "nothing is compacted",
    "truncation": "nothing is dropped from the input; expected 'disabled'",
    "prompt": "there are no stored prompt templates; use instructions and input",
    "moderation": "nothing is moderated",
    "image": "images go to the engine unchanged",
    "access_programs": "there are none",
}

# Values of refused fields that ask for nothing, besides null, false, and what is empty.
HARMLESS_VALUES: Mapping[str, tuple[bytes, ...]] = {"truncation": (b'"disabled"',)}

# Fields of chat completions that have another name here, or none.
RENAMED: Mapping[str, str] = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "functions": "tools",
    "function_call": "tool_choice",
    "logprobs": 'include = ["message.output_text.logprobs"]',
    **dict.fromkeys(("n", "best_of"), "one request for each answer"),
    **dict.fromkeys(("add_generation_prompt", "audio", "continue_final_message", "echo", "modalities",
                     "return_token_ids", "stream_token_ids"), "/v1/chat/completions"),
}  # fmt: skip

INCLUDABLE = (
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
)
LOGPROBS = "message.output_text.logprobs"
