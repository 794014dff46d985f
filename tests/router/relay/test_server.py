"""What a relay decides by the head of a request alone, and what it forwards to the supervisor's pages."""

import asyncio
import socket
import time
from contextlib import ExitStack

import httpx
import pytest
from aiohttp import web

from slurminfer.router.relay.supervisor.pages import MOST_OF_TENANT, MOST_OPEN_PAGES, MOST_PAGES

from ...support.garbage import garbage
from .relayed import TEXT, hang, text_of


@pytest.fixture
def pages(one, loop):
    """The supervisor's pages: they tell what they were asked."""

    async def tell(request):
        return web.json_response({"path": request.path_qs, **{k.lower(): v for k, v in request.headers.items()}})

    async def start():
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", tell)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.UnixSite(runner, str(one.folder / "control")).start()
        return runner

    runner = loop.run(start())
    yield one
    loop.run(runner.cleanup())


def test_what_is_not_for_workers_goes_to_the_supervisor_with_who_asks(pages):
    forged = {"X-Slurminfer-Tenant": "two", "X-Slurminfer-Private": "1", "X-Request-Id": "r"}
    answer = pages.http.get("/v1/models?x=1", headers=forged)
    seen = answer.json()
    assert seen["path"] == "/v1/models?x=1"
    assert (seen["x-slurminfer-tenant"], seen["x-slurminfer-admin"], seen["x-request-id"]) == ("one", "1", "r")
    assert "x-slurminfer-private" not in seen and "authorization" not in seen
    assert answer.headers["X-Request-Id"] == "r"


def test_a_page_leaves_nothing_that_only_a_collection_of_garbage_could_free(pages):
    pages.http.get("/v1/models")
    with garbage() as left:
        for _ in range(3):
            pages.http.get("/v1/models")
    assert not {kind for kind in left if kind.__module__.startswith("slurminfer.router.")}


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/models"), ("GET", "/v1/chat/completions"), ("POST", "/metrics"), ("POST", "/v1/a.b")],
)
def test_no_other_path_or_method_reaches_a_worker(pages, method, path):
    assert pages.http.request(method, path).json()["path"] == path
    assert not pages.stubs[0].asked


def test_without_a_supervisor_pages_say_when_to_come_back_and_requests_go_on(one):
    answer = one.http.get("/v1/models")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.json()["error"]["type"] == "server_error"
    assert text_of(one.chat()) == TEXT


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"X-Api-Key": "wrong"}])
def test_without_a_key_there_is_401_but_for_the_open_pages(pages, headers):
    host, port = pages.address
    with httpx.Client(base_url=f"http://{host}:{port}", headers=headers) as stranger:
        refused = stranger.post("/v1/chat/completions", json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert stranger.get("/v1/models").status_code == 401
        assert "x-slurminfer-tenant" not in stranger.get("/health").json()
    assert not pages.stubs[0].asked


def test_whether_a_worker_is_ready_is_told_without_a_key_and_without_the_supervisor(one):
    with httpx.Client(base_url="http://{}:{}".format(*one.address)) as stranger:
        assert (stranger.get("/health").status_code, stranger.get("/health").json()) == (200, {"status": "ok"})
        assert stranger.head("/health").status_code == 200
        assert stranger.get("/health", headers={"Transfer-Encoding": "chunked"}).status_code == 401
        one.tell("w-0", choosable=False, trouble="silent")
        answer = stranger.get("/health")
        assert (answer.status_code, answer.json()["error"]["message"]) == (503, "no worker is ready")
        assert "w-0" not in answer.text and int(answer.headers["Retry-After"]) > 0
        one.promise(may_come=True, may_sleep=True)
        assert (stranger.get("/health").status_code, stranger.get("/health").json()) == (200, {"status": "asleep"})
        one.promise(may_come=True)
        assert stranger.get("/health").status_code == 503


@pytest.fixture
def slow_pages(one, loop):
    """The supervisor's pages, which wait until `go`; who has asked for one, and what asks."""
    asked, go = [], asyncio.Event()

    async def wait(request):
        asked.append(request.headers.get("x-slurminfer-tenant"))
        await go.wait()
        return web.json_response({})

    async def start():
        app = web.Application()
        app.router.add_get("/{path:.*}", wait)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(one.folder / "control")).start()
        return runner

    runner = loop.run(start())

    def ask(path, key=None):
        client = socket.create_connection(one.address)
        client.settimeout(20)
        line = f"Authorization: Bearer {key}\r\n" if key else ""
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{line}\r\n".encode())
        return client

    with ExitStack() as stack:
        yield asked, lambda path, key=None: stack.enter_context(ask(path, key)), lambda: one.run(go.set)
    one.run(go.set)
    loop.run(runner.cleanup())


def test_too_many_pages_at_once_are_refused_and_fewer_without_a_key(one, slow_pages, eventually):
    """The supervisor looks after the workers in the same thread."""
    asked, ask, go = slow_pages
    strangers = [ask("/") for _ in range(MOST_OPEN_PAGES)]
    eventually(lambda: len(asked) == MOST_OPEN_PAGES)
    assert ask("/").recv(1000).startswith(b"HTTP/1.1 503 ")
    ours = [ask("/workers", "key") for _ in range(MOST_PAGES - MOST_OPEN_PAGES)]
    eventually(lambda: len(asked) == MOST_PAGES)
    assert ask("/workers", "key").recv(1000).startswith(b"HTTP/1.1 503 ")
    assert text_of(one.chat()) == TEXT
    go()
    assert all(client.recv(1000).startswith(b"HTTP/1.1 200 ") for client in strangers + ours)
    assert asked == [None] * MOST_OPEN_PAGES + ["one"] * (MOST_PAGES - MOST_OPEN_PAGES)


def test_a_tenant_leaves_pages_to_others(one, slow_pages, eventually):
    one.add_tenant("a", name="alice")
    one.add_tenant("b", name="bob")
    asked, ask, go = slow_pages
    slow = [ask("/v1/files/file-1/content", "a") for _ in range(MOST_OF_TENANT)]
    eventually(lambda: len(asked) == MOST_OF_TENANT)
    assert ask("/v1/models", "a").recv(1000).startswith(b"HTTP/1.1 503 ")
    others = [ask("/v1/models", "b"), ask("/v1/models", "key"), ask("/")]
    eventually(lambda: len(asked) == MOST_OF_TENANT + 3)
    go()
    assert all(client.recv(1000).startswith(b"HTTP/1.1 200 ") for client in slow + others)


def test_a_clock_that_is_set_back_takes_no_workers_capacity(one):
    (worker,) = one.server._workers.all()
    one.tell("w-0", healthy_since=time.time())
    assert worker.share < 0.5, "it has just come back"
    one.tell("w-0", healthy_since=time.time() + 3600)
    assert worker.share == 1.0


@pytest.mark.parametrize(
    "header", [("authorization", "bearer key"), ("X-Api-Key", "key"), ("Authorization", "Bearer  key")]
)
def test_a_key_may_be_shown_in_several_ways(one, header):
    host, port = one.address
    with httpx.Client(base_url=f"http://{host}:{port}", headers=dict([header])) as client:
        assert one.chat(client).status_code == 200


def test_a_key_for_metrics_opens_nothing_else(pages):
    scraper = pages.add_tenant("scrape", name="metrics", metrics_only=True)
    assert scraper.get("/metrics").status_code == 200
    for answer in (scraper.get("/workers"), pages.chat(scraper)):
        assert answer.status_code == 401 and answer.headers["Connection"] == "close"
        assert answer.json()["error"]["message"].startswith("this API key opens GET /metrics only; everything else")
    assert scraper.get("/health").json() == {"status": "ok"}, "as for anybody: nothing about workers"
    stranger = pages.client("metrics")
    assert (
        stranger.get("/workers").json()["error"]["message"].startswith("wrong API key: this deployment has no such key")
    )


def test_pages_of_allowed_origins_may_read_answers(relayed):
    relay = relayed(allowed_origins=("https://chat.example.org",))
    relay.add("w-0")
    asked = {"Origin": "https://chat.example.org", "Access-Control-Request-Headers": "authorization"}
    host, port = relay.address
    preflight = httpx.options(f"http://{host}:{port}/v1/chat/completions", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Headers"] == "authorization"
    for origin, allowed in (("https://chat.example.org", True), ("https://evil.example.org", False)):
        answer = relay.chat(relay.client("key", Origin=origin))
        assert ("Access-Control-Allow-Origin" in answer.headers) is allowed
        assert answer.headers["Vary"] == "Origin"


def test_too_many_requests_in_a_minute_get_429(one):
    limited = one.add_tenant("few", name="few", requests_per_minute=2)
    assert [one.chat(limited).status_code for _ in range(3)] == [200, 200, 429]
    refused = one.chat(limited)
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert one.chat().status_code == 200, "others are not concerned"


def test_tokens_of_the_day_are_bounded_with_those_before_this_supervisor(one):
    one.tokens_today["poor"] = 95
    poor = one.add_tenant("poor", name="poor", tokens_per_day=100)
    assert one.chat(poor).status_code == 200
    assert one.chat(poor).json()["error"]["code"] == "insufficient_quota"


def test_a_full_queue_is_said_before_the_body_is_asked_for(relayed, eventually):
    relay = relayed(queue=1, overcommit=1)
    relay.add("w-0", hang, capacity=1)
    waiting = [asyncio.run_coroutine_threadsafe(asyncio.to_thread(_chat, relay), relay._loop._loop) for _ in range(2)]
    eventually(lambda: relay.report().queued["default"] == 1)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\nContent-Length: 1000000\r\n"
    with socket.create_connection(relay.address) as client:
        client.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
        answer = client.recv(65536).lower()
    assert answer.startswith(b"http/1.1 429") and b"retry-after: " in answer
    relay.kill(relay.stubs[0])
    relay.tell("w-0")
    relay.add("w-1")
    assert sorted(one.result(30) for one in waiting) == [200, 200]


def _chat(relay):
    with relay.client("key") as client:
        return relay.chat(client).status_code


def test_an_unknown_priority_is_refused_and_a_higher_one_not_given(one):
    answer = one.chat(one.client("key", **{"X-Priority": "urgent"}))
    assert answer.status_code == 400
    assert "interactive, default, batch" in answer.json()["error"]["message"]
    assert one.chat(one.client("key", **{"X-Priority": "interactive"})).status_code == 200
    assert list(one.report().counters.queue_time) == ["default"]


def test_a_relay_looks_after_workers_and_queue_although_that_has_failed(one, eventually, caplog):
    calls: dict[str, int] = {}

    def failing(part, then):
        def call(*given):
            calls[part] = calls.get(part, 0) + 1
            if calls[part] <= 2:
                raise ZeroDivisionError
            return then(*given)

        return call

    server = one.server
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server._workers, "learn", failing("workers", server._workers.learn))
        patch.setattr(server._admission, "refuse_where", failing("queue", server._admission.refuse_where))
        patch.setattr(server._policy, "news", failing("news", server._policy.news))
        eventually(lambda: len(calls) == 3 and min(calls.values()) > 2, "they go on")
    failed = one.report().counters.failed_rounds
    assert {task: count for task, count in failed.items() if count} == {"workers": 2, "queue": 2, "news": 2}
    assert len([record for record in caplog.records if record.exc_info]) == 3
    assert text_of(one.chat()) == TEXT


def test_what_clients_ask_for_that_nobody_serves_makes_reports_no_longer(one):
    for name in ("a", "b"):
        assert one.chat(model=name).status_code == 404
    assert one.report().lanes == ()
    assert one.chat().status_code == 200
    assert [(lane.model, lane.pools, lane.waiting) for lane in one.report().lanes] == [("m", (), 0)]
