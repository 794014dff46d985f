"""Prompts are refused by their bytes before they are tokenized, and big ones do not hold up small ones."""

import asyncio
import threading
from pathlib import Path

import pytest

from slurminfer.nodes.native.api.encoding import PromptEncoder
from slurminfer.nodes.native.engine.request import Limits, RequestTooLongError
from slurminfer.nodes.native.tokenizer import Tokenizer

SMALL, BIG = "The quick brown fox", "x" * 300_000


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, make_tokenizer) -> Tokenizer:
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(directory)
    return Tokenizer(directory)


class Slow(Tokenizer):
    """Waits in the middle of a big prompt, and never tokenizes two of them at once."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.go_on, self.big = threading.Event(), threading.Lock()
        self.begun = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        if len(text) < 1000:
            return super().encode(text, add_special_tokens=add_special_tokens)
        assert self.big.acquire(blocking=False), "two big prompts at once"
        self.begun += 1
        self.go_on.wait(60)
        self.big.release()
        return [0]


def _limits(tokens: int) -> Limits:
    return Limits(context_length=tokens, cache_tokens=10**9, vocab_size=320)


def _encode(encoder: PromptEncoder, text: str, tokens: int) -> list[int]:
    return asyncio.run(encoder.encode(text, _limits(tokens), add_special_tokens=False))


def test_a_text_of_the_longest_tokens_passes_and_one_byte_more_is_refused_unread(tokenizer, monkeypatch):
    encoder = PromptEncoder(tokenizer)
    longest = max((tokenizer.token_bytes(id) for id in range(320)), key=len)
    assert tokenizer.longest_token >= len(longest)
    assert len(_encode(encoder, longest.decode() * 7, 7)) == 7
    most = encoder.most_bytes(_limits(7))
    monkeypatch.setattr(tokenizer, "encode", lambda *_, **__: pytest.fail("tokenized"))
    for text in ("x" * (most + 1), "ä" * (most // 2 + 1), "x" * 10**7):
        with pytest.raises(RequestTooLongError, match="maximum context length is 7 tokens, but the prompt has"):
            _encode(encoder, text, 7)


@pytest.mark.parametrize("text", [SMALL, "", "こんにちは 🎉" * 20_000])
def test_prompts_of_any_size_get_the_same_tokens(tokenizer, text):
    ids = tokenizer._tokenizer.encode(text, add_special_tokens=False).ids
    assert _encode(PromptEncoder(tokenizer), text, 10**9) == ids


def test_big_prompts_wait_for_one_another_and_small_ones_pass(tmp_path, make_tokenizer):
    make_tokenizer(tmp_path)
    slow = Slow(tmp_path)
    encoder, limits = PromptEncoder(slow), _limits(10**9)

    async def run() -> None:
        tasks = [asyncio.create_task(encoder.encode(BIG, limits, add_special_tokens=False)) for _ in range(3)]
        while not slow.begun:
            await asyncio.sleep(0)
        tasks[0].cancel()  # its thread works on: the next one must wait nevertheless
        tasks[1].cancel()
        small = [encoder.encode(SMALL, limits, add_special_tokens=False) for _ in range(20)]
        assert all(await asyncio.gather(*small))
        assert slow.begun == 1
        slow.go_on.set()
        assert await tasks[2] == [0]
        assert slow.begun == 2  # nothing is done for clients that have left before
        encoder.close()

    asyncio.run(run())


def test_tokenizing_a_long_text_leaves_the_gil_to_others(tokenizer):
    """Counts what another thread does meanwhile: with the GIL held it would do nothing."""
    done, turns = threading.Event(), 0

    def work() -> None:
        tokenizer.encode(SMALL * 20_000, add_special_tokens=False)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        turns += 1
    thread.join()
    assert turns > 1000
