"""The program that does the work, as a process: killed, started again, and with a router that comes back."""

import subprocess
import sys

import psutil
import pytest

from slurminfer.jobs.batch.openai.manager import Manager

from ....support.waiting import has_ended
from .conftest import row

pytestmark = pytest.mark.process


@pytest.fixture
def program(service):
    """Starts `python -m slurminfer.jobs.batch.openai`."""
    started = []

    def start():
        started.append(subprocess.Popen([sys.executable, "-m", "slurminfer.jobs.batch.openai", str(service.run.path)]))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=15)


def test_a_batch_outlives_its_program_and_its_router(service, program, eventually):
    service.stub.delay_s = 0.1
    killed = program()
    batch = service.create(*(row(f"r{n}", f"q{n}") for n in range(200)))
    eventually(lambda: service.store.state(batch.id).completed >= 5)
    children = psutil.Process(killed.pid).children()
    killed.kill()
    killed.wait()
    eventually(lambda: all(has_ended(child.pid) for child in children))
    service.deployment.stop_router()
    service.stub.delay_s = 0.0
    before = service.store.state(batch.id)
    program()
    service.deployment.start_router()
    client = service.deployment.openai
    eventually(lambda: client.batches.retrieve(batch.id).status in ("completed", "failed"))
    done = client.batches.retrieve(batch.id)
    assert (done.status, done.request_counts.completed) == ("completed", 200), done.errors
    assert done.in_progress_at == before.in_progress_at
    service.client = client
    assert [line["custom_id"] for line in service.lines(done.output_file_id)] == [f"r{n}" for n in range(200)]
    assert [file.id for file in client.files.list(purpose="batch_output")] == [done.output_file_id]


def test_one_program_acts(service, program, eventually):
    """A second one waits; it takes over when the first one has ended."""
    service.stub.mode = "hang"
    batch = service.create(row("a", "q"))
    first = program()
    eventually(lambda: service.stub.requests)
    second = Manager(service.run, lambda *_: pytest.fail("another one is at work"))
    second.tick()
    first.kill()
    first.wait()
    service.stub.mode = "answer"
    assert service.until(batch.id, "completed", "failed").status == "completed"
