"""/v1/batches: what is taken and what is refused, and whose requests those of batches are."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from slurminfer.router.tenants.key_store import KeyStore

CHAT = "/v1/chat/completions"
ASKED = {"endpoint": CHAT, "completion_window": "24h"}


@pytest.fixture
def file(one):
    return one.openai.files.create(file=("a.jsonl", b"{}\n"), purpose="batch").id


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input_file_id": None}, "input_file_id"),
        ({"endpoint": "/v1/other"}, "endpoint"),
        ({"endpoint": ["/v1/completions"]}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"other": 1}, "other"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"metadata": []}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3599}}, "output_expires_after"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": True}}, "output_expires_after"),
        ({"output_expires_after": {"anchor": "now", "seconds": 3600}}, "output_expires_after"),
        ({"output_expires_after": {"seconds": 3600}}, "output_expires_after"),
    ],
)
def test_what_cannot_be_is_refused_and_named(one, file, fields, param):
    answer = one.http.post("/v1/batches", json={"input_file_id": file, **ASKED, **fields})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param
    assert one.http.get("/v1/batches").json()["data"] == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"metadata": ' + b'{"a":' * 5000])
def test_a_body_that_is_no_object_is_refused(one, body):
    assert one.http.post("/v1/batches", content=body).status_code == 400


def test_a_body_that_is_too_large_is_refused(one):
    assert one.http.post("/v1/batches", content=b" " * (2**20 + 1)).status_code == 413


@pytest.mark.parametrize("limit", ["0", "101", "x", "9" * 5000, "%C2%B2", f"{1:020}9", f"{1:020}" + "9" * 5000])
def test_limits_of_pages(one, limit):
    assert one.http.get(f"/v1/batches?limit={limit}").status_code == 400


def test_limits_of_a_tenant(empty):
    empty.configure(batches=1, batch_files=2)
    empty.add("cpu-0")
    empty.start_router()
    ids = [empty.openai.files.create(file=("a", b"{}"), purpose="batch").id for _ in range(2)]
    answer = empty.http.post("/v1/files", data={"purpose": "batch"}, files={"file": b"{}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "file_limit_exceeded")
    asked = {"input_file_id": ids[0], **ASKED}
    assert empty.http.post("/v1/batches", json=asked).status_code == 200
    answer = empty.http.post("/v1/batches", json=asked)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "batch_limit_exceeded")
    assert answer.json()["error"]["type"] == "rate_limit_error" and answer.headers["Retry-After"] == "30"


def test_a_batch_may_be_cancelled_by_many_at_once(one, file):
    batch = one.openai.batches.create(input_file_id=file, **ASKED).id
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda _: one.http.post(f"/v1/batches/{batch}/cancel"), range(64))
        assert {answer.status_code for answer in answers} == {200}


def test_a_file_that_is_not_there(one):
    with pytest.raises(openai.NotFoundError):
        one.openai.batches.create(input_file_id="file-1", **ASKED)


def test_batches_are_listed_by_pages(one, file):
    made = [one.openai.batches.create(input_file_id=file, **ASKED).id for _ in range(5)]
    page = one.openai.batches.list(limit=2)
    assert [batch.id for batch in page.data] == made[:2:-1] and page.has_more
    assert [batch.id for batch in one.openai.batches.list(limit=2)] == made[::-1]
    assert [batch.id for batch in one.openai.batches.list(after=made[1])] == made[:1]


def test_other_methods(one):
    for method, path in (("PUT", "/v1/files"), ("DELETE", "/v1/batches"), ("POST", "/v1/files/file-1")):
        assert one.http.request(method, path).status_code in (404, 405)


def ask(one, key, name):
    headers = {"X-Api-Key": key, "X-Slurminfer-On-Behalf-Of": name}
    return httpx.post(one.url + CHAT, json={"model": "stub-model", "messages": []}, headers=headers)


def test_only_the_deployments_own_key_sends_for_others(one, eventually):
    keys = KeyStore(one.run)
    keys.add("course", requests_per_minute=2)
    other = keys.add("other")

    def used():
        found = one.http.get("/tenants").json()["tenants"]
        return {tenant["name"]: tenant["requests"] for tenant in found}

    eventually(lambda: ask(one, other, "x").status_code == 200)
    assert ask(one, other, "course").status_code == 200
    eventually(lambda: used().get("other") == 2)
    assert used()["course"] == 0, "it counts for whose key it is"
    own = one.run.key()
    assert [ask(one, own, "course").status_code for _ in range(3)] == [200, 200, 429], "within the tenant's limits"
    refused = ask(one, own, "nobody")
    assert refused.status_code == 401 and "no key any more" in refused.json()["error"]["message"]
    assert ask(one, own, "metrics").status_code == 401
