"""The store that ranks share: what each method does, over the same table and over a lifeline, in many threads."""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import torch
import torch.distributed as dist
from torch.distributed import DistStoreError, HashStore, PrefixStore  # type: ignore[attr-defined]

from slurminfer.nodes.native.model.parallel.rendezvous import key_table
from slurminfer.nodes.native.model.parallel.rendezvous.failure_detector import FailureDetector
from slurminfer.nodes.native.model.parallel.rendezvous.key_table import KeyTable
from slurminfer.nodes.native.model.parallel.rendezvous.lifeline import Lifeline
from slurminfer.nodes.native.model.parallel.rendezvous.messages import Answer, Get, Set, decode_to_rank_0, encode
from slurminfer.nodes.native.model.parallel.rendezvous.store import RankStore

LONG, SHORT = timedelta(seconds=30), timedelta(milliseconds=50)
KEY = "a worker's secret"


@pytest.fixture
def stores() -> Iterator[tuple[RankStore, RankStore]]:
    """Those of rank 0 and of another rank, here in one process."""
    failures = queue.SimpleQueue[object]()
    detector = FailureDetector("127.0.0.1:0", 1, KEY, queue.SimpleQueue(), failures.put)
    ended = threading.Event()
    lifeline = Lifeline(detector.address, 1, KEY, queue.SimpleQueue(), on_end=lambda _: ended.set())
    detector.wait_for_ranks(60)
    yield RankStore(detector.ask, LONG), RankStore(lifeline.ask, LONG)
    detector.close()
    assert ended.wait(10)
    lifeline.close()


@pytest.fixture(params=["rank 0", "another rank"])
def store(stores, request) -> RankStore:
    return stores[0] if request.param == "rank 0" else stores[1]


def test_every_method_does_what_pytorchs_own_stores_do(store):
    own: Any = HashStore()
    for each in (store, own):
        each.set("text", "words")
        each.set("empty", b"")
        each.append("text", " more")
        each.append("new", "first")
        each.multi_set(["a", "b"], ["1", "2"])
    calls = [
        lambda s: s.get("text"),
        lambda s: s.get("empty"),
        lambda s: s.get("new"),
        lambda s: s.multi_get(["b", "a"]),
        lambda s: [s.add("count", 5), s.add("count", -7), s.add("a", 1)],
        lambda s: s.get("count"),
        lambda s: [s.check(["a", "b"]), s.check(["a", "absent"]), s.check([])],
        lambda s: s.compare_set("fresh", "", "set"),
        lambda s: s.compare_set("fresh", "other", "not"),
        lambda s: s.compare_set("fresh", "set", "again"),
        lambda s: s.compare_set("absent", "something", "not"),
        lambda s: [s.delete_key("fresh"), s.delete_key("fresh")],
        lambda s: s.has_extended_api(),
        lambda s: s.wait(["a", "b"]),
        lambda s: s.wait(["a"], LONG),
    ]
    for call in calls:
        assert call(store) == call(own)
    assert store.num_keys() == own.num_keys()


def test_bytes_of_any_value_come_back(store):
    store.set("bytes", bytes(range(256)))
    assert store.get("bytes") == bytes(range(256))
    assert PrefixStore("prefix", store).underlying_store is store
    PrefixStore("prefix", store).set("key", "through C++")
    assert store.get("prefix/key") == b"through C++"


def test_whoever_waits_is_told_as_soon_as_the_last_key_is_there(stores):
    first, other = stores
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(each.multi_get, ["x", "y"]) for each in (first, other)]
        waiting += [pool.submit(PrefixStore("p", each).get, "z") for each in (first, other)]
        other.set("x", "1")
        first.set("y", "2")
        other.set("p/z", "3")
        assert [each.result(10) for each in waiting] == [[b"1", b"2"], [b"1", b"2"], b"3", b"3"]


def test_a_wait_ends_with_its_timeout(store):
    with pytest.raises(DistStoreError, match=r"wait timeout after 0\.05 s, keys: absent"):
        store.wait(["absent"], SHORT)
    store.set_timeout(SHORT)
    with pytest.raises(DistStoreError, match="keys: absent"):
        store.get("absent")
    with pytest.raises(DistStoreError):
        PrefixStore("p", store).get("absent")


def test_many_threads_use_it_while_others_wait(stores):
    """As NCCL's watchdogs do, from C++, on clones of it."""
    first, other = stores

    def work(number: int) -> None:
        own: Any = PrefixStore("", (first, other)[number % 2])
        own = own.clone()
        for turn in range(50):
            own.add("total", 1)
            own.set(f"{number}/{turn}", str(turn))
            assert own.check([f"{number}/{turn}"])
            assert own.get(f"{number}/{turn}") == str(turn).encode()

    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(each.get, "end") for each in (first, other) for _ in range(4)]
        list(pool.map(work, range(8)))
        assert first.add("/total", 0) == 400
        assert not any(each.done() for each in waiting)
        other.set("end", "now")
        assert {each.result(10) for each in waiting} == {b"now"}


def test_where_rank_0_is_gone_calls_fail_and_so_does_who_waits():
    detector = FailureDetector("127.0.0.1:0", 1, KEY, queue.SimpleQueue(), lambda _: None)
    ended = threading.Event()
    lifeline = Lifeline(detector.address, 1, KEY, queue.SimpleQueue(), on_end=lambda _: ended.set())
    store = RankStore(lifeline.ask, LONG)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.get, "absent")
        store.set("x", "the request before has arrived")
        detector.close()
        with pytest.raises(DistStoreError, match="rank 0 has ended"):
            waiting.result(10)
    assert ended.wait(10)
    with pytest.raises(DistStoreError, match="rank 0 has ended"):
        store.set("x", "1")
    lifeline.close()


def test_gloo_meets_over_it(stores):
    with ThreadPoolExecutor(2) as pool:
        groups: list[Any] = list(pool.map(lambda rank: dist.ProcessGroupGloo(stores[rank], rank, 2, LONG), range(2)))
    tensors = [torch.tensor([1.0]), torch.tensor([2.0])]
    works = [group.allreduce([tensor]) for group, tensor in zip(groups, tensors, strict=True)]
    for work in works:
        work.wait()
    assert [float(tensor) for tensor in tensors] == [3.0, 3.0]


def test_a_store_has_room_for_so_much(monkeypatch):
    monkeypatch.setattr(key_table, "_MAX_KEYS", 2)
    monkeypatch.setattr(key_table, "_MAX_BYTES", 100)
    store = RankStore(KeyTable().ask, LONG)
    store.multi_set(["a", "b"], ["1", "2"])
    for refused in (lambda: store.set("c", "3"), lambda: store.add("c", 3), lambda: store.set("a", "x" * 100)):
        with pytest.raises(DistStoreError, match="the store is full: 2 keys, 4 bytes"):
            refused()
    store.delete_key("b")
    store.set("a", "x" * 90)  # in place of what was there
    with pytest.raises(DistStoreError, match="no number"):
        store.add("a", 1)


def test_a_wait_that_was_given_up_is_forgotten():
    table, told = KeyTable(), list[Answer]()
    table.ask(Get(1, ["x"], 0.0), told.append)
    table.ask(Set(2, {"x": b"1"}), told.append)
    assert told == [Answer(2)]


@pytest.mark.parametrize(
    "request_",
    [Get(1, ["k" * 1025], 1.0), Get(1, ["k"] * 4097, 1.0), Set(1, {"k": bytes((1 << 20) + 1)})],
    ids=["a long key", "many keys", "a long value"],
)
def test_requests_are_bounded(request_):
    with pytest.raises(msgspec.ValidationError):
        decode_to_rank_0(encode(request_))
