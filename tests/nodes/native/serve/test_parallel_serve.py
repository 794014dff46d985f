"""An engine of several processes: it answers as one does, and ends as a whole."""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from slurminfer.core.machine.cpus import allowed_cpus
from slurminfer.nodes.native.model.fused import library
from slurminfer.nodes.native.model.parallel.rendezvous.timeouts import DEFAULT_TIMEOUTS
from slurminfer.nodes.native.options import RANK_SECRET_VARIABLE

from ....support.addresses import free_address

pytestmark = [pytest.mark.process, pytest.mark.slow]

needs_compiler = pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")
PROMPTS = ["The quick brown fox", "Blocks of keys and values", "hi", "a b c a b c a b c a b"]


def complete(url: str, prompt: str, **options) -> str:
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 24, "temperature": 0, "ignore_eos": True, **options}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def children(pid: int) -> list[int]:
    """The ranks that a process has started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return [int(child) for child in found if b"--local-rank" in Path(f"/proc/{child}/cmdline").read_bytes()]


def is_there(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


@pytest.fixture
def ready(forking, model_directory, wait_until):
    def ready(*arguments):
        server = forking("--model", str(model_directory), "--dtype", "float32", *arguments)
        return server

    return ready


@pytest.fixture(scope="module")
def of_one_process(serving, model_directory) -> list[str]:
    """What an engine of one process answers to PROMPTS."""
    with serving("--model", str(model_directory), "--dtype", "float32") as one:
        return [complete(one.url, prompt) for prompt in PROMPTS]


@pytest.fixture(scope="module")
def of_two_ranks(serving, model_directory):
    """An engine of two processes, for tests after which it goes on."""
    with serving("--model", str(model_directory), "--dtype", "float32", "--tensor-parallel", "2") as two:
        yield two


def ports_of(*pids: int) -> set[int]:
    """At which these processes listen: at one address each, that of the network that they were told to use."""
    connections = [connection for pid in pids for connection in psutil.Process(pid).net_connections("all")]
    listening = [each for each in connections if each.status == psutil.CONN_LISTEN]
    assert {each.laddr.ip for each in listening} == {"127.0.0.1"}
    return {each.laddr.port for each in listening}


STRANGE = (b"", b"GET / HTTP/1.1\r\n\r\n", b"slurminfer rank\0" + bytes(36 + 32), b"\xff" * 100_000)


def bother(port: int, said: bytes) -> bool:
    """Whether somebody listens there, who is told something."""
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
        with suppress(ConnectionError):
            caller.sendall(said)
        return True
    return False


def wait_for(server, wait_until) -> None:
    wait_until(lambda: httpx.get(f"{server.url}/health").status_code == 200, "health")


@pytest.mark.parametrize(
    ("layout", "ranks"),
    [  # of two ranks: test_parallel_api.py, test_sequence_serve.py
        ("--sequence-parallel 2 --tensor-parallel 2 --speculative draft --draft-model MODEL", 4),
        ("--tensor-parallel 2 --pipeline-parallel 2 --speculative ngram", 4),
    ],
)
def test_it_answers_as_one_process_does_and_leaves_nobody_behind(
    ready, of_one_process, model_directory, wait_until, layout, ranks
):
    with ready(*layout.replace("MODEL", str(model_directory)).split()) as several:
        wait_for(several, wait_until)
        others = children(several.process.pid)
        assert len(others) == ranks - 1
        assert [complete(several.url, prompt) for prompt in PROMPTS] == of_one_process
        assert [complete(several.url, prompt) for prompt in PROMPTS] == of_one_process  # out of the prefix cache
        several.process.send_signal(signal.SIGTERM)
        assert several.process.wait(60) == 0
        wait_until(lambda: not any(map(is_there, others)), "the other ranks' end")


@pytest.mark.parametrize(
    ("busy", "options"),
    [
        (False, ("--tensor-parallel", "2")),
        (True, ("--tensor-parallel", "2")),
        (True, ("--sequence-parallel", "2")),
        pytest.param(
            True, ("--tensor-parallel", "2", "--dtype", "bfloat16", "--kernels", "compiled"), marks=needs_compiler
        ),
    ],
)
def test_a_rank_that_is_killed_ends_them_all_at_once_and_is_named(ready, wait_until, capfd, busy, options):
    with ready(*options) as server:
        wait_for(server, wait_until)
        [other] = children(server.process.pid)
        if busy:
            body = {"model": "tiny", "prompt": "hi", "max_tokens": 3000, "ignore_eos": True, "stream": True}
            with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=30) as answer:
                lines = answer.iter_lines()
                for _ in range(4):
                    next(lines)
                os.kill(other, signal.SIGKILL)
                rest = [line for line in lines if line]
            assert "the engine has failed" in rest[-1]
        else:
            os.kill(other, signal.SIGKILL)
        assert server.process.wait(60) == 1
    why = f"rank 1 on {socket.gethostname()} is gone: killed by SIGKILL (out of memory?)"
    assert f"error: {why}" in capfd.readouterr().err


def test_another_nodes_child_that_is_killed_is_named(ready, wait_until, command, model_directory, capfd, monkeypatch):
    """Two nodes of two ranks, on this machine: rank 3 is a child of rank 2. Strangers come before it does."""
    monkeypatch.setenv(RANK_SECRET_VARIABLE, "a worker's secret")
    meeting = free_address()
    layout = ("--tensor-parallel", "2", "--pipeline-parallel", "2", "--nodes", "2", "--rendezvous", meeting)
    with ready(*layout) as head:
        for said in STRANGE:
            wait_until(lambda said=said: bother(int(meeting.rpartition(":")[2]), said), "a stranger's turn")
        words = ("--model", str(model_directory), "--dtype", "float32", "--threads", "1", *layout, "--node-rank", "1")
        with subprocess.Popen([*command, *words]) as follower:
            wait_for(head, wait_until)
            [child] = children(follower.pid)
            os.kill(child, signal.SIGSEGV)
            assert head.process.wait(60) == 1
            follower.wait(60)
    assert f"error: rank 3 on {socket.gethostname()} is gone: killed by SIGSEGV\n" in capfd.readouterr().err


@pytest.mark.parametrize("node_rank", [0, 1])
def test_several_nodes_need_a_secret(command, model_directory, node_rank):
    layout = ("--tensor-parallel", "2", "--nodes", "2", "--rendezvous", free_address(), "--node-rank", str(node_rank))
    env = {name: value for name, value in os.environ.items() if name != RANK_SECRET_VARIABLE}
    words = [*command, "--model", str(model_directory), *layout]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {RANK_SECRET_VARIABLE} is missing in the environment: expected the same")


def test_a_rank_that_is_stopped_is_named_within_seconds(ready, wait_until, capfd):
    with ready("--tensor-parallel", "2") as server:
        wait_for(server, wait_until)
        [other] = children(server.process.pid)
        os.kill(other, signal.SIGSTOP)
        assert server.process.wait(60) == 1
        wait_until(lambda: not is_there(other), "the other rank's end")
    assert f"rank 1 on {socket.gethostname()} is gone: it has been silent for 5 s" in capfd.readouterr().err


def test_a_job_that_slurm_suspends_goes_on(of_two_ranks):
    """Slurm stops all of its processes, and later continues them, one after the other.

    They are stopped for longer than a rank may be silent, and then watched for as long.
    """
    pids = [of_two_ranks.process.pid, *children(of_two_ranks.process.pid)]
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in pids:
            os.kill(pid, number)
            time.sleep(0.2)
        time.sleep(DEFAULT_TIMEOUTS.loaded_s + DEFAULT_TIMEOUTS.tick_s)
    assert len(complete(of_two_ranks.url, "hi")) > 0


def test_strangers_at_all_of_its_ports_change_nothing(of_two_ranks):
    expected = complete(of_two_ranks.url, "hi")
    ports = ports_of(of_two_ranks.process.pid) | ports_of(*children(of_two_ranks.process.pid))
    assert len(ports) > 2
    for port in ports - {int(of_two_ranks.url.rpartition(":")[2])}:
        for said in STRANGE:
            assert bother(port, said)
    assert complete(of_two_ranks.url, "hi") == expected


@pytest.mark.skipif(allowed_cpus().cores < 2, reason="needs two cores")
def test_ranks_of_a_node_have_cores_of_their_own(of_two_ranks):
    [other] = children(of_two_ranks.process.pid)
    first, second = os.sched_getaffinity(of_two_ranks.process.pid), os.sched_getaffinity(other)
    assert first and second and not first & second
    assert first | second == os.sched_getaffinity(0)


def test_when_rank_0_is_killed_the_others_end(ready, wait_until):
    with ready("--tensor-parallel", "2") as server:
        wait_for(server, wait_until)
        others = children(server.process.pid)
        server.process.kill()
        wait_until(lambda: not any(map(is_there, others)), "the other ranks' end")


def test_a_rank_that_cannot_load_ends_them_all(forking, model_directory, capfd):
    """Its part of the weights is there, but the KV cache has no room for one sequence."""
    with forking("--model", str(model_directory), "--tensor-parallel", "2", "--kv-cache-gib", "0.0001") as server:
        assert server.process.wait(60) == 1
    said = capfd.readouterr().err
    assert "error: the KV cache of 0.00 GiB holds " in said and "but one sequence may have 4096" in said
    assert "Traceback" not in said


def test_layouts_that_cannot_be_are_refused_in_one_line(command, model_directory):
    """Before any rank has imported PyTorch."""
    python, _, module = command
    words = ["--model", str(model_directory), "--port", "0", "--tensor-parallel", "5"]
    code = f"import runpy, sys; sys.modules['torch'] = None; runpy.run_module('{module}', None, '__main__', True)"
    done = subprocess.run([python, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: tensor_parallel = 5: the model has 4 attention heads; expected at most 4\n"
