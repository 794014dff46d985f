"""A request of Anthropic's API as it comes. Fields that are not listed here change nothing of the answer."""

import msgspec
from msgspec import Raw

from ...stream.envelope import EnvelopeError, read_as
from ..translation import TranslationError

MOST_BYTES = 32 * 2**20  # of a request: Anthropic's own bound
# Objects and lists, counted by their brackets, those in texts included: decoded, each may take a hundred bytes.
_MOST_CONTAINERS = 1_000_000


class Source(msgspec.Struct):
    """Where an image or a document is."""

    type: str = ""
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: Raw = Raw()


class Block(msgspec.Struct):
    """A piece of content, of any type."""

    type: str
    text: str | None = None
    source: Source | str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = Raw()
    tool_use_id: str | None = None
    tool_name: str | None = None
    content: Raw = Raw()
    is_error: bool | None = None
    thinking: str | None = None
    title: str | None = None
    context: str | None = None


class Message(msgspec.Struct):
    """A turn, or a part of one."""

    role: str
    content: str | list[Block]


class Tool(msgspec.Struct):
    """A tool. Those with another type than `custom` are defined by Anthropic."""

    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: Raw = Raw()
    strict: bool | None = None


class ToolChoice(msgspec.Struct):
    """Whether and which tools are to be called."""

    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct):
    """Whether the model is to think first."""

    type: str


class Format(msgspec.Struct):
    """The form that the answer must have."""

    type: str
    schema: Raw = Raw()


class OutputConfig(msgspec.Struct):
    """How the answer is to be."""

    effort: str | None = None
    format: Format | None = None


class Metadata(msgspec.Struct):
    """Of the user."""

    user_id: str | None = None


class Asked(msgspec.Struct):
    """The whole request."""

    messages: list[Message]
    model: str | None = None
    max_tokens: int | None = None
    system: str | list[Block] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    metadata: Metadata | None = None
    output_config: OutputConfig | None = None
    output_format: Format | None = None  # an older name of output_config.format
    mcp_servers: Raw = Raw()
    container: Raw = Raw()

    # Of chat completions: passed on to the engine, or refused with the name that they have here (names.py).
    seed: Raw = Raw()
    min_p: Raw = Raw()
    presence_penalty: Raw = Raw()
    frequency_penalty: Raw = Raw()
    repetition_penalty: Raw = Raw()
    logit_bias: Raw = Raw()
    min_tokens: Raw = Raw()
    stop_token_ids: Raw = Raw()
    ignore_eos: Raw = Raw()
    stop: Raw = Raw()
    max_completion_tokens: Raw = Raw()
    response_format: Raw = Raw()
    reasoning_effort: Raw = Raw()
    functions: Raw = Raw()
    parallel_tool_calls: Raw = Raw()


_requests = msgspec.json.Decoder(Asked)
_contents = msgspec.json.Decoder(str | list[Block] | None)


def read(body: bytes) -> Asked:
    """The request. Raises TranslationError for what is none."""
    if len(body) > MOST_BYTES:
        raise TranslationError(f"the body has {len(body)} bytes: expected at most {MOST_BYTES}", status=413)
    if len(body) > _MOST_CONTAINERS and body.count(b"{") + body.count(b"[") > _MOST_CONTAINERS:
        raise TranslationError(f"the body has too many objects and lists: expected at most {_MOST_CONTAINERS}")
    try:
        return read_as(_requests, body)
    except EnvelopeError as error:
        raise TranslationError(str(error)) from error


def content_of(raw: Raw, where: str) -> list[Block]:
    """The content of a block; a string is one of text. Raises TranslationError."""
    if not raw:
        return []
    try:
        content = _contents.decode(raw)
    except (ValueError, RecursionError) as error:
        raise TranslationError(f"{where}.content: expected a string or a list of content blocks ({error})") from error
    return blocks(content or [])


def blocks(content: str | list[Block]) -> list[Block]:
    """Content as blocks."""
    return [Block("text", text=content)] if isinstance(content, str) else content
