"""What the router reads of a request's body. What it does not read is never dropped from what is forwarded."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from ....core.net.wording import plain

CHAT, COMPLETIONS, MESSAGES, RESPONSES, OTHER = "chat", "completions", "messages", "responses", "other"
EMBEDDINGS, TOKENS = "embeddings", "tokens"
_KINDS = (
    ("/chat/completions", CHAT),
    ("/completions", COMPLETIONS),
    ("/messages", MESSAGES),
    ("/responses", RESPONSES),
    ("/embeddings", EMBEDDINGS),
    ("/tokenize", TOKENS),
    ("/detokenize", TOKENS),
)

_NOT_GIVEN = frozenset((b"null", b"[]", b"{}", b'""', b"false", b"0"))
# Longer ones are taken as they are written: decoded, they may take many times their size.
_MOST_DECODED = 4 << 20  # bytes
MOST_CONTAINERS = 50_000  # objects and lists
_MOST_KEYS = _MOST_STRINGS = 500_000
_KEY_ENDS = (b'":', b'" ', b'"\t', b'"\n', b'"\r')  # and of some strings with quotation marks in them
Decoded = TypeVar("Decoded")
Scalar = int | float | str | bool | None
TOO_DEEP = "the body is nested too deep"
_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})  # besides 1: for vLLM and SGLang, whose `stream` pydantic reads
# Fields by which vLLM, SGLang and others constrain the text, each with its own syntax.
_CONSTRAINTS = (
    "ebnf", "grammar", "guided_choice", "guided_decoding", "guided_grammar", "guided_json", "guided_regex",
    "json_schema", "regex", "structural_tag", "structured_outputs",
)  # fmt: skip


class EnvelopeError(ValueError):
    """The body cannot be read: the client's mistake (400). The message says what is wrong, `param` in which field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


class Envelope(msgspec.Struct, kw_only=True, gc=False):
    """The fields that the router knows. Values that the engine will refuse are kept, or read as absent."""

    # Set from the path, not read from the body.
    kind: Any = msgspec.field(name="(kind)", default=OTHER)
    is_read: Any = msgspec.field(name="(is_read)", default=True)  # False: a body that is not JSON, such as multipart

    model: str | None = None
    stream: Scalar = None
    stream_options: Raw = Raw()
    user: Scalar = None
    max_tokens: Scalar = None
    max_completion_tokens: Scalar = None
    max_output_tokens: Scalar = None
    min_tokens: Scalar = None
    n: Scalar = None
    best_of: Scalar = None
    stop: Raw = Raw()
    include_stop_str_in_output: Scalar = None
    no_stop_trim: Scalar = None
    ignore_eos: Scalar = None
    seed: Scalar = None
    encoding_format: Scalar = None
    temperature: Scalar = None
    echo: Scalar = None
    logprobs: Scalar = None
    top_logprobs: Scalar = None
    prompt_logprobs: Scalar = None
    suffix: Raw = Raw()
    continue_final_message: Scalar = None
    add_generation_prompt: Scalar = None
    return_token_ids: Scalar = None
    stream_token_ids: Scalar = None
    continue_token_ids: Raw = Raw()
    separate_reasoning: Scalar = None
    tool_choice: Raw = Raw()

    messages: Raw = Raw()
    prompt: Raw = Raw()
    input: Raw = Raw()
    system: Raw = Raw()
    instructions: Raw = Raw()
    tools: Raw = Raw()
    text: Raw = Raw()  # the prompt of SGLang's /generate, the format of /v1/responses
    input_ids: Raw = Raw()
    response_format: Raw = Raw()
    ebnf: Raw = Raw()
    grammar: Raw = Raw()
    guided_choice: Raw = Raw()
    guided_decoding: Raw = Raw()
    guided_grammar: Raw = Raw()
    guided_json: Raw = Raw()
    guided_regex: Raw = Raw()
    json_schema: Raw = Raw()
    regex: Raw = Raw()
    structural_tag: Raw = Raw()
    structured_outputs: Raw = Raw()

    @property
    def streams(self) -> bool:
        """Whether the answer is to come as events."""
        stream = self.stream
        return stream.lower() in _TRUE if isinstance(stream, str) else stream == 1

    @property
    def generates(self) -> bool:
        """Whether the answer has tokens that are generated one by one, as far as its form is known."""
        return self.kind not in (EMBEDDINGS, TOKENS)

    @property
    def computes(self) -> bool:
        """Whether the model has anything to do for it: texts and tokens are made of each other without."""
        return bool(self.kind != TOKENS)

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        return max(whole(self.n) or 1, whole(self.best_of) or 1)

    @property
    def limit(self) -> int | None:
        """The most tokens to generate; None where the client sets no bound."""
        for value in (self.max_completion_tokens, self.max_tokens, self.max_output_tokens):
            if value is not None and (limit := whole(value)) is not None:
                return limit
        return None

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        stop = loosely(self.stop) if self.stop else None
        stops = stop if isinstance(stop, list) else [stop]
        return [stop for stop in stops if isinstance(stop, str) and stop]

    @property
    def is_greedy(self) -> bool:
        """Whether each token is to be the most probable one, so that it is the same when it is generated again."""
        return self.temperature == 0 and self.temperature is not False

    @property
    def keeps_stop(self) -> bool:
        """Whether the stop string that ends an answer is part of it."""
        return self.include_stop_str_in_output is True or self.no_stop_trim is True

    @property
    def wants_usage(self) -> bool:
        """Whether the client itself asks for token counts at the end of the stream."""
        options = loosely(self.stream_options) if is_given(self.stream_options) else None
        return isinstance(options, dict) and options.get("include_usage") is True

    @property
    def wants_token_ids(self) -> bool:
        """Whether the client itself asks for the ids of the tokens, of slurminfer's engine or of vLLM."""
        return self.stream_token_ids is not None or self.return_token_ids is True

    @property
    def wants_logprobs(self) -> bool:
        """Whether each token is to come with its probability. For completions 0 asks for that of the token itself."""
        return (self.logprobs is not None and self.logprobs is not False) or self.prompt_logprobs is not None

    @property
    def constraint(self) -> str | None:
        """The field that prescribes the form of the text; None if there is none."""
        if is_given(self.response_format) and not _is_plain(self.response_format):
            return "response_format"
        if is_given(self.tool_choice) and bytes(self.tool_choice) not in (b'"none"', b'"auto"'):
            return "tool_choice"
        return next((name for name in _CONSTRAINTS if is_given(getattr(self, name))), None)


_envelopes = msgspec.json.Decoder(Envelope)
_fields = msgspec.json.Decoder(dict[str, Raw])
_anything = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


def read_envelope(path: str, content_type: str, body: bytes) -> Envelope:
    """What is known of a request by its body. Of a key that is there twice the last counts. Raises EnvelopeError."""
    kind = _kind_of(path)
    if kind == OTHER and content_type[:10].lower() == "multipart/":
        return Envelope(kind=kind, is_read=False)
    _require_few_keys(body)
    envelope: Envelope = decoded(_envelopes, body)
    envelope.kind, envelope.is_read = kind, True
    return envelope


def read_as(decoder: msgspec.json.Decoder[Decoded], body: bytes) -> Decoded:
    """A whole body as what a decoder makes of it, which may be many strings. Raises EnvelopeError."""
    _require_few_keys(body)
    if len(body) > 4 * _MOST_STRINGS and body.count(b'"') - body.count(b'\\"') > 2 * _MOST_STRINGS:
        raise EnvelopeError(f"the body has too many strings: expected at most {_MOST_STRINGS}")
    return decoded(decoder, body)


@lru_cache(maxsize=64)
def _kind_of(path: str) -> str:
    return next((kind for end, kind in _KINDS if path.endswith(end)), OTHER)


def _require_few_keys(body: bytes) -> None:
    """Raise EnvelopeError for a body that would take many times its size when it is edited."""
    is_suspicious = len(body) > 4 * _MOST_KEYS and body.count(b'"') > 2 * _MOST_KEYS
    if is_suspicious and sum(map(body.count, _KEY_ENDS)) > _MOST_KEYS:
        raise EnvelopeError(f"the body has too many keys: expected at most {_MOST_KEYS}")


def decoded(decoder: msgspec.json.Decoder[Decoded], body: bytes) -> Decoded:
    """`body` as what a decoder makes of it, whatever it takes to edit it. Raises EnvelopeError."""
    if not body:
        raise EnvelopeError("the body is empty: expected a JSON object")
    try:
        if not body.isascii():
            body.decode()  # what is skipped is not checked by the decoder
        return decoder.decode(body)
    except UnicodeDecodeError as error:
        raise EnvelopeError(f"the body is not UTF-8: byte {error.start} cannot be decoded") from error
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from error
    except RecursionError as error:
        raise EnvelopeError(TOO_DEEP) from error
    except ValueError as error:  # DecodeError, numbers of thousands of digits
        raise EnvelopeError(f"the body is not valid JSON: {error}") from error


def _explained(message: str) -> EnvelopeError:
    """msgspec's message, with the field first."""
    text, _, path = message.partition(" - at `$.")
    if not path:
        return EnvelopeError(f"the body is not valid: {plain(text)}; expected a JSON object")
    param = path.rstrip("`")
    return EnvelopeError(f"{param}: {plain(text)}", param)


def loosely(raw: Raw) -> Any:
    """The value of a field, or the text of what can be no value here."""
    if is_big(raw):
        return bytes(raw).decode(errors="replace")
    try:
        return _anything.decode(raw)
    except (ValueError, RecursionError):
        return bytes(raw).decode(errors="replace")


def is_big(raw: Raw) -> bool:
    """Whether a field is taken as it is written: decoded, it may take many times its size."""
    size = len(raw)
    if size <= MOST_CONTAINERS:
        return False
    data = bytes(raw)
    return (
        size > _MOST_DECODED
        or data.count(b"{") + data.count(b"[") > MOST_CONTAINERS
        or data.count(b'"') - data.count(b'\\"') > 4 * MOST_CONTAINERS  # strings in a list
    )


def with_usage(body: bytes, envelope: Envelope) -> bytes:
    """The body of a streamed request with `stream_options.include_usage`, so that the token counts come at the end."""
    if envelope.wants_usage:
        return body
    try:
        options: dict[str, Any] = _fields.decode(envelope.stream_options) if is_given(envelope.stream_options) else {}
    except (ValueError, RecursionError):
        return body  # the engine will refuse it
    is_new = not envelope.stream_options  # not even null
    return with_field(body, "stream_options", {**options, "include_usage": True}, is_new=is_new)


def with_field(body: bytes, name: str, value: Any, *, is_new: bool) -> bytes:
    """The body with a field set. `is_new`: it is certainly not there yet, so that nothing need be decoded."""
    if not is_new:
        return with_fields(body, {name: value})
    start = body.index(b"{") + 1
    rest = body[start:]
    comma = b"" if rest.lstrip().startswith(b"}") else b","
    return b"".join((body[:start], _encode(name), b":", _encode(value), comma, rest))


def with_fields(body: bytes, fields: Mapping[str, Any]) -> bytes:
    """The body with fields set, or taken out where the value is UNSET. All others stay, byte for byte."""
    raw = decoded(_fields, body)
    for name, value in fields.items():
        if value is msgspec.UNSET:
            raw.pop(name, None)
        else:
            raw[name] = value
    return _encode(raw)


def is_given(raw: Raw) -> bool:
    """Whether a field asks for anything."""
    size = len(raw)
    return size >= 8 or (size > 0 and bytes(raw) not in _NOT_GIVEN)


def whole(value: Any) -> int | None:
    """An integer, also one that is written as 10.0; None for anything else."""
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None


def _is_plain(response_format: Raw) -> bool:
    value = loosely(response_format)
    return isinstance(value, dict) and value.get("type") == "text"
