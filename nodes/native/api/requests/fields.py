"""Every request field of OpenAI's, vLLM's and SGLang's APIs, and some of other engines: obeyed, refused or harmless.

A field that would change the answer and is not implemented is refused by its name, unless its value asks for nothing. A
field that cannot change the answer is ignored, and so is one that no API defines. The page
docs/reference/api-fields.md is generated from these tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .typos import meant

Values = tuple[Any, ...]
# What most fields say where they ask for nothing.
NOTHING: Values = (None, False, 0, "", [], {})
_NULL: Values = (None,)
_TRUE: Values = (None, True)

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Obeyed:
    """A field that does what its API says. `endpoint`: the only one that has it; elsewhere it is refused."""

    note: str
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A field that is an error, unless its value is in `nothing`."""

    note: str = ""
    nothing: Values = NOTHING


OBEYED: Mapping[str, Obeyed] = {
    "model": Obeyed("the name in /v1/models; another is 404"),
    "messages": Obeyed("at most 4,096, of text only", CHAT),
    "prompt": Obeyed("a string, token ids, or a list of either", COMPLETIONS),
    "max_tokens": Obeyed(
        "at least 1, or 0 with echo or prompt_logprobs; default: 16, or for chats the rest of the context"
    ),
    "max_completion_tokens": Obeyed("the newer name of max_tokens, which it overrides", CHAT),
    "n": Obeyed("1 to 128; at most 1,024 sequences in all, prompts times n"),
    "best_of": Obeyed(
        "n to 128: returns the n answers with the highest average log-probability of a token; not streamed"
    ),
    "echo": Obeyed("true: the answer begins with the prompt's text, and logprobs with its tokens", COMPLETIONS),
    "return_tokens_as_token_ids": Obeyed("true: tokens in logprobs are written `token_id:5` (vLLM)"),
    "return_token_ids": Obeyed("true: adds token_ids to each choice, and prompt_token_ids, once in a stream (vLLM)"),
    "cache_salt": Obeyed("at most 1,024 characters; only requests with the same one share the prefix cache (vLLM)"),
    "prompt_logprobs": Obeyed("0 to 20 alternatives for each token of the prompt; not streamed (vLLM)"),
    "logit_bias": Obeyed("at most 65,536 token ids with values from -100 (never) to 100 (no other token)"),
    "allowed_token_ids": Obeyed("at most 65,536 token ids; no other token is generated"),
    "bad_words": Obeyed("at most 128 strings of at most 128 characters, which are not generated"),
    "min_tokens": Obeyed("at most max_tokens; before, end tokens, stop_token_ids and stop do not end the answer"),
    "min_new_tokens": Obeyed("the same as min_tokens (SGLang)"),
    "temperature": Obeyed("0 to 2; 0 is greedy"),
    "top_p": Obeyed("0 to 1"),
    "top_k": Obeyed("at least -1; 0 and -1 mean all tokens"),
    "min_p": Obeyed("0 to 1"),
    "presence_penalty": Obeyed("-2 to 2"),
    "frequency_penalty": Obeyed("-2 to 2"),
    "repetition_penalty": Obeyed("more than 0, at most 10"),
    "seed": Obeyed("an integer of 64 bits; each of n choices has a seed of its own"),
    "stop": Obeyed("at most 64 strings of at most 1,024 characters"),
    "stop_token_ids": Obeyed("at most 1,024 token ids of the vocabulary"),
    "ignore_eos": Obeyed("true: the model's end tokens do not end the answer"),
    "include_stop_str_in_output": Obeyed("true: the answer ends with the stop string"),
    "no_stop_trim": Obeyed("the same as include_stop_str_in_output (SGLang)"),
    "skip_special_tokens": Obeyed("false: special tokens are part of the text"),
    "add_special_tokens": Obeyed(
        "whether special tokens such as BOS are added to the prompt; default: true for completions, false for chats"
    ),
    "logprobs": Obeyed("completions: 0 to 20 alternatives, and always the sampled token; chat: true or false"),
    "top_logprobs": Obeyed("0 to 20 alternatives, with logprobs = true", CHAT),
    "response_format": Obeyed("text, json_object, json_schema or structural_tag: see Structured output"),
    "structured_outputs": Obeyed("one of json, regex, choice, grammar, json_object, structural_tag (vLLM)"),
    "guided_json": Obeyed("a JSON schema, or its text (vLLM)"),
    "guided_regex": Obeyed("a regular expression for the whole answer (vLLM)"),
    "guided_choice": Obeyed("a list of strings, one of which is the answer (vLLM)"),
    "guided_grammar": Obeyed("a grammar in Lark, or in EBNF as llama.cpp and SGLang write it (vLLM)"),
    "guided_whitespace_pattern": Obeyed("a regular expression for whitespace in JSON (vLLM)"),
    "json_schema": Obeyed("the same as guided_json (SGLang)"),
    "regex": Obeyed("the same as guided_regex (SGLang)"),
    "ebnf": Obeyed("a grammar in EBNF (SGLang)"),
    "stream": Obeyed("server-sent events"),
    "stream_options": Obeyed("include_usage, continuous_usage_stats; include_obfuscation is ignored"),
    "stream_token_ids": Obeyed("true: each event of a stream has `token_ids`; the router uses it"),
    "continue_token_ids": Obeyed(
        "the answer's first tokens, which are not sent again; of several choices, a list for each; the router uses it"
    ),
    "finished_choices": Obeyed(
        "with continue_token_ids: the indexes of choices that are not continued; streamed only; the router uses it"
    ),
    "add_generation_prompt": Obeyed("default: true, or false with continue_final_message", CHAT),
    "continue_final_message": Obeyed("true: the model continues the last message", CHAT),
    "chat_template_kwargs": Obeyed('variables of the chat template, such as {"enable_thinking": false}', CHAT),
    "tools": Obeyed("at most 512 functions", CHAT),
    "tool_choice": Obeyed('"none", "auto", "required", a function, or allowed_tools', CHAT),
    "parallel_tool_calls": Obeyed("false: at most one call in an answer", CHAT),
    "reasoning_effort": Obeyed(
        "goes to chat templates that use it; none turns reasoning off if the template can", CHAT
    ),
    "separate_reasoning": Obeyed("false: reasoning stays in the text", CHAT),
    "include_reasoning": Obeyed("false: reasoning is left out", CHAT),
    "stream_reasoning": Obeyed("false: reasoning is sent in one event, when it ends", CHAT),
}

# Of /v1/embeddings. What the other tables have besides is refused there, unless its value asks for nothing.
EMBEDDINGS_OBEYED: Mapping[str, str] = {
    "model": "the name in /v1/models; another is 404",
    "input": "a string, token ids, or a list of up to 2,048 of either; none may be empty",
    "encoding_format": "float (the default) or base64 (float32, little-endian)",
    "dimensions": "sizes that config.json allows (is_matryoshka, matryoshka_dimensions), or the full size",
    "add_special_tokens": "whether special tokens such as BOS or EOS are added, as tokenizer.json says; default: true",
}

HARMLESS: Mapping[str, str] = {
    **dict.fromkeys(
        ("custom_labels", "extra_key", "metadata", "request_id", "rid", "safety_identifier", "session_id", "user"),
        "only names the request or its user",
    ),
    **dict.fromkeys(("prediction", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "priority",
                     "service_tier"), "changes when the answer comes, not what it is"),
    "verbosity": "only OpenAI's models know it; write it into the messages",
    **dict.fromkeys(("data_parallel_rank", "disagg_prefill_dp_rank", "routed_dp_rank"), "there is one engine"),
    **dict.fromkeys(("images_config", "max_dynamic_patch", "media_io_kwargs", "min_dynamic_patch",
                     "mm_processor_kwargs", "return_mm_kwargs", "use_audio_in_video"), "without images or audio"),
    "guided_decoding_backend": "there is one",
    "keep_alive": "the model stays loaded",
    **dict.fromkeys(("n_ctx", "num_ctx"), "the context is as long as the model allows"),
    "length_penalty": "for beam search only",
    "routed_experts_prompt_start": "without return_routed_experts",
    "routed_experts_start_len": "without return_routed_experts",
    "spaces_between_special_tokens": "tokenizers of tokenizer.json add none",
    "store": "nothing is stored",
    "stream_interval": "every token is sent when it is there",
    "truncation_side": "without truncate_prompt_tokens",
}  # fmt: skip

_KWARGS = Refused("put it into chat_template_kwargs", _NULL)
_NOT_TAKEN = Refused()

REFUSED: Mapping[str, Refused] = {
    # OpenAI
    **dict.fromkeys(("audio", "web_search_options"), _NOT_TAKEN),
    "suffix": Refused("write the prompt with the model's own fill-in-the-middle tokens, and the suffix in it"),
    "functions": Refused("use tools"),
    "instructions": Refused("write it into messages, with the role system"),
    "max_output_tokens": Refused("use max_tokens", _NULL),
    "previous_response_id": Refused("it is for /v1/responses; send the whole conversation here"),
    "function_call": Refused("use tool_choice", (*NOTHING, "none", "auto")),
    "modalities": Refused(nothing=(*NOTHING, ["text"])),
    "moderation": _NOT_TAKEN,
    # vLLM
    **dict.fromkeys(("chat_template", "documents", "ec_transfer_params",
                     "guided_decoding", "kv_transfer_params", "logits_processors",
                     "prompt_embeds", "repetition_detection", "return_prompt_text",
                     "return_token_offsets", "structural_tag",
                     "truncate_prompt_tokens", "use_beam_search", "vllm_xargs", "watermarking"), _NOT_TAKEN),
    **dict.fromkeys(("logprob_token_ids", "thinking_token_budget"), Refused(nothing=_NULL)),
    # SGLang
    **dict.fromkeys(("custom_logit_processor", "custom_params", "lora_path",
                     "ngram_corpus_id", "return_cached_tokens_details", "return_hidden_states",
                     "return_meta_info", "return_prompt_token_ids", "return_routed_experts", "return_text_in_logprobs",
                     "session_params", "stop_regex"), _NOT_TAKEN),
    **dict.fromkeys(("bootstrap_host", "bootstrap_port", "bootstrap_room", "input_embeds", "input_ids", "reasoning",
                     "task"), Refused(nothing=_NULL)),
    "max_new_tokens": Refused("use max_tokens", _NULL),
    "sampling_params": Refused("put its fields beside the others"),
    "sampling_seed": Refused("use seed", _NULL),
    # Others: transformers, TGI, llama.cpp, Ollama
    **dict.fromkeys(("adapter_id", "decoder_input_details", "details", "diversity_penalty", "dry_allowed_length",
                     "dry_base", "dry_multiplier", "dry_penalty_last_n", "dry_sequence_breakers", "dynatemp_exponent",
                     "dynatemp_range", "encoder_repetition_penalty", "epsilon_cutoff", "eta_cutoff", "format",
                     "grammar", "lora", "mirostat", "mirostat_eta", "mirostat_tau", "n_keep", "n_probs",
                     "no_repeat_ngram_size", "penalty_alpha", "post_sampling_probs", "return_full_text",
                     "samplers", "smoothing_factor", "top_a", "top_n_tokens", "truncate", "watermark",
                     "xtc_probability", "xtc_threshold"), _NOT_TAKEN),
    **dict.fromkeys(("tfs_z", "typical_p"), Refused(nothing=(*NOTHING, 1))),
    "do_sample": Refused("for greedy decoding, use temperature = 0", _TRUE),
    **dict.fromkeys(("enable_thinking", "think", "thinking"), _KWARGS),
    # Anthropic, and clients that put the system prompt beside the messages
    **dict.fromkeys(("system", "system_prompt"), Refused("write it into messages, with the role system")),
    **dict.fromkeys(("output_config", "output_format"), Refused("use response_format")),
    "extra_body": Refused("it is an argument of OpenAI's client: put its fields beside the others"),
    "n_predict": Refused("use max_tokens", _NULL),
    "num_beams": Refused(nothing=(*NOTHING, 1)),
    "num_predict": Refused("use max_tokens", _NULL),
    "options": Refused("put its fields beside the others"),
    "repeat_last_n": Refused(nothing=_NULL),
    "repeat_penalty": Refused("use repetition_penalty", (None, 1)),
    "stop_sequences": Refused("use stop"),
}  # fmt: skip


_INSTEAD = {
    ("prompt", CHAT): "expected messages",
    ("messages", COMPLETIONS): "expected prompt",
    ("max_completion_tokens", COMPLETIONS): "expected max_tokens",
}
_MOST_NAMES = 200  # of a request that are looked at for typing errors


def is_defined(name: str) -> bool:
    """Whether an API has such a field."""
    return name in OBEYED or name in REFUSED or name in HARMLESS


def _says_something(value: Any) -> bool:
    """Whether a field of this value would count: a number of 0 does, such as a temperature."""
    return value not in NOTHING or (value == 0 and value is not False)


def refusal(raw: Mapping[str, Any], endpoint: str) -> tuple[str, str] | None:
    """The first field of a request that must be refused, and why; None if there is none."""
    unknown = [name for name in islice(raw, _MOST_NAMES) if not is_defined(name) and _says_something(raw[name])]
    for name in unknown:
        if (field := meant(name, OBEYED)) is not None and field not in raw:
            return name, f"there is no such field; {field} is probably meant"
    for name, value in raw.items():
        if name in REFUSED:
            rule = REFUSED[name]
            if value not in rule.nothing:
                return name, "not supported by this engine; " + (rule.note or "leave it out")
        elif name in OBEYED and OBEYED[name].endpoint not in (None, endpoint) and value not in NOTHING:
            instead = _INSTEAD.get((name, endpoint), "leave it out")
            return name, f"only {OBEYED[name].endpoint} has this field; {instead}"
    return None
