"""Log-probabilities of completions: the sampled token is always there."""

from typing import Any

import pytest

from slurminfer.nodes.native.api.answers.completion_format import CompletionFormat
from slurminfer.nodes.native.api.answers.formats import Origin
from slurminfer.nodes.native.api.answers.generation import Delta
from slurminfer.nodes.native.engine.request import FinishReason, TokenLogprobs

WORDS = {1: b"a", 2: b"b", 3: b"c", 4: b"\xf0", 5: b"\xf1", 6: b"a"}


class Words:
    def token_bytes(self, id: int) -> bytes:
        return WORDS[id]


def _logprobs(*tokens: tuple[int, TokenLogprobs]) -> Any:
    deltas = [Delta(0, "x", token, logprobs, None) for token, logprobs in tokens]
    deltas.append(Delta(0, "", None, None, FinishReason.STOP))
    format = CompletionFormat(Words(), Origin("m", "f", include_usage=False))  # type: ignore[arg-type]
    return format.whole(deltas, {})["choices"][0]["logprobs"]


def test_the_sampled_token_is_one_more_if_it_is_none_of_the_best():
    best = ((1, -0.5), (2, -1.0))
    found = _logprobs((3, TokenLogprobs(-3.0, best)), (2, TokenLogprobs(-1.0, best)))
    assert found["tokens"] == ["c", "b"]
    assert found["top_logprobs"] == [{"a": -0.5, "b": -1.0, "c": -3.0}, {"a": -0.5, "b": -1.0}]


def test_without_alternatives_there_is_null():
    found = _logprobs((3, TokenLogprobs(-3.0, ())), (1, TokenLogprobs(-0.5, ())))
    assert found["token_logprobs"] == [-3.0, -0.5]
    assert found["top_logprobs"] is None


@pytest.mark.parametrize(("sampled", "value"), [(4, -0.5), (5, -1.0), (1, -2.0)])
def test_parts_of_characters_are_told_apart(sampled, value):
    chosen = {4: -0.5, 5: -1.0, 1: -2.0}[sampled]
    [top] = _logprobs((sampled, TokenLogprobs(chosen, ((4, -0.5), (5, -1.0)))))["top_logprobs"]
    assert {name: top[name] for name in ("bytes:\\xf0", "bytes:\\xf1")} == {"bytes:\\xf0": -0.5, "bytes:\\xf1": -1.0}
    assert top[{4: "bytes:\\xf0", 5: "bytes:\\xf1", 1: "a"}[sampled]] == value


@pytest.mark.parametrize("sampled", [1, 6])
def test_of_tokens_with_one_text_the_better_one_is_told(sampled):
    """Programs such as lm-eval take a token for the best one if its value is the highest of all."""
    chosen = {1: -0.5, 6: -3.0}[sampled]
    [top] = _logprobs((sampled, TokenLogprobs(chosen, ((1, -0.5), (2, -1.0)))))["top_logprobs"]
    assert top == {"a": -0.5, "b": -1.0}
