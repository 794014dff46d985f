"""A store of kept responses, and what fills it."""

import pytest
from msgspec import Raw

from slurminfer.router.responses.ids import new_id, parsed
from slurminfer.router.responses.limits import Limits
from slurminfer.router.responses.record import Record
from slurminfer.router.responses.store import ResponseStore

from ...support.clock import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store_of(tmp_path, clock):
    return lambda **limits: ResponseStore(tmp_path / "responses", Limits(**{"seconds": 60, **limits}), clock)


@pytest.fixture
def keep(clock):
    """Keeps a response of so many bytes, a millisecond later than the one before."""

    def keep(store, tenant="one", size=10, previous=""):
        clock.now += 0.001
        id = new_id(tenant, clock.now, parsed(previous))
        response = Raw(b'"' + b"x" * size + b'"')
        record = Record(id=id, tenant=tenant, response=response, input=Raw(b"[1]"), previous=previous)
        if store.keep(record, lambda: Raw(b'["before"]')):
            store.tidy(id)
        return id

    return keep


def files_in(tmp_path):
    return [path for path in (tmp_path / "responses").rglob("*") if path.is_file()]
