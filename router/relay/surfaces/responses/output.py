"""The output of a response as it grows: items, and the events that tell of them.

Reasoning and text are one open item at a time. Calls of functions stay open until the end, since engines may send
their arguments by turns.
"""

from collections.abc import Mapping
from typing import Any

from .tools import Called

Event = dict[str, Any]


class Output:
    """The items of one response.

    Args:
        suffix: of its items' ids, which begin with their kind and end with their place.
        namespaces: functions that have another name in chat completions, by that name.
    """

    def __init__(self, suffix: str, namespaces: Mapping[str, Called]) -> None:
        self._suffix, self._namespaces = suffix, namespaces
        self.items: list[dict[str, Any]] = []
        self._open: _Text | None = None
        self._calls: dict[int, _Call] = {}

    def reasoning(self, text: str) -> list[Event]:
        """Take some reasoning."""
        return self._add(_Reasoning, text, [])

    def text(self, text: str, logprobs: list[dict[str, Any]]) -> list[Event]:
        """Take some text, with the probabilities of its tokens where they were asked for."""
        return self._add(_Message, text, logprobs)

    def call(self, index: int, call_id: str | None, name: str | None, arguments: str) -> list[Event]:
        """Take some of a function's call. `index`: which of several the engine means."""
        call, events = self._calls.get(index), []
        if call is None:
            events = self._close("completed")
            place = len(self.items)
            ids = self._id("fc", place), call_id or self._id("call", place)
            called = self._namespaces.get(name or "") or Called(name or "")
            call = self._calls[index] = _Call(place, *ids, called)
            self.items.append(call.item("in_progress"))
            events.append({"type": "response.output_item.added", "output_index": place, "item": self.items[place]})
        return events + call.add(arguments)

    def end(self, is_complete: bool) -> list[Event]:
        """Close what is open. Without any item there is a message with no text. `is_complete`: nothing is cut off."""
        events = [] if self.items else self._add(_Message, "", [])
        last = len(self.items) - 1
        status = "completed" if is_complete else "incomplete"
        if self._open is not None:
            events += self._close(status if self._open.place == last else "completed")
        for call in self._calls.values():
            call_status = status if call.place == last else "completed"
            self.items[call.place] = call.item(call_status)
            events += call.done(self.items[call.place])
        return events

    def so_far(self) -> list[dict[str, Any]]:
        """The items as they are, of which the open ones are incomplete."""
        found = list(self.items)
        if self._open is not None:
            found[self._open.place] = self._open.item("incomplete")
        for call in self._calls.values():
            found[call.place] = call.item("incomplete")
        return found

    def _add(self, kind: "type[_Text]", text: str, logprobs: list[dict[str, Any]]) -> list[Event]:
        events: list[Event] = []
        if self._open is None or type(self._open) is not kind:
            events = self._close("completed")
            place = len(self.items)
            self._open = kind(place, self._id(kind.prefix, place))
            self.items.append(self._open.empty())
            events += self._open.begun()
        return events + self._open.add(text, logprobs)

    def _close(self, status: str) -> list[Event]:
        if self._open is None:
            return []
        closed, self._open = self._open, None
        self.items[closed.place] = closed.item(status)
        return closed.done(self.items[closed.place])

    def _id(self, prefix: str, place: int) -> str:
        return f"{prefix}_{self._suffix}{place:04x}"


class _Text:
    """An open item whose only part is text."""

    prefix, delta, finished = "", "", ""

    def __init__(self, place: int, id: str) -> None:
        self.place, self.id = place, id
        self._pieces: list[str] = []
        self._logprobs: list[dict[str, Any]] = []

    def part(self, text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        """The part with that text."""
        raise NotImplementedError

    def shell(self, status: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
        """The item with these parts."""
        raise NotImplementedError

    def extra(self, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        """What its events have besides."""
        return {}

    def empty(self) -> dict[str, Any]:
        """The item as it begins."""
        return self.shell("in_progress", [])

    def item(self, status: str) -> dict[str, Any]:
        """The item as it is."""
        return self.shell(status, [self.part("".join(self._pieces), self._logprobs)])

    def begun(self) -> list[Event]:
        """The events of its beginning."""
        return [
            {"type": "response.output_item.added", "output_index": self.place, "item": self.empty()},
            {"type": "response.content_part.added", **self._where(), "part": self.part("", [])},
        ]

    def add(self, text: str, logprobs: list[dict[str, Any]]) -> list[Event]:
        """Take some text; its events."""
        if not text and not logprobs:
            return []
        self._pieces.append(text)
        self._logprobs += logprobs
        return [{"type": f"response.{self.delta}", **self._where(), "delta": text, **self.extra(logprobs)}]

    def done(self, item: dict[str, Any]) -> list[Event]:
        """The events of its end."""
        text = "".join(self._pieces)
        return [
            {"type": f"response.{self.finished}", **self._where(), "text": text, **self.extra(self._logprobs)},
            {"type": "response.content_part.done", **self._where(), "part": item["content"][0]},
            {"type": "response.output_item.done", "output_index": self.place, "item": item},
        ]

    def _where(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.place, "content_index": 0}


class _Reasoning(_Text):
    prefix, delta, finished = "rs", "reasoning_text.delta", "reasoning_text.done"

    def part(self, text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        return {"type": "reasoning_text", "text": text}

    def shell(self, status: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "type": "reasoning", "status": status, "summary": [], "content": parts}


class _Message(_Text):
    prefix, delta, finished = "msg", "output_text.delta", "output_text.done"

    def part(self, text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}

    def shell(self, status: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": parts}

    def extra(self, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        return {"logprobs": [_of_event(one) for one in logprobs]}


class _Call:
    """An open call of a function."""

    def __init__(self, place: int, id: str, call_id: str, called: Called) -> None:
        self.place, self._id, self._call_id, self._called = place, id, call_id, called
        self._arguments: list[str] = []

    def item(self, status: str) -> dict[str, Any]:
        """The item as it is."""
        found = {
            "id": self._id,
            "type": "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._called.name,
            "arguments": "".join(self._arguments),
        }
        return found if self._called.namespace is None else {**found, "namespace": self._called.namespace}

    def add(self, arguments: str) -> list[Event]:
        """Take some of its arguments; the events."""
        if not arguments:
            return []
        self._arguments.append(arguments)
        return [{"type": "response.function_call_arguments.delta", **self._where(), "delta": arguments}]

    def done(self, item: dict[str, Any]) -> list[Event]:
        """The events of its end."""
        arguments, name = item["arguments"], item["name"]
        return [
            {"type": "response.function_call_arguments.done", **self._where(), "arguments": arguments, "name": name},
            {"type": "response.output_item.done", "output_index": self.place, "item": item},
        ]

    def _where(self) -> dict[str, Any]:
        return {"item_id": self._id, "output_index": self.place}


def _of_event(logprob: dict[str, Any]) -> dict[str, Any]:
    """A token's probability as events have it, which is without its bytes."""
    top = [{"token": one["token"], "logprob": one["logprob"]} for one in logprob["top_logprobs"]]
    return {"token": logprob["token"], "logprob": logprob["logprob"], "top_logprobs": top}
