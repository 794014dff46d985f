"""What a client is told by the answer of one API, and what is wrong with its form.

What may differ between two equal answers is left out: ids, times, and how many tokens came from a cache.
"""

import json
from typing import Any

Json = dict[str, Any]
_VARYING = {
    "id", "created", "created_at", "completed_at", "system_fingerprint", "call_id", "item_id", "previous_response_id",
    "prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "signature",
}  # fmt: skip


class FormError(Exception):
    """An answer is not of its API's form."""


class BrokeOffError(Exception):
    """A stream that says itself, in its API's form, that it cannot go on."""


def read(api: str, data: bytes) -> Json:
    """What an answer says. Raises FormError and BrokeOffError."""
    if api == "json":
        return dict(_without_varying(json.loads(data)))
    events = _events(data)
    if not events:
        raise FormError("no events")
    return _READERS[api](events)


def _events(data: bytes) -> list[tuple[str, Any]]:
    """The names and the data of events."""
    if not data.endswith(b"\n\n"):
        raise FormError(f"ends in the middle of an event: {data[-120:]!r}")
    found = []
    for block in data.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        name = "".join(line.removeprefix("event: ") for line in lines if line.startswith("event: "))
        text = "\n".join(line.removeprefix("data: ") for line in lines if line.startswith("data: "))
        found.append((name, text if text == "[DONE]" else json.loads(text)))
    return found


def _require(is_so: object, what: str) -> None:
    if not is_so:
        raise FormError(what)


def _without_varying(value: Any) -> Any:
    if isinstance(value, dict):
        if "cache_read_input_tokens" in value:
            cached = value["cache_read_input_tokens"] or 0
            value = {**value, "input_tokens": value["input_tokens"] + cached, "cache_read_input_tokens": 0}
        return {key: _without_varying(each) for key, each in value.items() if key not in _VARYING}
    if isinstance(value, list):
        return [_without_varying(each) for each in value]
    return round(value, 2) if isinstance(value, float) else value


def _chat(events: list[tuple[str, Any]]) -> Json:
    """Of chat completions, and of completions."""
    payloads, last = [data for _, data in events[:-1]], events[-1][1]
    broke = isinstance(last, dict) and "error" in last
    _require(broke or (last == "[DONE]" and "[DONE]" not in payloads), "not one [DONE], last")
    _require(not any("error" in each for each in payloads), "an error in the middle")
    for name in ("id", "created", "model", "object"):
        _require(len({each.get(name) for each in payloads}) <= 1, f"{name} is not the same in all events")
    choices = _choices(payloads)
    if broke:
        raise BrokeOffError(_message(last))
    for choice in choices.values():
        _require(choice["finish"], "no finish_reason")
        for call in choice["calls"]:
            _require(len(call["ids"]) == 1, f"a call with {len(call.pop('ids'))} ids")
            call.pop("ids", None)
    usage = [each["usage"] for each in payloads if each.get("usage")]
    return {"choices": choices, "usage": _without_varying(usage)}


def _choices(payloads: list[Json]) -> dict[int, Json]:
    found: dict[int, Json] = {}
    for choice in (choice for each in payloads for choice in each["choices"]):
        _require("token_ids" not in choice, "token ids that were not asked for")
        _add_choice(found.setdefault(choice["index"], _empty()), choice)
    return found


def _empty() -> Json:
    return {"roles": 0, "text": "", "thought": "", "calls": [], "logprobs": [], "finish": [], "offsets": []}


def _add_choice(said: Json, choice: Json) -> None:
    _require(not said["finish"], "something after the finish_reason")
    delta = choice.get("delta", choice)
    said["roles"] += "role" in delta
    said["text"] += delta.get("content") or delta.get("text") or ""
    said["thought"] += delta.get("reasoning_content") or ""
    for call in delta.get("tool_calls", ()):
        if call["index"] == len(said["calls"]):
            said["calls"].append({"ids": set(), "name": "", "arguments": ""})
        _require(call["index"] < len(said["calls"]), "a call's index is skipped")
        known = said["calls"][call["index"]]
        known["ids"] |= {call["id"]} if call.get("id") else set()
        known["name"] += call["function"].get("name") or ""
        known["arguments"] += call["function"].get("arguments") or ""
    logprobs = choice.get("logprobs") or {}
    said["logprobs"] += [[one["token"], round(one["logprob"], 2)] for one in logprobs.get("content") or ()]
    said["logprobs"] += [*logprobs.get("tokens", ())]
    said["offsets"] += [*logprobs.get("text_offset", ())]
    said["finish"] += [choice["finish_reason"]] if choice.get("finish_reason") else []


def _messages(events: list[tuple[str, Any]]) -> Json:
    """Of /v1/messages."""
    events = [(name, data) for name, data in events if name != "ping"]
    _require(all(data["type"] == name for name, data in events), "an event's name is not its type")
    if events[-1][0] == "error":
        raise BrokeOffError(_message(events[-1][1]))
    names = [name for name, _ in events]
    _require(
        names[0] == "message_start" and names[-2:] == ["message_delta", "message_stop"], f"{names[:1]} {names[-2:]}"
    )
    _require(all(names.count(name) == 1 for name in (names[0], *names[-2:])), "several beginnings or ends")
    blocks: list[Json] = []
    is_open = False
    for name, data in events[1:-2]:
        if name == "content_block_start":
            _require(not is_open and data["index"] == len(blocks), "a block begins in another one")
            blocks.append(
                {"type": data["content_block"]["type"], "name": data["content_block"].get("name"), "text": ""}
            )
            is_open = True
            continue
        _require(is_open and data["index"] == len(blocks) - 1, f"{name} outside of its block")
        if name == "content_block_stop":
            is_open = False
            continue
        delta = data["delta"]
        blocks[-1]["text"] += delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""
    _require(not is_open, "a block that does not end")
    for block in blocks:
        if block["type"] == "tool_use" and events[-2][1]["delta"]["stop_reason"] == "tool_use":
            json.loads(block["text"])
    return {"blocks": blocks, "end": _without_varying(events[-2][1])}


def _responses(events: list[tuple[str, Any]]) -> Json:
    """Of /v1/responses."""
    _require(all(data["type"] == name for name, data in events), "an event's name is not its type")
    numbers = [data["sequence_number"] for _, data in events]
    _require(numbers == list(range(len(numbers))), "gaps in the sequence numbers")
    if events[-1][0] == "response.failed":
        raise BrokeOffError(_message({"error": events[-1][1]["response"]["error"]}))
    names = [name for name, _ in events]
    ends = [name for name in names if name in ("response.completed", "response.incomplete")]
    _require(names[0] == "response.created" and len(ends) == 1 and names[-1] == ends[0], "not one beginning and end")
    last = events[-1][1]["response"]
    _require(len({data["response"]["id"] for _, data in events if "response" in data}) == 1, "several ids")
    said: dict[tuple[int, str], str] = {}
    for name, data in events:
        if name.endswith(".delta"):
            key = (data["output_index"], name.removesuffix(".delta"))
            said[key] = said.get(key, "") + data["delta"]
        elif name.endswith((".text.done", "_text.done", "arguments.done")):
            whole = data.get("text", data.get("arguments"))
            _require(
                said.get((data["output_index"], name.removesuffix(".done")), "") == whole, "deltas are not the whole"
            )
        if "item_id" in data:
            _require(data["item_id"] == last["output"][data["output_index"]]["id"], "an item's id changes")
    return {"names": _runs(names), "said": [[*key, text] for key, text in said.items()],
            "last": _without_varying(last)}  # fmt: skip


def _runs(names: list[str]) -> list[str]:
    """The names without repetitions: an event may have more or less text."""
    return [name for before, name in zip(["", *names], names, strict=False) if name != before]


def _message(data: Json) -> str:
    error = data["error"]
    _require(isinstance(error.get("message"), str), f"an error without a message: {data}")
    return str(error["message"])


_READERS = {"chat": _chat, "completion": _chat, "messages": _messages, "responses": _responses}
