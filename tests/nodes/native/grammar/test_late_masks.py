"""Masks that take long are computed beside the engine's thread, and hold up no other sequence."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.grammar.matcher import Grammar

from ....support.fake_model import VOCAB, FakeModel, alone, make_core, make_request, run

FIRST = 4  # the tokens that the grammar allows at odd places; at even ones the next one


class Library:
    """A grammar of two tokens in turns. Each mask but the first waits for `go`, if it is not set."""

    def __init__(self, go: threading.Event, place: int = 0) -> None:
        self.go, self.place = go, place

    def deep_copy(self) -> "Library":
        return Library(self.go, self.place)

    def compute_bitmask(self) -> bytes:
        if self.place:
            assert self.go.wait(60)
        return (1 << FIRST + self.place % 2).to_bytes((VOCAB + 7) // 8, "little")

    def consume_token(self, token: int) -> bool:
        self.place += 1
        return token == FIRST + (self.place - 1) % 2

    def is_error(self) -> bool:
        return False

    def is_accepting(self) -> bool:
        return False

    def is_stopped(self) -> bool:
        return False


@pytest.fixture
def go():
    """Set at the end, so that no thread waits for ever."""
    event = threading.Event()
    yield event
    event.set()


def _structured(library: Library, tokens: int = 6) -> Request:
    grammar = Grammar(library, VOCAB, frozenset(), lambda: 0.0)  # type: ignore[arg-type]
    return Request("slow", [1, 2], SamplingParams(max_tokens=tokens, temperature=0, grammar=grammar))


@pytest.mark.parametrize("depth", [1, 2])
def test_a_sequence_whose_mask_is_late_sits_out_and_its_neighbours_go_on(go, depth):
    core = make_core(FakeModel(100, 4, depth=depth))
    core.submit([_structured(Library(go))])
    core.submit([make_request("other", [0, 1], 20, end=None)])
    said: dict[str, list[int]] = {"slow": [], "other": []}
    while len(said["other"]) < 20:
        for output in core.step():
            said[output.request.id].append(output.token)
    assert said == {"slow": [FIRST], "other": alone([0, 1], 20, end=None)}
    assert core.step() == []  # it waits for the mask, and does not turn in circles
    go.set()
    while core.busy:
        said["slow"] += [output.token for output in core.step()]
    assert said["slow"] == [FIRST, FIRST + 1] * 3
    assert core.stats().kv_blocks_used == 0


def test_a_sequence_that_is_aborted_while_its_mask_is_computed_leaves_nothing(go):
    core = make_core(FakeModel(100, 4))
    core.submit([_structured(Library(go))])
    while core.step() == []:
        pass
    core.abort("slow")
    assert core.stats().kv_blocks_used == 0
    core.submit([make_request("other", [0, 1], 3, end=None)])
    assert run(core) == {"other": alone([0, 1], 3, end=None)}
    assert core.stats().kv_blocks_used == 0


def test_masks_of_a_quick_grammar_are_computed_at_once(go, monkeypatch):
    go.set()
    begun = []

    def submit(self, work):
        begun.append(work)
        return _Done(work)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    core = make_core(FakeModel(200, 4))
    core.submit([_structured(Library(go), tokens=100)])
    said = []
    while core.busy:
        said += [output.token for output in core.step()]
    assert said == [FIRST, FIRST + 1] * 50
    assert 0 < len(begun) < 30  # the first ones: nobody knows yet


class _Done:
    """What a thread has done already."""

    def __init__(self, work) -> None:
        self._found = work()

    def done(self) -> bool:
        return True

    def result(self) -> bytes:
        found: bytes = self._found
        return found


def test_answers_are_the_same_as_with_masks_at_once(go):
    go.set()
    answers = []
    for is_quick in (False, True):
        request = _structured(Library(go), tokens=9)
        assert request.params.grammar is not None
        request.params.grammar._longest_s = 0.0 if is_quick else 1.0
        core = make_core(FakeModel(100, 4))
        core.submit([request, make_request("other", [0, 1], 9, end=None)])
        said: dict[str, list[int]] = {}
        while core.busy:
            for output in core.step():
                said.setdefault(output.request.id, []).append(output.token)
        answers.append(said)
    assert answers[0] == answers[1]
