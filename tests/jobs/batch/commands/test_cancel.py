"""Which drivers `slurminfer batch cancel` ends."""

import signal
import subprocess
import sys

import msgspec
import pytest

from slurminfer.core.errors import SlurminferError
from slurminfer.core.files import encode_json
from slurminfer.core.processes.process_id import process_id
from slurminfer.jobs.batch.batch import Batch, EndpointChoice
from slurminfer.jobs.batch.commands.cancel import cancel, wait_for
from slurminfer.jobs.batch.ledger.signs import sign_here
from slurminfer.jobs.batch.outputs.export import OutputOptions
from slurminfer.jobs.batch.submit.folder import JobsFolder


@pytest.fixture
def driver():
    """A process that stands for a driver: it sleeps until it is told to end."""
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        yield process
        process.kill()


@pytest.fixture
def folder(tmp_path):
    batch = Batch(
        inputs=("/in",), output=OutputOptions(path=tmp_path / "out.jsonl"), endpoint=EndpointChoice(run="demo")
    )
    found = JobsFolder(batch.output.path)
    found.write_batch(batch, of_jobs=False)
    (found.ledger / "drivers").mkdir()
    return found


def sign(folder, **changed):
    given = msgspec.structs.replace(sign_here(), **changed)
    (folder.ledger / "drivers" / f"{given.id}.json").write_text(encode_json(given))


def test_a_driver_at_another_terminal_is_told_to_end(folder, driver, capsys):
    sign(folder, process=process_id(driver.pid))
    cancel(folder.output)
    assert driver.wait() == -signal.SIGTERM
    assert f"driver process {driver.pid} ended" in capsys.readouterr().out


def test_a_driver_that_has_ended_and_another_process_with_its_number_are_left_alone(folder, driver, capsys):
    alive = process_id(driver.pid)
    sign(folder, process=alive, ended=True)
    sign(folder, id="0", process=f"{driver.pid}@1-{alive.rpartition('-')[2]}")
    cancel(folder.output)
    assert driver.poll() is None
    assert "nothing of" in capsys.readouterr().out


@pytest.mark.parametrize(("job", "advice"), [(None, "end it there"), ("77", "scancel 77")])
def test_a_driver_on_another_machine_is_named(folder, driver, job, advice):
    sign(folder, process=process_id(driver.pid), host="n9", boot="other", job=job)
    with pytest.raises(SlurminferError, match=f"process {driver.pid} is on n9 and cannot be ended from here: {advice}"):
        cancel(folder.output)
    assert driver.poll() is None


def test_a_driver_that_does_not_end_is_not_waited_for_without_end(driver):
    slept: list[float] = []
    process, now = process_id(driver.pid), iter(range(0, 1000, 50))
    assert wait_for([process], clock=lambda: next(now), sleep=slept.append) == [process]
    assert len(slept) == 1
