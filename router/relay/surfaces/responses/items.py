"""Items of a conversation as the responses API writes them: read from requests, and shown to clients."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from .....core.net.wording import plain
from ..translation import TranslationError

MESSAGE, CALL, OUTPUT, REASONING, REFERENCE = (
    "message", "function_call", "function_call_output", "reasoning", "item_reference",
)  # fmt: skip
MOST_PARTS = 16_384  # of all items of a request
MOST_ITEMS = 8_192  # of a request and of what was before together
_ROLES = ("user", "assistant", "system", "developer")
_PARTS = (
    "input_text",
    "input_image",
    "input_audio",
    "output_text",
    "refusal",
    "reasoning_text",
    "summary_text",
    "text",
)
_ID_PREFIXES = {MESSAGE: "msg_", CALL: "fc_", OUTPUT: "fco_", REASONING: "rs_"}


class Part(msgspec.Struct, omit_defaults=True):
    """A part of an item's content."""

    type: str = ""
    text: str | None = None
    image_url: str | None = None
    detail: str | None = None
    input_audio: Raw = Raw()
    refusal: str | None = None


class Item(msgspec.Struct, omit_defaults=True):
    """An item of any type."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None


class _Kind(msgspec.Struct):
    type: str | None = None
    role: str | None = None
    id: str | None = None

    @property
    def kind(self) -> str:
        if self.type is not None:
            return self.type
        return MESSAGE if self.role is not None else REFERENCE


_kinds = msgspec.json.Decoder(str | list[_Kind])
_items = msgspec.json.Decoder(list[Item])


def read_input(raw: Raw) -> list[Item]:
    """The items of `input`, which may be a string. Raises TranslationError."""
    found = _decoded(_kinds, raw)
    if isinstance(found, str):
        return [Item(type=MESSAGE, role="user", content=found)]
    if len(found) > MOST_ITEMS:
        raise TranslationError(f"input has {len(found)} items: expected at most {MOST_ITEMS}", "input")
    for place, kind in enumerate(found):
        _require_kind(f"input[{place}]", kind)
    items: list[Item] = _decoded(_items, raw)
    parts = sum(len(parts) for item in items for parts in (item.content, item.output) if isinstance(parts, list))
    if parts > MOST_PARTS:
        raise TranslationError(f"input has {parts} parts in all: expected at most {MOST_PARTS}", "input")
    for place, (item, kind) in enumerate(zip(items, found, strict=True)):
        item.type = kind.kind
        _check(f"input[{place}]", item)
    return items


def read_items(data: bytes) -> list[Item]:
    """Items that were written by `write_items`. Raises ValueError."""
    return _items.decode(data)


def write_items(items: Sequence[Item]) -> bytes:
    """Items as JSON."""
    return msgspec.json.encode(items)


def named(items: Sequence[Item], suffix: str, start: int) -> list[Item]:
    """The items with an id each, where the client has given none. `start`: number of the first."""
    return [item if item.id else _with_id(item, f"{suffix}{start + place:04x}") for place, item in enumerate(items)]


def references(items: Sequence[Item]) -> list[str]:
    """The ids of items that are only named."""
    return [item.id for item in items if item.type == REFERENCE and item.id]


def shown(item: Item) -> dict[str, Any]:
    """An item of an input as the API lists it."""
    found: dict[str, Any] = {"id": item.id, "type": item.type, "status": "completed"}
    if item.type == MESSAGE:
        return {**found, "role": item.role, "content": list(_shown_parts(item))}
    if item.type == CALL:
        call = {**found, "call_id": item.call_id, "name": item.name, "arguments": item.arguments}
        return call if item.namespace is None else {**call, "namespace": item.namespace}
    if item.type == OUTPUT:
        output = item.output if isinstance(item.output, str) else msgspec.to_builtins(item.output)
        return {**found, "call_id": item.call_id, "output": output}
    content = [] if isinstance(item.content, str) else item.content or []
    return {**found, "summary": [], "content": [{"type": "reasoning_text", "text": part.text} for part in content]}


def _shown_parts(item: Item) -> Iterator[dict[str, Any]]:
    usual = "output_text" if item.role == "assistant" else "input_text"
    parts = [Part(type=usual, text=item.content)] if isinstance(item.content, str) else item.content or []
    for part in parts:
        if part.type == "refusal":
            yield {"type": "refusal", "refusal": part.refusal}
        elif part.type == "input_image":
            yield {"type": "input_image", "image_url": part.image_url, "detail": part.detail or "auto"}
        elif part.type == "input_audio":
            yield {"type": "input_audio", "input_audio": part.input_audio}
        elif usual == "output_text":
            yield {"type": usual, "text": part.text, "annotations": [], "logprobs": []}
        else:
            yield {"type": usual, "text": part.text}


def _with_id(item: Item, suffix: str) -> Item:
    return msgspec.structs.replace(item, id=_ID_PREFIXES[item.type or MESSAGE] + suffix)


def _require_kind(param: str, kind: _Kind) -> None:
    if kind.kind not in (*_ID_PREFIXES, REFERENCE):
        valid = ", ".join((*_ID_PREFIXES, REFERENCE))
        raise TranslationError(f"{param}.type = {kind.kind[:80]!r}: expected one of {valid}", f"{param}.type")
    if kind.kind == REFERENCE and not kind.id:
        raise TranslationError(f"{param}: expected an item with `role` or `type`", param)


def _check(param: str, item: Item) -> None:
    if item.type == MESSAGE:
        if item.role not in _ROLES:
            given = "" if item.role is None else f" = {item.role[:80]!r}"
            raise TranslationError(f"{param}.role{given}: expected one of {', '.join(_ROLES)}", f"{param}.role")
        _check_content(f"{param}.content", item.content)
    elif item.type == CALL:
        _require_text(param, call_id=item.call_id, name=item.name, arguments=item.arguments)
    elif item.type == OUTPUT:
        _require_text(param, call_id=item.call_id)
        _check_content(f"{param}.output", item.output)
    elif item.type == REASONING and isinstance(item.content, str):
        raise TranslationError(f"{param}.content: expected a list of parts", f"{param}.content")


def _require_text(param: str, **values: str | None) -> None:
    for name, value in values.items():
        if value is None:
            raise TranslationError(f"{param}.{name}: expected a string, and there is none", f"{param}.{name}")


def _check_content(param: str, content: str | list[Part] | None) -> None:
    if content is None:
        raise TranslationError(f"{param}: expected a string or a list of parts", param)
    for place, part in enumerate([] if isinstance(content, str) else content):
        _check_part(f"{param}[{place}]", part)


def _check_part(param: str, part: Part) -> None:
    if part.type not in _PARTS:
        valid = "input_text, input_image, input_audio, output_text, refusal"
        raise TranslationError(f"{param}.type = {part.type[:80]!r}: expected one of {valid}", f"{param}.type")
    if part.type == "input_image":
        if part.image_url is None:
            message = f"{param}.image_url: expected a URL, such as data:image/png;base64,...; file_id is not taken"
            raise TranslationError(message, f"{param}.image_url")
    elif part.type == "input_audio":
        if not part.input_audio:
            raise TranslationError(f"{param}.input_audio: expected {{data, format}}", f"{param}.input_audio")
    else:
        name = "refusal" if part.type == "refusal" else "text"
        _require_text(param, **{name: getattr(part, name)})


def _decoded(decoder: "msgspec.json.Decoder[Any]", raw: Raw) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        param = f"input{path.rstrip('`')}"
        raise TranslationError(f"{param}: {plain(message)}", param) from error
    except RecursionError as error:
        raise TranslationError("input is nested too deep", "input") from error
    except ValueError as error:
        raise TranslationError(f"input: {error}", "input") from error
