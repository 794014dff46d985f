"""Whatever a worker sends: each client gets an answer or an error in the form of its API, and others go on."""

import itertools
import json

import httpx
import msgspec
import pytest

from slurminfer.router.relay.workers import upstream

from .relayed import DONE, HEAD, LAST, TEXT, chunk, event
from .strange import APIS, BAD, BROKEN, CHAT, GOOD, TEXTS, VECTORS, answer_well, require_form

STREAMED = {name: api for name, api in APIS.items() if api.streams and name != "completions, streamed"}
MOST = 2**25  # bytes that a client would take
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def short_suspicions(monkeypatch):
    """Nobody waits long for a worker that was the only one."""
    monkeypatch.setattr(upstream, "_FIRST_SUSPICION_S", 0.02)
    monkeypatch.setattr(upstream, "_LONGEST_SUSPICION_S", 0.02)


@pytest.fixture
def relay(relayed):
    return relayed(retry_budget=10)


def ask(relay, api):
    """The answer to a request that no other one is like."""
    body = json.dumps(api.body).replace("Hi", f"Hi {next(_numbers)}").encode()
    with relay.http.stream("POST", api.path, content=body, timeout=20) as answer:
        content = bytearray()
        try:
            for piece in answer.iter_raw():
                content += piece
                assert len(content) < MOST, "it has no end"
        except httpx.RemoteProtocolError:
            assert not api.streams, "a stream says that it is broken"
            return None
        answer._content = bytes(content)
        return answer


@pytest.mark.parametrize("bad", BAD)
def test_an_answer_that_is_none(relay, bad):
    """Alone, an error. With another worker its answer, as nothing was sent yet."""
    relay.add("w-0", BAD[bad])
    alone = {name: require_form(api, ask(relay, api)) for name, api in APIS.items()}
    assert set(alone.values()) == {"error"}, alone
    relay.add("w-1", answer_well)
    both = {name: [require_form(api, ask(relay, api)) for _ in range(2)] for name, api in APIS.items()}
    assert all("good" in found for found in both.values()), both


@pytest.mark.parametrize("count", [10**30, 2**63, -(10**30), 1e300, "7", [], True])
def test_token_counts_that_are_none(relay, count):
    """They would be in all figures for ever, and no table could hold them."""
    usage = {"prompt_tokens": count, "completion_tokens": count, "total_tokens": count, "input_tokens": count}
    usage["prompt_tokens_details"] = {"cached_tokens": count}
    usage["completion_tokens_details"] = {"reasoning_tokens": count}

    async def say(asked):
        if asked.target.endswith("/embeddings"):
            await asked.whole({**VECTORS, "usage": usage})
        elif asked.body.get("stream"):
            last = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
            await asked.send(HEAD, chunk(event(TEXT, "stop")), chunk(last), chunk(DONE), LAST)
        elif asked.target.endswith("/chat/completions"):
            await asked.whole({**CHAT, "usage": usage})
        else:
            await asked.whole({**TEXTS, "usage": usage})

    relay.add("w-0", say)
    for name in STREAMED.keys() | {"chat/completions", "messages", "responses", "embeddings"}:
        assert require_form(APIS[name], ask(relay, APIS[name])) == "good"
    report = relay.report()
    msgspec.msgpack.encode(report)
    assert report.usage["one"].prompt_tokens == report.usage["one"].generated_tokens == 0
    assert report.counters.requests and all(status == 200 for _, status in report.counters.requests)


@pytest.mark.parametrize("broken", BROKEN)
def test_a_stream_that_breaks(relay, broken):
    """Alone, an error. Another worker goes on with it."""
    stub = relay.add("w-0", BROKEN[broken])
    alone = {name: require_form(api, ask(relay, api)) for name, api in STREAMED.items()}
    assert set(alone.values()) == {"error"}, alone
    relay.add("w-1", answer_well)
    asked = len(stub.asked)
    both = {name: [require_form(api, ask(relay, api)) for _ in range(2)] for name, api in STREAMED.items()}
    if "error" in broken and "text" not in broken:  # which is what the worker has to say
        assert all("good" in found for found in both.values()), both
    else:
        assert all(found == ["good", "good"] for found in both.values()), both
    assert len(stub.asked) > asked


@pytest.mark.parametrize("good", GOOD)
def test_a_good_stream_in_an_unusual_frame(relay, good):
    relay.add("w-0", GOOD[good])
    found = {name: [require_form(api, ask(relay, api)) for _ in range(2)] for name, api in STREAMED.items()}
    assert all(one == ["good", "good"] for one in found.values()), found
