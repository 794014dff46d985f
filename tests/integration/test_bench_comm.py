"""`slurminfer bench comm` on a real Slurm, as an ordinary user: in an allocation, as a job, and with a killed rank."""

import json
import signal
import subprocess
import threading

import psutil
import pytest

from ..support.waiting import eventually
from .conftest import SLURMINFER

MODULE = "slurminfer.jobs.bench.comm.worker"
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]
BENCH = (*SLURMINFER, "bench", "comm")
QUICK = ("--sizes", "1K,64K,1M", "--seconds", "0.5", "--timeout", "60")


@pytest.fixture
def environment(shared):
    return {"SLURMINFER_HOME": str(shared / "home")}


@pytest.fixture
def execute(sandbox, ordinary_user, environment):
    def execute(*words):
        return sandbox.run_as(ordinary_user, words, environment, timeout_s=200)

    return execute


def kept(shared):
    return [json.loads(path.read_text()) for path in (shared / "home/site/comm").iterdir()]


def test_between_the_nodes_of_an_allocation(execute, shared):
    done = execute("salloc", "--quiet", "-N2", *BENCH, *QUICK, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ranks"] == len(found["hosts"]) == 2 and found["partition"] == "cpu"
    for measured in found["operations"]:  # a slow machine leaves sizes out from the third on
        assert [point["bytes"] for point in measured["points"]] in ([1 << 10, 1 << 16], [1 << 10, 1 << 16, 1 << 20])
    assert kept(shared) == [found]


def test_as_a_job_of_its_own(execute, shared):
    options = ("--nodes", "2", "--ranks-per-node", "2", "--partition", "low", *QUICK)
    done = execute(*BENCH, *options)
    assert done.returncode == 0, done.stderr
    assert "4 ranks on 2 nodes (n" in done.stdout and "all-reduce" in done.stdout
    (found,) = kept(shared)
    assert found["ranks"] == 4 and len(found["hosts"]) == 2 and found["partition"] == "low"
    assert list((shared / "home/jobs").iterdir()) == []


@pytest.fixture
def ranks(shared):
    """A look at the ranks that live."""
    folders = str(shared / "home/jobs")
    return lambda: [process for process in psutil.process_iter(["cmdline"]) if is_rank(process, folders)]


@pytest.mark.parametrize(
    "words", [("salloc", "--quiet", "-N2", *BENCH), (*BENCH, "--nodes", "2")], ids=["allocation", "job"]
)
def test_a_killed_rank_is_named_and_nothing_stays(execute, shared, ranks, words):
    def kill():
        eventually(lambda: list(shared.glob("home/jobs/*/rendezvous")) and len(ranks()) == 2)
        next(process for process in ranks() if rank_of(process) == 1).kill()

    thread = threading.Thread(target=kill)
    thread.start()
    done = execute(*words, "--seconds", "300")
    thread.join()
    assert done.returncode == 1
    assert "rank 1 on n" in done.stderr and "illed" in done.stderr, done.stderr
    eventually(lambda: ranks() == [])
    eventually(lambda: execute("squeue", "--me", "--noheader").stdout == "")


def test_the_job_ends_with_its_command(interruptible, sandbox, ordinary_user, environment, execute, ranks):
    argv = sandbox.argv_as(ordinary_user, [*BENCH, "--nodes", "2", "--seconds", "300"], environment)
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as command:
        eventually(lambda: len(ranks()) == 2)
        command.send_signal(signal.SIGINT)
        assert command.wait(30) != 0
    eventually(lambda: ranks() == [])
    eventually(lambda: execute("squeue", "--me", "--noheader").stdout == "")


def is_rank(process, folders):
    return any(word.startswith(folders) for word in own_words(process.info["cmdline"] or [])[:1])


def rank_of(process):
    words = own_words(process.cmdline())
    return int(words[1]) if len(words) > 1 else int(process.environ()["SLURM_PROCID"])


def own_words(words):
    """What follows the module of a rank's command line, which srun has as its last words: folder, maybe a number."""
    return words[words.index(MODULE) + 1 :] if MODULE in words[:4] else []
