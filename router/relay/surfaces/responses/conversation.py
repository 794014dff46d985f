"""Items of the responses API as messages of chat completions.

Chat templates want one assistant message for what are several items here: reasoning, a text, and calls of functions.
They want one system message, too, at the beginning.
"""

from collections.abc import Sequence
from typing import Any

from .items import CALL, MESSAGE, OUTPUT, REASONING, Item, Part
from .tools import chat_name

_Message = dict[str, Any]


def messages(instructions: str | None, items: Sequence[Item]) -> list[_Message]:
    """The messages of a chat for `instructions` and the items after them. References must have been resolved."""
    found: list[_Message] = []
    if instructions:
        found.append({"role": "system", "content": instructions})
    for item in items:
        if item.type == MESSAGE and item.role == "assistant":
            turn = _assistant_turn(found, lambda turn: "content" not in turn and "tool_calls" not in turn)
            turn["content"] = _content(item.content, between="")
        elif item.type == MESSAGE:
            _add_message(found, item)
        elif item.type == REASONING:
            if text := _reasoning(item):
                _assistant_turn(found, lambda turn: False)["reasoning_content"] = text
        elif item.type == CALL:
            turn = _assistant_turn(found, lambda turn: True)
            turn.setdefault("tool_calls", []).append(_call(item))
        elif item.type == OUTPUT:
            found.append({"role": "tool", "tool_call_id": item.call_id, "content": _content(item.output)})
    for message in found:
        if message["role"] == "assistant":
            message.setdefault("content", None if "tool_calls" in message else "")
    return found


def _assistant_turn(found: list[_Message], may_join: Any) -> _Message:
    """The assistant's message that an item is a part of: the last one, or a new one."""
    if found and found[-1]["role"] == "assistant" and may_join(found[-1]):
        return found[-1]
    found.append({"role": "assistant"})
    return found[-1]


def _add_message(found: list[_Message], item: Item) -> None:
    role = "system" if item.role == "developer" else item.role
    content = _content(item.content)
    if role == "system" and len(found) == 1 and found[0]["role"] == "system" and isinstance(content, str):
        found[0]["content"] = f"{found[0]['content']}\n\n{content}"
    else:
        found.append({"role": role, "content": content})


def _call(item: Item) -> _Message:
    function = {"name": chat_name(item.name or "", item.namespace), "arguments": item.arguments}
    return {"id": item.call_id, "type": "function", "function": function}


def _reasoning(item: Item) -> str:
    parts = [] if isinstance(item.content, str) else item.content or []
    return "".join(part.text or "" for part in parts)


def _content(content: str | list[Part] | None, between: str = "\n") -> str | list[_Message]:
    """A string where there is only text, since some templates take nothing else."""
    if content is None or isinstance(content, str):
        return content or ""
    if all(part.type not in ("input_image", "input_audio") for part in content):
        return between.join(part.refusal or part.text or "" for part in content)
    return [_part(part) for part in content]


def _part(part: Part) -> _Message:
    if part.type == "input_image":
        image = {"url": part.image_url}
        return {"type": "image_url", "image_url": image if part.detail is None else {**image, "detail": part.detail}}
    if part.type == "input_audio":
        return {"type": "input_audio", "input_audio": part.input_audio}
    return {"type": "text", "text": part.refusal or part.text or ""}
