"""Two routers of one deployment at the same time: the one takes over from the other, and no client notices."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading
from concurrent.futures import Future, wait

import httpx
import pytest

from slurminfer.core.errors import SpecError
from slurminfer.core.records import WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.jobs.batch.driver import endpoint as batch_endpoint
from slurminfer.jobs.batch.driver import retry as batch_retry
from slurminfer.jobs.batch.driver.driver import run_batch
from slurminfer.jobs.batch.driver.options import BatchOptions
from slurminfer.jobs.batch.endpoints.deployment import options_for
from slurminfer.jobs.batch.outputs.export import OutputOptions
from slurminfer.router import announcement as announcing
from slurminfer.router import main, opened
from slurminfer.router.announcement import Announcement, router_record
from slurminfer.router.control import passing, relay_link
from slurminfer.router.handover import Retirement
from slurminfer.router.main import drain_seconds, serve
from slurminfer.router.tenants.usage_files import read_usage

from .conftest import WORDS, Deployment

TEXT = "".join(WORDS)


class Router:
    """A router in the test's event loop."""

    def __init__(self, deployment: Deployment, loop, eventually, *, idle_s: float, drain_s: float) -> None:
        self._loop, run = loop, deployment.run
        self._stop = asyncio.Event()
        before = run.read_router()
        serving = serve(run, self._stop, in_process=True, drain_s=lambda: drain_s, idle_s=idle_s)
        self.ended: Future[bool] = loop.start(serving)
        eventually(lambda: run.read_router() != before or self.ended.done())
        found = run.read_router()
        assert found is not None
        self.record = found
        headers = {"Authorization": f"Bearer {run.key()}"}
        self.http = httpx.Client(base_url=self.record.url or "", headers=headers, timeout=20, verify=False)

    def stop(self) -> bool:
        """Whether it has a successor."""
        self._loop.soon(self._stop.set)
        return self.ended.result(timeout=30)

    def chat(self, **fields) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json={"model": "stub-model", "messages": [], **fields})


@pytest.fixture
def start(start_here, monkeypatch):
    """Starts routers of one deployment as if each were on a node of its own."""
    monkeypatch.setattr(opened, "take", none_is_given)
    return start_here


async def none_is_given(*of):
    return []


@pytest.fixture
def start_here(empty, loop, eventually, monkeypatch):
    """Starts routers of one deployment on one node."""
    monkeypatch.setattr(announcing, "_LOOK_S", 0.05)
    monkeypatch.setattr(relay_link, "_REPORT_S", 0.05)
    monkeypatch.setattr(main, "_USEFUL_LOOK_S", 0.02)
    monkeypatch.setattr(main, "_NEEDLESS_LOOK_S", 0.05)
    routers = []

    def start(idle_s: float = 3600.0, drain_s: float = 20.0) -> Router:
        routers.append(Router(empty, loop, eventually, idle_s=idle_s, drain_s=drain_s))
        return routers[-1]

    yield start
    for router in routers:
        router.http.close()
        if not router.ended.done():
            router.stop()


def queued(router) -> bool:
    """Whether requests wait in the router."""
    lines = router.http.get("/metrics").text.splitlines()
    return any(line.startswith("slurminfer_router_queued{") and not line.endswith(" 0.0") for line in lines)


def events(lines):
    return "".join(line.partition('"content":"')[2].partition('"')[0] for line in lines)


def let_go(router) -> bool:
    """Whether the router has noticed that another one has taken over."""
    return router.chat().headers.get("connection") == "close"


def test_a_successor_replaces_the_record_and_the_predecessor_serves_on_with_its_own_address(empty, start, eventually):
    empty.add("cpu-0")
    first = start()
    second = start()
    assert second.record.url != first.record.url
    assert empty.run.read_router() == second.record
    assert empty.run.endpoint_path.read_text() == f"OPENAI_BASE_URL={second.record.url}/v1\n"
    eventually(lambda: let_go(first), "the predecessor notices")
    for router in (first, second):
        assert router.chat().json()["choices"][0]["message"]["content"] == TEXT
    assert second.chat().headers.get("connection") != "close"


def test_a_stream_goes_on_through_the_change_and_the_predecessor_ends_when_it_is_idle(empty, start, eventually):
    stub = empty.add("cpu-0")
    stub.stepwise = True
    stub.go.release()
    first = start(idle_s=0.2)
    body = {"model": "stub-model", "messages": [], "stream": True}
    with first.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.iter_lines()
        said = [next(lines)]
        second = start()
        assert empty.run.read_router() == second.record
        stub.go.release(3)
        said += list(lines)
    assert events(said) == TEXT and said[-2] == "data: [DONE]"
    assert first.ended.result(timeout=30) is True
    assert empty.run.read_router() == second.record
    with pytest.raises(httpx.ConnectError):
        first.chat()
    stub.go.release(4)
    assert second.chat(stream=True).text.endswith("data: [DONE]\n\n")


def test_a_client_that_follows_the_run_directory_never_fails(empty, start, eventually):
    """Streams all the time, on connections that are kept where the router keeps them, through two changes."""
    for name in ("cpu-0", "cpu-1"):
        empty.add(name)
    start(idle_s=0.3)
    over, texts, faults = threading.Event(), [], []

    def stream_on() -> None:
        headers = {"Authorization": f"Bearer {empty.run.key()}"}
        body = {"model": "stub-model", "messages": [], "stream": True}
        with httpx.Client(headers=headers, timeout=20) as client:
            while not over.is_set():
                url = empty.run.endpoint_path.read_text().strip().partition("=")[2]
                try:
                    answer = client.post(f"{url}/chat/completions", json=body)
                    texts.append(events(answer.raise_for_status().text.splitlines()))
                except Exception as error:
                    faults.append(error)

    clients = [threading.Thread(target=stream_on) for _ in range(3)]
    for client in clients:
        client.start()
    routers = [start(idle_s=0.3), start(idle_s=0.3)]
    assert routers[0].ended.result(timeout=30) is True
    seen = len(texts)
    eventually(lambda: len(texts) > seen + 10)
    over.set()
    for client in clients:
        client.join()
    assert not faults and set(texts) == {TEXT}


def test_a_batch_goes_on_at_the_successor_and_loses_nothing(empty, start, eventually, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_endpoint, "_FOLLOW_S", 0.05)
    monkeypatch.setattr(batch_retry, "FIRST_DELAY_S", 0.01)
    stub = empty.add("cpu-0")
    stub.delay_s = 0.05
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    ids = [f"p{number}" for number in range(250)]
    lines = ({"id": one, "messages": [{"role": "user", "content": one}]} for one in ids)
    source.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    first, ended = start(), []

    def change() -> None:
        eventually(lambda: len(stub.requests) > 20)
        second = start()
        ended.append(first.stop())
        seen = len(stub.requests)
        eventually(lambda: len(stub.requests) > seen + 20)
        ended.append(second)

    changing = threading.Thread(target=change)
    changing.start()
    options = BatchOptions(inputs=[str(source)], output=OutputOptions(path=output), **options_for(empty.run))
    summary = run_batch(options, lambda state: None)
    changing.join()
    assert ended[0] is True and len(ended) == 2
    assert (summary.answered, summary.failed) == (250, 0)
    assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == ids


def test_at_its_end_a_router_leaves_the_record_and_the_identity_of_its_successor_alone(empty, start):
    empty.add("cpu-0")
    first, second = start(), start()
    assert first.stop() is True
    assert empty.run.read_router() == second.record
    assert empty.run.router_identity_path.exists() and empty.run.endpoint_path.exists()
    assert second.stop() is False
    left = (empty.run.router_path, empty.run.router_identity_path, empty.run.endpoint_path)
    assert not any(path.exists() for path in left)


def test_a_successor_that_ends_or_is_lost_gives_the_clients_back(empty, start, eventually, monkeypatch):
    monkeypatch.setattr(announcing, "_MOST_SILENT", 2)
    empty.add("cpu-0")
    first, second = start(), start()
    eventually(lambda: let_go(first))
    second.stop()
    eventually(lambda: empty.run.read_router() == first.record, "it announces itself again")
    eventually(lambda: not let_go(first))
    empty.run.write_router(second.record)  # as if that router had been killed
    eventually(lambda: empty.run.read_router() == first.record, "it announces itself again")
    assert empty.run.endpoint_path.read_text() == f"OPENAI_BASE_URL={first.record.url}/v1\n"
    assert first.stop() is False


def pair_without_workers(empty, loop, start):
    """A router, its successor that starts, their worker that says it is unhealthy, and what ends the successor."""
    stub = empty.add("cpu-0")
    first = start()
    stub.health = 503
    stop = asyncio.Event()
    return first, loop.start(serve(empty.run, stop, in_process=True)), stub, stop


def test_a_successor_that_reaches_no_worker_waits_as_long_as_the_predecessor_lives(empty, loop, start, eventually):
    first, second, stub, stop = pair_without_workers(empty, loop, start)
    asked = stub.health_asked
    eventually(lambda: stub.health_asked > asked + 3)
    assert empty.run.read_router() == first.record
    stub.health = 200
    eventually(lambda: empty.run.read_router() != first.record)
    loop.soon(stop.set)
    assert second.result(timeout=30) is False


def test_a_successor_that_reaches_no_worker_takes_over_from_a_predecessor_that_is_gone(empty, loop, start, eventually):
    first, second, stub, stop = pair_without_workers(empty, loop, start)
    asked = stub.health_asked
    eventually(lambda: stub.health_asked > asked)
    first.stop()
    eventually(lambda: (empty.run.read_router() or first.record) != first.record)
    loop.soon(stop.set)
    second.result(timeout=30)


def test_on_the_node_of_its_predecessor_a_successor_takes_another_port(empty, start):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = empty.run.spec_path.read_text()
    empty.run.spec_path.write_text(text.replace("port = 0", f"port = {port}"))
    empty.add("cpu-0")
    first, second = start(), start()
    assert first.record.url == f"http://127.0.0.1:{port}"
    assert second.record.url not in (None, first.record.url)
    assert first.chat().status_code == second.chat().status_code == 200


def test_a_successor_that_cannot_start_does_not_say_so_in_the_predecessors_record(empty, loop, start):
    empty.add("cpu-0")
    first = start()
    empty.configure(tls="files", tls_certificate="/no", tls_key="/no")
    with pytest.raises(SpecError, match="cannot be read"):
        loop.run(serve(empty.run, asyncio.Event(), in_process=True))
    assert empty.run.read_router() == first.record


def test_usage_of_both_routers_adds_up_and_limits_count_it(empty, start, eventually):
    empty.add("cpu-0")
    first, second = start(), start()
    first.chat()
    second.chat()
    second.chat()
    first.stop()
    second.stop()
    assert sum(one.total.requests for one in read_usage(empty.run.usage_path).values()) == 3
    assert [path.name for path in empty.run.usage_path.with_suffix(".d").iterdir()] == [".lock"]


def test_an_answer_that_the_router_cannot_finish_ends_with_an_error_that_says_so(empty, start):
    empty.add("cpu-0").mode = "hang"
    router = start(drain_s=0.1)
    body = {"model": "stub-model", "messages": []}
    with router.http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
        lines = answer.iter_lines()
        said = [next(lines)]
        router.stop()
        said += list(lines)
    assert events(said) == WORDS[0]
    assert json.loads(said[-2].removeprefix("data: "))["error"]["code"] == "router_ended"


def test_requests_without_a_byte_of_an_answer_get_503_when_the_router_ends(empty, start, eventually):
    stub = empty.add("cpu-0", capacity=1)
    stub.mode = "hang"
    router = start(drain_s=0.1)
    answers = []
    clients = [threading.Thread(target=lambda: answers.append(router.chat())) for _ in range(4)]
    for client in clients:
        client.start()
    eventually(lambda: stub.requests and queued(router))
    router.stop()
    for client in clients:
        client.join()
    assert {(one.status_code, one.json()["error"]["code"]) for one in answers} == {(503, "router_ended")}


@pytest.mark.parametrize(
    ("came", "ends_at", "seconds"),
    [
        ({signal.SIGUSR2}, 1060.0, 50.0),
        ({signal.SIGUSR2}, 1115.0, 105.0),  # Slurm may send it a minute early
        ({signal.SIGUSR2}, 9000.0, 110.0),
        ({signal.SIGUSR2}, 1005.0, 20.0),
        ({signal.SIGUSR2}, None, 20.0),
        ({signal.SIGUSR2, signal.SIGTERM}, 1060.0, 20.0),
        ({signal.SIGTERM}, 1060.0, 20.0),
    ],
)
def test_requests_in_flight_have_all_the_time_until_the_walltime_limit(came, ends_at, seconds):
    assert drain_seconds(came, ends_at, now=1000.0) == seconds


def test_a_router_may_end_when_it_was_replaced_and_idle_for_long_enough():
    def may_end(now, **changed):
        return retirement.may_end(now, **{"is_replaced": True, "requests": 5, "in_flight": 0, **changed})

    retirement = Retirement(120.0)
    assert not may_end(0.0)
    assert not may_end(119.0)
    assert may_end(120.0)
    assert not may_end(121.0, in_flight=1)
    assert not may_end(240.0)
    assert not may_end(242.0, requests=6)
    assert not may_end(361.0, requests=6)
    assert may_end(362.0, requests=6)
    assert not may_end(363.0, requests=6, is_replaced=False)
    assert not may_end(364.0, requests=6)


def test_two_routers_that_do_not_see_each_other_put_their_records_back_ever_less_often(empty, loop, monkeypatch):
    run: RunDirectory = empty.run

    async def looks_until_it_is_back() -> int:
        run.write_router(other)
        looks = 0
        while run.read_router() != mine:
            await announcement.look()
            looks += 1
        return looks

    async def unseen(*of) -> bool:
        return False

    monkeypatch.setattr(announcing, "answers", unseen)
    mine, other = router_record(url="http://a:1"), router_record(url="http://b:1")
    announcement = Announcement(run, mine, lambda pem: None)
    loop.run(announcement.publish())
    assert [loop.run(looks_until_it_is_back()) for _ in range(3)] == [10, 20, 40]


@pytest.mark.parametrize("tls", ["off", "self_signed"])
def test_on_one_node_the_address_stays_and_clients_that_know_nothing_else_never_fail(
    empty, start_here, eventually, tls
):
    empty.configure(relays=2, tls=tls)
    for name in ("cpu-0", "cpu-1"):
        empty.add(name)
    first = start_here(idle_s=0.3)
    over, texts, faults = threading.Event(), [], []

    def stream_on(keeps: bool) -> None:
        headers = {"Authorization": f"Bearer {empty.run.key()}", **({} if keeps else {"Connection": "close"})}
        body = {"model": "stub-model", "messages": [], "stream": True}
        with httpx.Client(headers=headers, timeout=20, verify=False) as client:
            while not over.is_set():
                try:
                    answer = client.post(f"{first.record.url}/v1/chat/completions", json=body)
                    texts.append(events(answer.raise_for_status().text.splitlines()))
                except Exception as error:
                    faults.append(error)

    clients = [threading.Thread(target=stream_on, args=[keeps]) for keeps in (True, True, False, False)]
    for client in clients:
        client.start()
    second = start_here(idle_s=0.3)
    third = start_here(idle_s=0.3)
    assert first.ended.result(timeout=30) is second.ended.result(timeout=30) is True
    seen = len(texts)
    eventually(lambda: len(texts) > seen + 10)
    over.set()
    for client in clients:
        client.join()
    assert not faults and set(texts) == {TEXT}
    assert first.record.url == second.record.url == third.record.url == empty.run.read_router().url
    assert len({router.record.private_url for router in (first, second, third)}) == 3


def test_clients_of_one_address_wait_until_the_predecessor_of_a_lost_successor_accepts_again(
    empty, start_here, eventually
):
    empty.add("cpu-0")
    first = start_here()
    first.http.get("/health")  # this connection is kept
    second = start_here()
    eventually(lambda: first.http.get("/health").headers.get("connection") == "close")
    second.stop()
    with httpx.Client(base_url=first.record.url, headers=first.http.headers, timeout=20) as fresh:
        body = {"model": "stub-model", "messages": []}
        assert fresh.post("/v1/chat/completions", json=body).status_code == 200
    assert empty.run.read_router() == first.record
    third = start_here()
    assert first.stop() is True
    assert third.record.url == first.record.url and third.chat().status_code == 200


def test_listening_sockets_are_given_to_nobody_else(empty, start_here, loop, monkeypatch):
    empty.add("cpu-0")
    first = start_here()
    name = first.record.listeners
    taken = loop.run(passing.take(name, "127.0.0.1", 1))
    assert [f"http://127.0.0.1:{sock.getsockname()[1]}" for sock in taken] == [first.record.url]
    taken[0].close()
    assert loop.run(passing.take(name, "127.0.0.1", 2)) == []
    assert loop.run(passing.take(name, "10.0.0.1", 1)) == []
    assert loop.run(passing.take("slurminfer-nobody", "127.0.0.1", 1)) == []
    monkeypatch.setattr(passing, "peer_uid", lambda sock: os.geteuid() + 1)
    assert loop.run(passing.take(name, "127.0.0.1", 1)) == []
    assert first.chat().status_code == 200


def test_a_successor_waits_while_strangers_fill_the_queue_for_the_sockets(loop):
    strangers: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        offer = passing.Offer([listener])
        with pytest.raises(BlockingIOError):
            while True:
                strangers.append(socket.socket(socket.AF_UNIX))
                strangers[-1].setblocking(False)
                strangers[-1].connect(passing._address(offer.name))
        taken = loop.start(passing.take(offer.name, "127.0.0.1", 1))
        assert wait([taken], timeout=0.05).not_done
        answering = loop.start(offer.run())
        [sock] = taken.result(30)
        assert sock.getsockname() == listener.getsockname()
        answering.cancel()
        offer.close()
        for one in (sock, *strangers):
            one.close()


def test_a_successor_with_another_number_of_relays_takes_another_port(empty, start_here):
    empty.add("cpu-0")
    first = start_here()
    empty.configure(relays=2)
    second = start_here()
    assert second.record.url != first.record.url
    assert first.chat().status_code == second.chat().status_code == 200


def test_a_router_whose_workers_are_all_gone_is_replaced_too(empty, start):
    empty.add("cpu-0").publish(WorkerState.GONE)
    start()
    with contextlib.suppress(httpx.HTTPError):
        assert start().chat().status_code == 503
