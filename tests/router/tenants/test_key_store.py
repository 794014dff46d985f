"""Keys: made once, kept as hashes, changed by one at a time, read again by the router when they change."""

import asyncio
import hashlib
import json
import logging
import os
import stat
import threading

import msgspec
import pytest

from slurminfer.core.errors import RunDirectoryError, UsageError
from slurminfer.core.rundir import RunDirectory
from slurminfer.router.tenants.key_store import MOST_KEYS, KeyRecord, KeyStore, digest_of
from slurminfer.router.tenants.registry import TenantRegistry
from slurminfer.router.tenants.tenant import Priority


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    run = RunDirectory.named("demo")
    run.create()
    return run


@pytest.fixture
def store(run):
    return KeyStore(run)


def test_the_file_has_hashes_only_and_is_for_its_owner_alone(run, store):
    key = store.add("alice", priority="batch", weight=2, requests_per_minute=3, tokens_per_day=4, account="physics")
    text = run.keys_path.read_text(encoding="utf-8")
    assert key not in text
    assert key.removeprefix("sk-") not in text
    assert stat.S_IMODE(run.keys_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(run.keys_lock_path.stat().st_mode) == 0o600
    (record,) = store.read()
    assert record.digest == hashlib.sha256(key.encode()).hexdigest()
    tenant = record.as_tenant(7)
    assert (tenant.slot, tenant.priority, tenant.weight, tenant.account) == (7, Priority.BATCH, 2, "physics")
    assert (tenant.requests_per_minute, tenant.tokens_per_day, tenant.admin) == (3, 4, False)


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("a b", {}, "tenant = 'a b': expected letters"),
        ("", {}, "tenant = ''"),
        ("-x", {}, "beginning with a letter"),
        ("a\nb", {}, "tenant = 'a\\nb'"),
        ("a" * 64, {}, "at most 63"),
        ("owner", {}, "this deployment's own key has that name"),
        ("metrics", {}, "this deployment's own key has that name"),
        ("alice", {"priority": "high"}, "--priority = 'high': expected interactive, default or batch"),
        ("alice", {"weight": 0}, "--weight = 0"),
        ("alice", {"weight": float("nan")}, "--weight = nan"),
        ("alice", {"weight": float("inf")}, "--weight = inf"),
        ("alice", {"requests_per_minute": 0}, "--requests-per-minute = 0"),
        ("alice", {"tokens_per_day": -1}, "--tokens-per-day = -1"),
        ("alice", {"account": "a;b"}, "--account = 'a;b'"),
    ],
)
def test_what_cannot_be_is_refused_with_what_is_valid(run, store, name, words, said):
    with pytest.raises(UsageError) as caught:
        store.add(name, **words)
    assert said in str(caught.value)
    assert not run.keys_path.exists()


def test_names_are_different(store):
    store.add("alice")
    with pytest.raises(UsageError, match="has a key already"):
        store.add("alice")


def test_an_unknown_name_is_answered_with_those_that_there_are(store):
    store.add("alice")
    store.add("bob")
    with pytest.raises(UsageError, match=r"'carol': there is no such key \(there are: alice, bob\)"):
        store.revoke("carol")
    with pytest.raises(UsageError, match="cannot be revoked"):
        store.revoke("owner")
    store.revoke("alice")
    assert [key.tenant for key in store.read()] == ["bob"]


def test_there_is_a_bound(run, store):
    digest = "0" * 64
    store._write([KeyRecord(tenant=f"t{number}", digest=digest) for number in range(MOST_KEYS)])
    with pytest.raises(UsageError, match="2000 keys"):
        store.add("one-more")


def test_changes_at_the_same_time_are_all_kept(run):
    threads = [threading.Thread(target=KeyStore(run).add, args=(f"tenant-{number}",)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(KeyStore(run).read()) == 12


DIGEST = "0" * 64


def holder(registry: TenantRegistry, key: bytes) -> str | None:
    """Whose key it is."""
    return next((tenant.name for tenant in registry.tenants if tenant.digest == digest_of(key)), None)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"version": 2, "keys": []}',
        '{"keys": [{"tenant": "a"}]}',
        json.dumps({"keys": [{"tenant": "a", "digest": "short"}]}),
        json.dumps({"keys": [{"tenant": "a", "digest": DIGEST}] * 2}),
        json.dumps({"keys": [{"tenant": "a b", "digest": DIGEST}]}),
        json.dumps({"keys": [{"tenant": "owner", "digest": DIGEST}]}),
        json.dumps({"keys": [{"tenant": "a", "digest": DIGEST, "priority": "high"}]}),
        json.dumps({"keys": [{"tenant": "a", "digest": DIGEST, "weight": 0}]}),
    ],
)
def test_a_damaged_file_is_an_error_and_is_not_overwritten(run, store, content):
    run.keys_path.write_text(content, encoding="utf-8")
    run.keys_path.chmod(0o600)
    for change in (store.read, lambda: store.add("alice"), lambda: store.revoke("alice")):
        with pytest.raises(RunDirectoryError, match=r"keys\.json"):
            change()
    assert run.keys_path.read_text(encoding="utf-8") == content


def test_the_deployments_own_keys_are_tenants_too(run):
    owner, metrics = TenantRegistry(run, 10).tenants
    assert (owner.name, owner.admin, owner.metrics_only, owner.priority) == ("owner", True, False, Priority.INTERACTIVE)
    assert (metrics.name, metrics.admin, metrics.metrics_only) == ("metrics", False, True)
    assert owner.digest == digest_of(run.key().encode())
    assert metrics.digest == digest_of(run.metrics_key().encode())


def test_the_router_sees_a_new_key_and_forgets_a_revoked_one(run, store):
    registry = TenantRegistry(run, 10)
    assert not registry.look()
    key = store.add("alice").encode()
    assert registry.look()
    assert holder(registry, key) == "alice"
    assert not registry.look()
    store.revoke("alice")
    assert registry.look()
    assert holder(registry, key) is None


def test_the_router_sees_other_limits_of_the_same_key(run, store):
    key = store.add("alice", requests_per_minute=60).encode()
    registry = TenantRegistry(run, 10)
    before = registry.tenants[-1]
    store.change("alice", requests_per_minute=None, tokens_per_day=500, weight=2.0)
    assert registry.look()
    changed = msgspec.structs.replace(before, requests_per_minute=None, tokens_per_day=500, weight=2.0)
    assert registry.tenants[-1] == changed and holder(registry, key) == "alice"


def test_a_name_keeps_its_column(run, store):
    store.add("alice")
    store.add("bob")
    registry = TenantRegistry(run, 10)
    before = {tenant.name: tenant.slot for tenant in registry.tenants}
    assert sorted(before.values()) == [0, 1, 2, 3]
    store.revoke("alice")
    registry.look()
    store.add("carol")
    store.add("alice")
    registry.look()
    after = {tenant.name: tenant.slot for tenant in registry.tenants}
    assert after == {**before, "carol": 4}
    assert registry.slots == after


def test_a_broken_file_changes_nothing_and_is_complained_about_once(run, store, caplog):
    key = store.add("alice").encode()
    registry = TenantRegistry(run, 10)
    good = run.keys_path.read_text(encoding="utf-8")
    run.keys_path.write_text(good[:-20], encoding="utf-8")
    for _ in range(3):
        assert not registry.look()
    assert holder(registry, key) == "alice"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert str(run.keys_path) in caplog.text
    run.keys_path.chmod(0o666)
    assert not registry.look()
    assert "chmod go-w" in caplog.text
    run.keys_path.chmod(0o600)
    run.keys_path.write_text(good, encoding="utf-8")
    store.revoke("alice")
    assert registry.look()
    assert holder(registry, key) is None


def test_a_router_that_starts_with_a_broken_file_knows_its_own_keys(run, caplog):
    run.keys_path.write_text("{", encoding="utf-8")
    run.keys_path.chmod(0o600)
    assert [tenant.name for tenant in TenantRegistry(run, 10).tenants] == ["owner", "metrics"]
    assert "keys.json" in caplog.text


def test_a_change_of_the_same_size_and_time_is_seen(run, store):
    store.add("alice")
    registry = TenantRegistry(run, 10)
    times = run.keys_path.stat()
    store.revoke("alice")
    key = store.add("carol").encode()
    os.utime(run.keys_path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert registry.look()
    assert holder(registry, key) == "carol"


def test_tenants_beyond_the_boards_columns_are_told(run, store, caplog):
    for name in ("alice", "bob"):
        store.add(name)
    registry = TenantRegistry(run, 3)
    assert [tenant.name for tenant in registry.tenants] == ["owner", "metrics", "alice"]
    assert "'bob'" in caplog.text


def test_watching_tells_of_changes(run, store):
    async def watched():
        registry, told = TenantRegistry(run, 10), asyncio.Event()
        found: list[str] = []

        def changed(tenants):
            found.extend(tenant.name for tenant in tenants)
            told.set()

        task = asyncio.create_task(registry.watch(changed, period_s=0))
        store.add("alice")
        await told.wait()
        task.cancel()
        return found

    assert asyncio.run(watched()) == ["owner", "metrics", "alice"]
