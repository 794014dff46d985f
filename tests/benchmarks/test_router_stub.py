"""What benchmarks/router measures routers with: answers that depend on all text before them, and its verdicts."""

import asyncio
import json

import pytest

from benchmarks.router.client import Answer
from benchmarks.router.stub.answers import answer_to, generate, prompt_of, tokens_of
from benchmarks.router.stub.engine import BLOCK_TOKENS, Costs, Engine, Job, PrefixCache, blocks_of
from benchmarks.router.stub.events import Shape, usage_of
from benchmarks.router.verdict import Expected, Verdict, judge

ASKED = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 12, "ignore_eos": True, "stream": True}


def test_an_answer_goes_on_from_any_of_its_tokens() -> None:
    whole = answer_to(ASKED)
    for made in range(1, len(whole.pieces)):
        begun = "".join(whole.pieces[:made])
        messages = [*ASKED["messages"], {"role": "assistant", "content": begun}]  # type: ignore[misc]
        more = ASKED | {"messages": messages, "continue_final_message": True, "max_tokens": 12 - made}
        assert begun + answer_to(more).text == whole.text
        doubled = more | {"messages": [*messages[:-1], {"role": "assistant", "content": begun + begun}]}
        assert begun + answer_to(doubled).text != whole.text


def test_a_stop_string_over_two_words_is_held_back() -> None:
    whole = generate("hello", 12, ignore_end=True)
    stop = whole.text[6:10]  # the end of the second word and the beginning of the third
    cut = generate("hello", 12, (stop,), ignore_end=True)
    assert (cut.text, cut.finish_reason) == (whole.text[:6], "stop")
    assert cut.pieces == (whole.pieces[0], "", whole.text[4:6])


def test_an_answer_that_goes_on_has_as_many_tokens_as_it_had_where_it_was_made() -> None:
    messages = [{"role": "user", "content": "hello"}]
    fields = {"messages": messages, "max_tokens": 9, "ignore_eos": True}
    answer = answer_to(fields)
    said = {"role": "assistant", "content": answer.text}
    doubled = {**fields, "messages": [*messages, said], "continue_final_message": True}
    assert tokens_of(prompt_of(doubled)) == tokens_of(prompt_of(fields)) + len(answer.pieces)


def stream(fields: dict, *, without: bytes = b"", number: int = 1) -> Answer:
    shape, answer = Shape(fields, number, "stub"), answer_to(fields)
    usage = usage_of("<user>hello</><assistant>", len(answer.pieces))
    body = shape.first() + b"".join(map(shape.token, answer.pieces)) + shape.last(answer.finish_reason, usage)
    return Answer(0.0, status=200, body=bytearray(body.replace(without, b"") if without else body), complete=True)


def test_verdicts_of_streams() -> None:
    expected = Expected.of(ASKED)
    first = json.dumps(answer_to(ASKED).pieces[3]).encode()
    error = b'data: {"error": {"message": "lost"}}\n\n'
    broken = stream(ASKED)
    broken.complete = False
    refused = Answer(0.0, status=400, complete=True)
    busy = Answer(0.0, status=503, complete=True)
    with_error = stream(ASKED, without=b"data: [DONE]\n\n")
    with_error.body += error
    verdicts = [
        judge(answer, expected, stream=True)[0]
        for answer in (
            stream(ASKED), stream(ASKED, without=first[1:-1]), stream(ASKED, without=b"data: [DONE]\n\n"), broken,
            refused, busy, with_error,
        )
    ]  # fmt: skip
    assert verdicts == [
        Verdict.RIGHT, Verdict.WRONG, Verdict.SILENT_CUT, Verdict.LOST, Verdict.REFUSED, Verdict.LOST, Verdict.LOST,
    ]  # fmt: skip


@pytest.mark.parametrize(("completion", "prompt"), [(11, 6), (12, 9)])
def test_usage_must_be_that_of_an_undisturbed_answer(completion: int, prompt: int) -> None:
    fields = ASKED | {"stream_options": {"include_usage": True}}
    right = stream(fields)
    assert judge(right, Expected.of(fields), stream=True)[0] is Verdict.RIGHT
    said = f'"prompt_tokens": {prompt}, "completion_tokens": {completion}'.encode()
    right.body = bytearray(bytes(right.body).replace(b'"prompt_tokens": 6, "completion_tokens": 12', said))
    assert judge(right, Expected.of(fields), stream=True)[0] is Verdict.WRONG


def test_the_prefix_cache_is_bounded_and_forgets_ends_first() -> None:
    cache, text = PrefixCache(4 * BLOCK_TOKENS), "a" * 4 * 4 * BLOCK_TOKENS
    old, new = blocks_of(text), blocks_of("b" + text)
    cache.add(old)
    assert cache.match(old) == 4
    cache.add(new[:2])
    assert (cache.match(old), cache.match(new)) == (2, 2)


def test_an_engine_computes_what_is_not_in_its_cache_and_batches() -> None:
    async def run() -> tuple[list[int], int]:
        engine, done = Engine(Costs(step_s=1e-4, prefill_rate=1e9, batch=2, cache_tokens=1 << 16)), asyncio.Event()
        order: list[int] = []

        def ended(number: int, made: int) -> None:
            if made == 1:
                order.append(number)
            if len(order) == 3:
                done.set()

        for number in range(3):
            job = Job(1024, 2, lambda made, number=number: ended(number, made))  # type: ignore[misc]
            engine.submit(job, "a" * 4096)
        await done.wait()
        return order, engine.cached_tokens

    assert asyncio.run(run()) == ([0, 1, 2], 2 * 1023)  # all but the last token, which is always computed
