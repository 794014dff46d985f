"""Turns in memory."""

from msgspec import Raw

from slurminfer.router.responses.recent import Recent
from slurminfer.router.responses.record import Record

from .test_turns import chain, turns_of


def record(id, size, tenant="one"):
    return Record(id=id, tenant=tenant, response=Raw(b"x" * size), input=Raw())


def test_those_that_were_not_used_for_longest_go():
    recent = Recent(most_bytes=10_000)
    for id in "abc":
        recent.put(record(id, 1000))
    assert recent.get("one", "a") is not None
    recent.put(record("d", 1000))
    recent.put(record("e", 1000))
    assert [recent.get("one", id) is not None for id in "abcde"] == [True, False, True, True, True]
    recent.put(record("huge", 10_000))
    assert recent.get("one", "huge") is None and recent.get("one", "e") is not None


def test_what_is_put_twice_counts_once():
    recent = Recent(most_bytes=10_000)
    recent.put(record("other", 1000))
    for size in (10, 4000, 2000) * 20:
        recent.put(record("a", size))
    assert recent.get("one", "other") is not None
    last = recent.get("one", "a")
    assert last is not None and len(last.response) == 2000


def test_it_tells_tenants_apart():
    recent = Recent()
    recent.put(record("a", 1))
    assert recent.get("two", "a") is None


def test_a_turn_is_read_from_disk_once_and_the_last_one_each_time(store_of, keep, monkeypatch):
    ids = chain(store_of(), keep, 5)
    store, read = store_of(), []
    real = store._read

    def spy(tenant, id, *, is_removed):
        read.append(id.text)
        return real(tenant, id, is_removed=is_removed)

    monkeypatch.setattr(store, "_read", spy)
    assert turns_of(store, ids[-1]) == turns_of(store, ids[-1]) == ids
    assert read == [*ids[::-1], ids[-1]]
    store_of().delete("one", ids[-1])
    assert turns_of(store, ids[-1]) is None
