"""The router as a process: start, signals, port taken."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from slurminfer.core.net.address import node_address
from slurminfer.core.net.sockets import watchful_socket
from slurminfer.core.rundir import RunDirectory
from slurminfer.router.exits import COULD_NOT_SERVE, REPLACED, REQUEUE, STOPPED

from ..support.waiting import has_ended

pytestmark = pytest.mark.process


@pytest.fixture
def start(empty, eventually):
    """Starts `python -m slurminfer.router` and waits until it says where it is."""
    started = []

    def start(run: RunDirectory):
        process = subprocess.Popen(
            [sys.executable, "-m", "slurminfer.router", str(run.path)], stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        eventually(lambda: run.read_router() or process.poll() is not None)
        return process, run.read_router()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def with_port(empty, port):
    text = empty.run.spec_path.read_text()
    assert "port = 0" in text
    empty.run.spec_path.write_text(text.replace("port = 0", f"port = {port}"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_cleanly_and_takes_its_record_back(empty, start, number):
    process, record = start(empty.run)
    assert record.pid == process.pid and record.host == socket.gethostname()
    assert httpx.get(f"{record.url}/health").status_code == 503
    process.send_signal(number)
    assert process.wait(timeout=15) == 0
    assert empty.run.read_router() is None


def test_record_carries_slurms_job_and_restart_count(empty, start, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    _, record = start(empty.run)
    assert (record.job, record.epoch) == ("4711", 2)


def test_stream_in_flight_is_finished_after_sigterm_and_new_connections_are_refused(empty, start, eventually):
    with stream_in_flight(empty, start) as (process, record, answer, stub):
        process.terminate()
        eventually(lambda: empty.run.read_router() is None)
        eventually(lambda: refused(record.url))
        stub.go.release(3)
        assert answer.read().endswith(b"[DONE]\n\n")
    assert process.wait(timeout=15) == 0


@contextmanager
def stream_in_flight(deployment, start):
    """A router, its record, and a stream of which the stub has sent one word of four."""
    stub = deployment.add("cpu-0")
    stub.stepwise = True
    stub.go.release()
    process, record = start(deployment.run)
    headers = {"Authorization": f"Bearer {deployment.run.key()}"}
    body = {"model": "stub-model", "stream": True}
    with httpx.stream("POST", f"{record.url}/v1/completions", json=body, headers=headers) as answer:
        yield process, record, answer, stub


def refused(url):
    try:
        httpx.get(f"{url}/health")
    except httpx.ConnectError:
        return True
    return False


def test_a_later_routers_record_is_left_alone(empty, start):
    process, record = start(empty.run)
    later = type(record)(**{**{f: getattr(record, f) for f in record.__struct_fields__}, "epoch": 1})
    empty.run.write_router(later)
    process.terminate()
    assert process.wait(timeout=15) == 0
    assert empty.run.read_router() == later


def test_port_taken_fails_with_advice_and_leaves_the_reason(empty, start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with_port(empty, port)
        process, record = start(empty.run)
        _, said = process.communicate(timeout=15)
    assert process.returncode == COULD_NOT_SERVE
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in said
    assert "router.port" in said and "Traceback" not in said
    assert record.url is None and "Address already in use" in record.reason


def test_the_specs_port_is_used(empty, start):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with_port(empty, port)
    assert start(empty.run)[1].url == f"http://127.0.0.1:{port}"


def test_run_directory_without_a_spec_fails_without_a_traceback(tmp_path):
    argv = [sys.executable, "-m", "slurminfer.router", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=15)
    assert done.returncode == 1
    assert "spec.toml" in done.stderr and "Traceback" not in done.stderr


def test_signal_handlers_are_put_back_and_the_status_says_what_came(empty):
    code = f"""
import os, signal, threading, time
from pathlib import Path
from slurminfer.core.rundir import RunDirectory
from slurminfer.router.main import run_router
run = RunDirectory(Path({str(empty.run.path)!r}))
def bypass(number, frame): print("bypassed", number, flush=True)
signal.signal(signal.SIGTERM, bypass)
signal.signal(signal.SIGUSR2, bypass)
def send(number):
    while run.read_router() is None: time.sleep(0.02)
    os.kill(os.getpid(), number)
for number in (signal.SIGTERM, signal.SIGUSR2):
    threading.Thread(target=send, args=[number]).start()
    print(run_router(run))
    os.kill(os.getpid(), number)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    said = [STOPPED, "bypassed 15", REQUEUE, "bypassed 12"]
    assert done.stdout.splitlines() == [str(one) for one in said]
    assert empty.run.read_router() is None


def test_local_mode_listens_on_loopback_only(monkeypatch):
    assert node_address() == "127.0.0.1"


def test_a_hostname_that_others_can_resolve_gives_the_address(monkeypatch):
    monkeypatch.delenv("SLURMINFER_LOCAL")
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.77.3")
    assert node_address() == "127.0.77.3"


def test_a_placeholder_for_the_own_name_is_not_announced(monkeypatch):
    monkeypatch.delenv("SLURMINFER_LOCAL")
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.1.1")
    monkeypatch.setattr("slurminfer.core.net.address._default_source", lambda: "10.1.2.3")
    assert node_address() == "10.1.2.3"


def test_importing_the_router_loads_no_torch():
    code = "import sys, slurminfer.router.main; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ), timeout=60).returncode == 0


def test_client_sockets_notice_a_node_that_lost_its_power():
    address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))
    with watchful_socket(address) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_relays_of_a_killed_router_end_and_a_new_one_has_the_same_port_at_once(empty, start, eventually):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with_port(empty, port)
    text = empty.run.spec_path.read_text()
    empty.run.spec_path.write_text(text.replace(f"port = {port}", f"port = {port}\nrelays = 2"))
    empty.add("cpu-0")
    first, _ = start(empty.run)
    headers = {"Authorization": f"Bearer {empty.run.key()}"}
    body = {"model": "stub-model", "messages": []}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    assert httpx.post(url, json=body, headers=headers, timeout=60).status_code == 200
    relays = psutil.Process(first.pid).children()
    assert len(relays) == 2
    first.kill()
    first.wait()
    empty.run.router_path.unlink()
    _, record = start(empty.run)
    assert record.url == f"http://127.0.0.1:{port}"
    assert httpx.post(url, json=body, headers=headers, timeout=60).status_code == 200
    eventually(lambda: all(has_ended(relay.pid) for relay in relays))


def counters_of(client):
    """By name and labels, all that `/metrics` counts."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [one for family in families if family.type != "gauge" for one in family.samples]
    return {(one.name, *sorted(one.labels.items())): one.value for one in samples}


def test_no_counter_falls_when_relays_are_killed(empty, start, eventually):
    empty.configure(relays=2)
    empty.add("cpu-0")
    process, record = start(empty.run)
    done, each = ("slurminfer_router_worker_requests_total", ("worker", "cpu-0")), 8
    headers = {"Authorization": f"Bearer {empty.run.key()}"}
    before: dict[tuple[object, ...], float] = {}
    for count in (each, 2 * each):
        for _ in range(each):  # each on a connection of its own, so that both relays get some
            httpx.post(f"{record.url}/v1/completions", json={"model": "stub-model"}, headers=headers, timeout=60)
        with httpx.Client(base_url=record.url, headers=headers, timeout=60) as client:
            now = eventually(lambda: (seen := counters_of(client)).get(done) == count and seen)  # noqa: B023
        assert [name for name, value in before.items() if now.get(name, 0) < value] == []
        before = now
        relays = psutil.Process(process.pid).children()
        for relay in relays:
            relay.kill()
        eventually(lambda: all(has_ended(relay.pid) for relay in relays))  # noqa: B023


@pytest.mark.parametrize(
    ("numbers", "code"), [([signal.SIGUSR2], REQUEUE), ([signal.SIGUSR2, signal.SIGTERM], STOPPED)]
)
def test_before_its_walltime_limit_it_drains_and_is_requeued_unless_it_is_cancelled(
    empty, start, eventually, numbers, code
):
    with stream_in_flight(empty, start) as (process, record, answer, stub):
        for number in numbers:
            process.send_signal(number)
            eventually(lambda: refused(record.url))
        stub.go.release(3)
        assert answer.read().endswith(b"[DONE]\n\n")
    assert process.wait(timeout=15) == code


def test_before_its_walltime_limit_a_router_with_a_successor_drains_and_is_not_requeued(empty, start, eventually):
    with stream_in_flight(empty, start) as (process, record, answer, stub):
        successor, _ = start(empty.run)
        eventually(lambda: empty.run.read_router().pid == successor.pid)
        assert empty.run.read_router().url == record.url  # they run on one node
        process.send_signal(signal.SIGUSR2)
        stub.go.release(3)
        assert answer.read().endswith(b"[DONE]\n\n")
    assert process.wait(timeout=15) == REPLACED
    assert empty.run.read_router().pid == successor.pid
    stub.stepwise = False
    headers = {"Authorization": f"Bearer {empty.run.key()}"}
    body = {"model": "stub-model", "messages": []}
    assert httpx.post(f"{record.url}/v1/chat/completions", json=body, headers=headers).status_code == 200


def test_a_signal_to_the_whole_process_group_drains_as_one_to_the_supervisor(empty, start, eventually):
    """Slurm and terminals send their signals to all processes."""
    with stream_in_flight(empty, start) as (process, record, answer, stub):
        for one in (*psutil.Process(process.pid).children(), process):
            one.terminate()
        eventually(lambda: refused(record.url))
        stub.go.release(3)
        assert answer.read().endswith(b"[DONE]\n\n")
    assert process.wait(timeout=15) == 0


def test_a_router_that_is_started_again_after_it_was_killed_has_the_port_that_clients_know(
    empty, start, eventually, monkeypatch
):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    process, before = start(empty.run)
    process.kill()
    process.wait()
    start(empty.run)
    eventually(lambda: empty.run.read_router().pid != before.pid)
    assert empty.run.read_router().url == before.url
