"""Events of a second worker, made part of the stream that a first one has begun."""

from typing import Any

import msgspec

from .envelope import CHAT, Envelope, whole
from .events import payloads, usage_of
from .place import Repeated
from .transcript import Place, Said, Story, read_event

DONE = b"data: [DONE]\n\n"
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Stitcher:
    """Rewrites events. Once `finished` is set, nothing more is wanted from the worker: its request is to be aborted."""

    def __init__(self, story: Story, said: Said, envelope: Envelope, place: Place | None) -> None:
        """`place`: where the answer is taken up; None: at its end, and the engine itself counts what was before."""
        self.finished = False
        self._names, self._envelope, self._place = story.names, envelope, place
        self._tokens = place.tokens if place else 0
        self._roles = {index for index, choice in story.choices.items() if choice.role}
        self._begun = frozenset(story.choices)  # of their prompts the ids have been told, if they are
        self._prompt_tokens = story.prompt_tokens if place else None
        self._usage: dict[str, Any] | None = None
        self._new_tokens = 0
        text = "".join(said.text)
        self._said: Said | None = said
        self._repeated = Repeated(text[place.characters :] if place else "")
        self._stops = _StraddlingStops(envelope, text) if place else None
        self._held: list[dict[str, Any]] = []  # events whose text may belong to a stop string that began before

    def feed(self, data: bytes) -> bytes:
        """What whole events of the new worker are in the old stream."""
        if self._said is not None:
            if self._place is not None:
                self._said.take_up(self._place)
            self._said = None
        found = list(payloads(data))
        if not found:
            return data  # comments, which keep connections alive
        return b"".join([self._event(payload) for payload in found if not self.finished])

    def _event(self, payload: bytes) -> bytes:
        if payload.strip() == b"[DONE]":
            self.finished = True
            return self._release() + DONE
        if read_event(payload) is None:
            return self._release() + b"data: " + payload + b"\n\n"  # an error: the client is to know
        return self._choices({**_decode(payload), **self._names})

    def _choices(self, event: dict[str, Any]) -> bytes:
        if isinstance(event.get("usage"), dict):
            event["usage"] = self._usage = self._corrected(event["usage"])
        if not event["choices"]:
            return self._release() + _write(event)
        self._take_prompt_ids(event)
        event["choices"] = [choice for choice in event["choices"] if self._take_role(choice)]
        if not event["choices"]:
            return b""
        choice = event["choices"][0]
        text = self._take_repeated(choice)
        if self._stops is None:
            return _write(event)
        self._held.append(event)
        stopped = self._stops.push(text)
        if stopped is not None:
            return self._stop(stopped)
        if choice.get("finish_reason") or not self._stops.is_open:
            return self._release()
        return b""

    def _take_repeated(self, choice: dict[str, Any]) -> str:
        """Take out text that was sent before; what remains."""
        holder, name = (choice["delta"], "content") if isinstance(choice.get("delta"), dict) else (choice, "text")
        text = holder.get(name)
        if not isinstance(text, str):
            return ""
        self._new_tokens += bool(text)
        holder[name] = rest = self._repeated.take_from(text)
        return rest

    def _take_prompt_ids(self, event: dict[str, Any]) -> None:
        """Take the ids of prompts out that have been told before."""
        begun = [choice for choice in event["choices"] if choice.get("index", 0) in self._begun]
        for holder in [event, *begun] if begun else []:
            holder.pop("prompt_token_ids", None)

    def _take_role(self, choice: dict[str, Any]) -> bool:
        """Take a second role out of a chat's event; whether anything remains of it."""
        delta = choice.get("delta")
        if not isinstance(delta, dict) or "role" not in delta:
            return True
        index = choice.get("index", 0)
        if index not in self._roles:
            self._roles.add(index)
            return True
        del delta["role"]
        return bool(any(delta.values()) or choice.get("finish_reason") or choice.get("token_ids"))

    def _corrected(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Token counts as if one worker had done all."""
        prompt, completion = whole(usage.get("prompt_tokens")), whole(usage.get("completion_tokens"))
        if not self._tokens or prompt is None or completion is None:
            return usage
        prompt = max(prompt - self._tokens, 0) if self._prompt_tokens is None else self._prompt_tokens
        counts: dict[str, Any] = counts_of(prompt, completion + self._tokens)
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict) and (cached := whole(details.get("cached_tokens"))) is not None:
            counts["prompt_tokens_details"] = {**details, "cached_tokens": min(cached, prompt)}
        return {**usage, **counts}

    def _release(self) -> bytes:
        held, self._held = self._held, []
        return b"".join(map(_write, held))

    def _stop(self, text: str) -> bytes:
        """End with `text`, the last before a stop string, whose beginning another worker has sent."""
        self.finished = True
        event, self._held = self._held[-1], []
        choice = {**event["choices"][0], "finish_reason": "stop"}
        if "delta" in choice:
            choice["delta"] = {"content": text} if text else {}
        else:
            choice["text"] = text
        usage = b""
        if self._envelope.wants_usage and self._usage is None:
            usage = _write({**event, "choices": [], "usage": self._estimate()})
        return _write({**event, "choices": [choice]}) + usage + DONE

    def _estimate(self) -> dict[str, Any]:
        return counts_of(self._prompt_tokens or 0, self._tokens + self._new_tokens)


class UsageOnly:
    """Takes only the token counts of a prompt from a second worker: the answer itself is complete."""

    def __init__(self, story: Story, tokens: int, before: bytes) -> None:
        """`before`: events that are to be sent first."""
        self.finished = False
        self._story, self._tokens, self._before = story, tokens, before

    def feed(self, data: bytes) -> bytes:
        """The last events of the stream, once the token counts are there."""
        usage = usage_of(data)
        prompt = whole((usage or {}).get("prompt_tokens"))
        if usage is None or prompt is None:
            return b""
        self.finished = True
        counts = {"completion_tokens": self._tokens, "total_tokens": prompt + self._tokens}
        return self._before + usage_event(self._story, {**usage, **counts}) + DONE


class _StraddlingStops:
    """Looks for stop strings that begin in the text of the first worker and end in that of the second."""

    def __init__(self, envelope: Envelope, sent: str) -> None:
        self._stops, self._keeps = envelope.stops, envelope.keeps_stop
        longest = max(map(len, self._stops), default=1) - 1
        self._sent = len(sent[-longest:]) if longest else 0
        self._text = sent[-longest:] if longest else ""
        self._longest = longest

    @property
    def is_open(self) -> bool:
        """Whether what is there may still become such a stop string."""
        return any(self._text[start:] and stop.startswith(self._text[start:])
                   for stop in self._stops for start in range(self._sent))  # fmt: skip

    def push(self, text: str) -> str | None:
        """Take new text; where a stop string is complete, the text that was not sent before its cut."""
        if len(self._text) - self._sent >= self._longest:
            return None
        self._text += text
        found = [(place, stop) for stop in self._stops if 0 <= (place := self._text.find(stop)) < self._sent]
        if not found:
            return None
        place, stop = min(found)
        return self._text[self._sent : place + len(stop)] if self._keeps else ""


def finish_event(envelope: Envelope, story: Story, finish: str) -> bytes:
    """The last event of the only choice."""
    kind = "chat.completion.chunk" if envelope.kind == CHAT else "text_completion"
    said: dict[str, Any] = {"delta": {}} if envelope.kind == CHAT else {"text": ""}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
    return _write({"object": kind, **story.names, "choices": [choice]})


def counts_of(prompt: int, completion: int) -> dict[str, int]:
    """The usage of so many tokens."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def usage_event(story: Story, usage: dict[str, Any]) -> bytes:
    """The event with the token counts after the last choice."""
    return _write({**story.names, "choices": [], "usage": usage})


def _write(event: dict[str, Any]) -> bytes:
    return b"data: " + _encode(event) + b"\n\n"
