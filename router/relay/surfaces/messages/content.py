"""Turns of a conversation as chat messages."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from ..translation import TranslationError
from .asked import Block, Message, Source, blocks, content_of

Chat = dict[str, Any]  # a chat message, or a part of its content
_ROLES = ("user", "assistant", "system")
# With it Claude Code begins its system prompt. It differs from request to request, and no worker could use the KV cache
# of the one before.
_BILLING = "x-anthropic-billing-header:"
_PREFIXES_OF_ERRORS = ("error", "<tool_use_error>")


def system_message(system: str | list[Block] | None) -> Iterator[Chat]:
    """The system prompt, if there is any."""
    texts = [block.text or "" for block in blocks(system or []) if _is_text(block, "system")]
    text = "\n".join(text for text in texts if text and not text.startswith(_BILLING))
    if text:
        yield {"role": "system", "content": text}


def chat_messages(messages: Sequence[Message]) -> Iterator[Chat]:
    """All turns. Neighbours of the same role are one turn. Raises TranslationError."""
    placed = [(f"messages.{index}", message) for index, message in enumerate(messages)]
    for where, message in placed:
        if message.role not in _ROLES:
            raise TranslationError(f"{where}.role: {message.role[:40]!r}: expected one of {', '.join(_ROLES)}", "role")
    for role, turn in groupby(placed, key=lambda each: "assistant" if each[1].role == "assistant" else "user"):
        found = [
            (f"{where}.content.{index}", block)
            for where, message in turn
            for index, block in enumerate(_content(message, where))
        ]
        if role == "assistant":
            yield _assistant(found)
        else:
            yield from _user(found)


def _content(message: Message, where: str) -> Sequence[Block]:
    """The blocks of a message. Instructions in mid-conversation become words of the user that are marked as such.

    Many chat templates refuse a system message that is not the first one. The mark is that of Claude Code.
    """
    found = blocks(message.content)
    if message.role != "system":
        return found
    text = "\n".join(block.text or "" for block in found if _is_text(block, where))
    return [Block("text", text=f"<system-reminder>\n{text}\n</system-reminder>")]


Placed = tuple[str, Block]  # where a block stands, for errors


def _assistant(placed: Iterable[Placed]) -> Chat:
    """What the model has said: reasoning, text, tool calls."""
    texts, thoughts, calls = [], [], []
    for where, block in placed:
        if block.type == "text":
            texts.append(block.text or "")
        elif block.type == "thinking":
            thoughts.append(block.thinking or "")
        elif block.type == "tool_use":
            calls.append(_call(block, where))
        elif block.type != "redacted_thinking":
            raise _unsupported(block, where, "text, thinking, redacted_thinking, tool_use")
    message: Chat = {"role": "assistant", "content": "\n".join(texts) if texts or not calls else None}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _call(block: Block, where: str) -> Chat:
    if not block.id or not block.name:
        raise TranslationError(f"{where}: a tool_use block must have an id and a name")
    arguments = bytes(block.input).decode() if bytes(block.input) not in (b"", b"null") else "{}"
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def _user(placed: Iterable[Placed]) -> Iterator[Chat]:
    """The user's words and the results of tools, in their order. Images of results come behind the last of these."""
    parts: list[Chat] = []
    images: list[Chat] = []
    for where, block in placed:
        if block.type == "tool_result":
            yield from _said(parts)
            parts = []
            result, found = _result(block, where)
            images += found
            yield result
        else:
            parts += [*images, *_parts(block, where)]
            images = []
    yield from _said([*images, *parts])


def _said(parts: list[Chat]) -> Iterator[Chat]:
    """One message of text, or of parts where there is more than text."""
    if parts:
        yield {"role": "user", "content": _joined(parts) if all(map(_is_text_part, parts)) else parts}


def _result(block: Block, where: str) -> tuple[Chat, list[Chat]]:
    """The message with a tool's result, and the images that it has."""
    if not block.tool_use_id:
        raise TranslationError(f"{where}.tool_use_id: expected the id of a tool_use block")
    parts = [part for each in content_of(block.content, where) for part in _parts(each, where)]
    text = _joined(filter(_is_text_part, parts))
    if block.is_error and not text.lower().startswith(_PREFIXES_OF_ERRORS):
        text = f"Error: {text}"
    message = {"role": "tool", "tool_call_id": block.tool_use_id, "content": text}
    return message, [part for part in parts if not _is_text_part(part)]


def _parts(block: Block, where: str) -> list[Chat]:
    """What a block of a user is in chat."""
    if block.type in ("text", "image"):
        return [_plain(block, where)]
    if block.type == "document":
        return [*map(_text, filter(None, (block.title, block.context))), *_document(block, where)]
    if block.type == "search_result":
        found = [_plain(each, where) for each in content_of(block.content, where)]
        source = block.source if isinstance(block.source, str) else None
        return [*map(_text, filter(None, (block.title, source))), *found]
    if block.type == "tool_reference":
        return [_text(f"Tool: {block.tool_name or ''}")]
    raise _unsupported(block, where, "text, image, document, search_result, tool_result")


def _plain(block: Block, where: str) -> Chat:
    """What a block without others in it is in chat."""
    if block.type == "text":
        return _text(block.text or "")
    if block.type == "image":
        return _image(block, where)
    raise _unsupported(block, where, "text, image")


def _image(block: Block, where: str) -> Chat:
    source = block.source
    if isinstance(source, Source) and source.type == "base64" and source.data:
        url = f"data:{source.media_type or 'image/png'};base64,{source.data}"
    elif isinstance(source, Source) and source.type == "url" and source.url:
        url = source.url
    else:
        raise TranslationError(f"{where}.source: {_type_of(source)}: expected base64 with data, or url")
    return {"type": "image_url", "image_url": {"url": url}}


def _document(block: Block, where: str) -> list[Chat]:
    source = block.source
    if isinstance(source, Source) and source.type == "text":
        return [_text(source.data or "")]
    if isinstance(source, Source) and source.type == "content":
        return [_plain(each, where) for each in content_of(source.content, where)]
    raise TranslationError(f"{where}.source: {_type_of(source)}: expected text or content; engines read no PDF")


def _type_of(source: Source | str | None) -> str:
    return repr(source.type[:40]) if isinstance(source, Source) else "none"


def _text(text: str) -> Chat:
    return {"type": "text", "text": text}


def _is_text_part(part: Chat) -> bool:
    return bool(part["type"] == "text")


def _joined(parts: Iterable[Chat]) -> str:
    return "\n".join(part["text"] for part in parts)


def _is_text(block: Block, where: str) -> bool:
    if block.type != "text":
        raise _unsupported(block, where, "text")
    return True


def _unsupported(block: Block, where: str, expected: str) -> TranslationError:
    return TranslationError(f"{where}.type: {block.type[:60]!r} is not supported here: expected one of {expected}")
