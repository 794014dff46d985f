"""`slurminfer keys`, on a stopped deployment: add prints a key once, list shows limits and usage, revoke ends it."""

import json
import re

import msgspec
import pytest
from typer.testing import CliRunner

from slurminfer.cli import app
from slurminfer.core.errors import RunNotFoundError, UsageError
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.serve.keys import tenants_of
from slurminfer.router.tenants.key_store import KeyStore, digest_of
from slurminfer.router.tenants.tenant import Usage
from slurminfer.router.tenants.usage import UsageLedger
from slurminfer.router.tenants.usage_files import TenantUsage


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    run = RunDirectory.named("demo")
    run.create()
    run.write_spec(parse_spec("name = 'demo'\n[model]\npath = 'x'\n[[pool]]\nname = 'cpu'"))
    return run


def keys(*words):
    return CliRunner().invoke(app, ["keys", "demo", *words])


def test_a_new_key_stands_alone_on_stdout_and_nowhere_else(run):
    done = keys("add", "alice", "--priority", "interactive", "--requests-per-minute", "60", "--account", "physics")
    assert done.exit_code == 0
    assert re.fullmatch(r"sk-[0-9a-f]{64}\n", done.stdout)
    assert "shown once" in done.stderr
    (record,) = KeyStore(run).read()
    assert record.digest == digest_of(done.stdout.strip().encode())
    assert (record.priority, record.requests_per_minute, record.account) == ("interactive", 60, "physics")
    listed = keys("list").stdout + keys("list", "--json").stdout
    assert done.stdout.strip() not in listed
    assert record.digest not in listed


def test_the_list_has_limits_and_usage(run):
    keys("add", "alice", "--tokens-per-day", "5000", "--weight", "2.5")
    keys("add", "bob")
    ledger = UsageLedger(run.usage_path)
    ledger.merge(0, {"alice": Usage(requests=3, prompt_tokens=1200, cached_tokens=700, generated_tokens=50)})
    ledger.merge(0, {"bob": Usage(requests=1), "owner": Usage(requests=9)})
    ledger.write()
    keys("revoke", "bob")
    table = keys("list").stdout
    assert re.search(r"alice +default +2\.5 +5,000", table)
    assert re.search(r"alice +3 +1,200 +700 +50 +1,250", table)
    assert re.search(r"bob \(revoked\) +1 ", table)
    told = {one["tenant"]: one for one in json.loads(keys("list", "--json").stdout)}
    assert list(told) == ["owner", "alice", "bob"]
    assert [one["state"] for one in told.values()] == ["own", "active", "revoked"]
    assert told["alice"]["cached_tokens"] == 700
    assert told["owner"]["requests"] == 9


def test_todays_tokens_are_those_of_the_utc_day():
    days = {"2024-10-03": Usage(prompt_tokens=5), "2024-10-04": Usage(prompt_tokens=2, generated_tokens=1)}
    usage = {"owner": TenantUsage(total=Usage(prompt_tokens=7, generated_tokens=1), days=days)}
    (view,) = tenants_of([], usage, 20_000 * 86_400)
    assert (view.tokens_today, view.prompt_tokens) == (3, 7)


def test_mistakes_are_told_in_one_line_each(run):
    keys("add", "alice")
    for words, said in (
        (("add", "alice"), "has a key already"),
        (("add", "a b"), "tenant = 'a b': expected letters"),
        (("add", "carol", "--priority", "top"), "expected interactive, default or batch"),
        (("revoke", "bob"), "there are: alice"),
    ):
        error = keys(*words).exception
        assert isinstance(error, UsageError)
        assert said in str(error)
    unknown = CliRunner().invoke(app, ["keys", "nope", "list"]).exception
    assert isinstance(unknown, RunNotFoundError)
    assert "there are: demo" in str(unknown)


def test_limits_of_a_key_are_changed_and_taken_away_and_the_rest_stays(run):
    keys(
        "add", "alice", "--priority", "batch", "--requests-per-minute", "60", "--tokens-per-day", "9", "--account", "a"
    )
    keys("add", "bob")
    before, bob = KeyStore(run).read()
    done = keys("set", "alice", "--requests-per-minute", "none", "--tokens-per-day", "9", "--account", "none")
    assert done.exit_code == 0 and done.stdout == "key of 'alice' changed\n"
    changes = {"requests_per_minute": None, "tokens_per_day": 9, "account": None}
    assert KeyStore(run).read() == [msgspec.structs.replace(before, **changes), bob]
    keys("set", "alice", "--weight", "2", "--priority", "interactive")
    assert KeyStore(run).read()[0] == msgspec.structs.replace(before, **changes, weight=2.0, priority="interactive")


def test_a_change_that_cannot_be_is_told_in_one_line(run):
    keys("add", "alice", "--requests-per-minute", "60")
    before = run.keys_path.read_bytes()
    for words, said in (
        (("alice",), "nothing to change for 'alice': expected at least one of --priority, --weight"),
        (("bob", "--weight", "2"), "tenant = 'bob': there is no such key (there are: alice)"),
        (("owner", "--weight", "2"), "cannot be changed"),
        (("alice", "--requests-per-minute", "many"), "--requests-per-minute = 'many': expected a whole number"),
        (("alice", "--requests-per-minute", "0"), "--requests-per-minute = 0: expected a whole number from 1"),
        (("alice", "--tokens-per-day", "9" * 5000), "--tokens-per-day = 99999999999999999999: expected"),
        (("alice", "--priority", "none"), "expected interactive, default or batch"),
    ):
        error = keys("set", *words).exception
        assert isinstance(error, UsageError)
        assert said in str(error)
    assert run.keys_path.read_bytes() == before


def test_sglang_router_knows_no_tenants(run):
    spec = "name = 'demo'\n[model]\npath = 'x'\n[[pool]]\nname = 'cpu'\n[router]\nbackend = 'sglang'"
    run.write_spec(parse_spec(spec))
    done = keys("add", "alice")
    assert done.exit_code != 0 and isinstance(done.exception, UsageError)
    assert "router.backend = 'sglang'" in str(done.exception) and not run.keys_path.exists()
