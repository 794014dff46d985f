"""Who may see which page, and errors in OpenAI's shape."""

import re

import pytest

from slurminfer.core.batches import BatchRecord
from slurminfer.core.records import WorkerState

PAGES = [
    "/v1/models",
    "/v1/models/stub-model",
    "/metrics",
    "/workers",
    "/load",
    "/status.json",
    "/tenants",
    "/nonsense",
]
ADMIN_ONLY = ["/metrics", "/workers", "/load"]


@pytest.mark.parametrize("path", PAGES)
def test_nothing_but_health_is_shown_without_a_key(site, path):
    site.start()
    answer = site.ask(path, tenant=None)
    assert answer.status_code == 401 and answer.json()["error"]["type"] == "authentication_error"
    assert site.json("/health", tenant=None) == {"status": "ok"}


@pytest.mark.parametrize("path", PAGES)
def test_a_tenant_sees_no_page_that_is_for_the_deployments_own_key(site, path):
    site.start()
    expected = 403 if path in ADMIN_ONLY else 404 if path == "/nonsense" else 200
    answer = site.ask(path, tenant="course")
    assert answer.status_code == expected
    if expected == 403:
        assert answer.json()["error"]["code"] == "admin_key_required"
        assert ("and the key for metrics" in answer.json()["error"]["message"]) == (path == "/metrics")


@pytest.mark.parametrize("path", PAGES)
def test_the_key_for_metrics_opens_nothing_else(site, path):
    site.start()
    assert site.ask(path, tenant="metrics").status_code == (200 if path == "/metrics" else 401)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_web_page_needs_no_key_and_allows_only_its_own_script(site, path):
    site.start()
    pages = [site.ask(path, tenant=tenant) for tenant in (None, "course", "owner")]
    assert {page.status_code for page in pages} == {200} and len({page.text for page in pages}) == 1
    policy = pages[0].headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'sha256-" in policy and "unsafe" not in policy
    assert not re.findall(r"\s(?:src|action)=\"", pages[0].text), "nothing comes from elsewhere"
    assert not re.findall(r"\shref=\"(?:(?!data:)\w+:|/)", pages[0].text), "links are relative: it may be below a path"
    assert not re.findall(r"\s(?:style|on\w+)=\"", pages[0].text), "the policy forbids these attributes"


def test_a_client_that_calls_itself_an_admin_without_a_tenant_is_none(site):
    site.start()
    assert site.ask("/workers", tenant=None).status_code == 401


def test_health_counts_the_workers_for_those_who_have_a_key(site):
    site.start()
    counts = {"ready": 1, "unreachable": 0, "starting": 0, "draining": 0, "gone": 0}
    assert site.json("/health", tenant="course") == {"status": "ok", "workers": counts}


def test_without_a_ready_worker_503_says_when_to_come_back_and_what_there_is(site):
    site.stub.publish(WorkerState.STARTING)
    site.start()
    for path in ("/health", "/v1/models"):
        answer = site.ask(path)
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
        assert "0 ready, 0 unreachable, 1 starting, 0 draining, 0 gone" in answer.json()["error"]["message"]
    assert site.json("/health", tenant=None)["error"]["message"] == "no worker is ready"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nonsense", 404),
        ("PUT", "/v1/nonsense", 404),
        ("GET", "/v1/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/completions", 405),
        ("POST", "/v1/models", 405),
        ("POST", "/v1/models/stub-model", 405),
        ("POST", "/health", 405),
    ],
)
def test_paths_that_there_are_not_and_methods_that_they_do_not_take(site, method, path, status):
    site.start()
    answer = site.ask(path, method=method)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
    assert ("Allow" in answer.headers) is (status == 405)
    assert answer.json()["error"]["message"].startswith(f"{method} {path}: ")


def test_batches_are_shown_to_the_deployment_s_own_key_alone(site):
    site.start()
    record = BatchRecord(
        batch="b", name="out.jsonl", written_at=1.0, began_at=0.0, total=9, answered=4, failed=1, left_s=3.0
    )
    site.batches.hear({"driver": record})
    [shown] = site.json("/status.json", tenant="owner")["batches"]
    assert (shown["name"], shown["answered"], shown["left_s"], shown["left_low_s"]) == ("out.jsonl", 4, 3.0, None)
    assert site.json("/status.json", tenant="course")["batches"] == []
