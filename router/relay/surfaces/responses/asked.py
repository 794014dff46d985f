"""What a request to /v1/responses asks for, checked."""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from ....batches.limits import LONGEST_METADATA_KEY, LONGEST_METADATA_VALUE, MOST_METADATA
from ...stream.envelope import Decoded, EnvelopeError, decoded, read_as
from ..translation import TranslationError
from .errors import UNKNOWN
from .fields import HARMLESS_VALUES, IGNORED, INCLUDABLE, LOGPROBS, OBEYED, REFUSED, RENAMED
from .items import Item, read_input
from .tools import Tool, ToolChoice, check_choice, check_tools

_MOST_OBJECTS = 200_000  # of a body, as in the native engine: others wait while they are read
_NOTHING = frozenset((b"null", b"false", b"[]", b"{}", b'""'))
_FORMATS = ("text", "json_object", "json_schema")
_NO_NAME = (
    "missing; here name, schema and strict stand beside type, not within json_schema as they do for chat completions"
)


class Format(msgspec.Struct, omit_defaults=True):
    """`text.format`."""

    type: str = ""
    name: str | None = None
    description: str | None = None
    schema: Raw = Raw()
    strict: bool | None = None


class Text(msgspec.Struct, omit_defaults=True):
    """`text`."""

    format: Format | None = None
    verbosity: str | None = None


class Reasoning(msgspec.Struct, omit_defaults=True):
    """`reasoning`."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class Asked(msgspec.Struct, kw_only=True):
    """The fields of a request. `items` and `others` are set by `read`."""

    model: str | None = None
    input: Raw = Raw()
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    max_tool_calls: int | None = None

    items: Any = msgspec.field(name="(items)", default=())
    others: Any = msgspec.field(name="(others)", default=None)

    @property
    def keeps(self) -> bool:
        """Whether the response may be asked for later."""
        return self.store is not False

    @property
    def wants_logprobs(self) -> bool:
        """Whether the text is to come with the probabilities of its tokens."""
        return LOGPROBS in (self.include or ()) or bool(self.top_logprobs)


_asked = msgspec.json.Decoder(Asked)
_fields = msgspec.json.Decoder(dict[str, Raw])


def read(body: bytes) -> Asked:
    """What a body asks for. Raises TranslationError."""
    if body.count(b"{") > _MOST_OBJECTS:
        raise TranslationError(f"the body has too many objects: expected at most {_MOST_OBJECTS}")
    raw = _decoded(read_as, _fields, body)
    _require_known(raw)
    asked: Asked = _decoded(decoded, _asked, body)
    _check(asked)
    asked.items = _input(asked)
    asked.others = {name: value for name, value in raw.items() if name not in OBEYED and name not in IGNORED
                    and name not in REFUSED}  # fmt: skip
    return asked


def _input(asked: Asked) -> list[Item]:
    if not asked.input or bytes(asked.input) == b"null":
        if asked.instructions or asked.previous_response_id:
            return []
        raise TranslationError("input: expected a string or a list of items", "input")
    items = read_input(asked.input)
    if not items and not asked.instructions and not asked.previous_response_id:
        raise TranslationError("input has no items: expected at least one", "input")
    return items


def _require_known(raw: dict[str, Raw]) -> None:
    for name, value in raw.items():
        if name in REFUSED and bytes(value) not in (*_NOTHING, *HARMLESS_VALUES.get(name, ())):
            raise TranslationError(f"{name} = {_short(value)}: not taken here: {REFUSED[name]}", name)
        if name in RENAMED and bytes(value) != b"null":
            message = f"{name}: not a field of /v1/responses; use {RENAMED[name]}"
            raise TranslationError(message, name, code=UNKNOWN)


def _check(asked: Asked) -> None:
    check_tools(asked.tools or [])
    check_choice(asked.tool_choice, asked.tools or [])
    for value in asked.include or ():
        if value not in INCLUDABLE:
            raise TranslationError(f"include: {value[:80]!r}: expected one of {', '.join(INCLUDABLE)}", "include")
    _check_format(asked.text.format if asked.text else None)
    _check_metadata(asked.metadata or {})


def _check_format(format: Format | None) -> None:
    if format is None:
        return
    if format.type not in _FORMATS:
        message = f"text.format.type = {format.type[:80]!r}: expected one of {', '.join(_FORMATS)}"
        raise TranslationError(message, "text.format.type")
    if format.type == "json_schema":
        if not format.name:
            raise TranslationError(f"text.format.name: {_NO_NAME}", "text.format.name")
        if not bytes(format.schema).startswith(b"{"):
            raise TranslationError("text.format.schema: expected an object, a JSON schema", "text.format.schema")


def _check_metadata(metadata: dict[str, str]) -> None:
    if len(metadata) > MOST_METADATA:
        raise TranslationError(f"metadata has {len(metadata)} pairs: expected at most {MOST_METADATA}", "metadata")
    for key, value in metadata.items():
        if len(key) > LONGEST_METADATA_KEY or len(value) > LONGEST_METADATA_VALUE:
            expected = f"keys of {LONGEST_METADATA_KEY} and values of {LONGEST_METADATA_VALUE} characters at most"
            raise TranslationError(f"metadata[{key[:64]!r}] is too long: expected {expected}", "metadata")


def _short(value: Raw) -> str:
    text = bytes(value)
    return text.decode(errors="replace") if len(text) <= 80 else f"{text[:80].decode(errors='replace')}..."


def _decoded(
    decode: "Callable[[msgspec.json.Decoder[Decoded], bytes], Decoded]",
    decoder: "msgspec.json.Decoder[Decoded]",
    body: bytes,
) -> Decoded:
    try:
        return decode(decoder, body)
    except EnvelopeError as error:
        raise TranslationError(str(error), error.param) from error
