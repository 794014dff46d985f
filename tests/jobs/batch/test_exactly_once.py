"""Whatever happens to drivers, every row stands in the output exactly once."""

import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.outputs.export import OutputOptions

from ...support.small_disk import small_disk_at
from ...support.waiting import eventually

pytestmark = pytest.mark.process

DRIVER = """
import signal, sys
from pathlib import Path
from slurminfer.jobs.batch.driver.address import Address
from slurminfer.jobs.batch.driver.driver import run_batch
from slurminfer.jobs.batch.driver.options import BatchOptions
from slurminfer.jobs.batch.outputs.export import OutputOptions

def leave(number, frame):
    raise SystemExit(143)

signal.signal(signal.SIGTERM, leave)
source, output, url = sys.argv[1:]
summary = run_batch(BatchOptions(inputs=[source], output=OutputOptions(path=Path(output)), endpoint=Address(url),
                                 key="secret", concurrency=8), lambda state: None)
print(summary.answered - summary.skipped)
"""
FAULTS = st.sampled_from([500, 503, 429, "cut", "drop", "mush"])


def start_driver(batch) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", DRIVER, str(batch.input), str(batch.output), batch.endpoint.url]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end_after(batch, answers: int, driver: subprocess.Popen[str], how: signal.Signals) -> None:
    """End a driver when the endpoint has given so many answers more."""
    before = batch.endpoint.answered.total()

    def has_worked() -> bool:
        assert driver.poll() is None, driver.communicate()[1]
        return batch.endpoint.answered.total() >= before + answers

    eventually(has_worked)
    driver.send_signal(how)
    driver.communicate()


def all_once(batch, count: int) -> None:
    assert batch.ids() == [f"p{index}" for index in range(count)]
    assert batch.answers() == [f"echo p{index}" for index in range(count)]


def test_killed_with_9_again_and_again(batch):
    batch.prompts(300)
    batch.endpoint.delay_s = 0.02
    for _ in range(3):
        end_after(batch, 40, start_driver(batch), signal.SIGKILL)
    summary = batch.run()
    assert summary.skipped >= 60, "each went on where the one before was"
    assert summary.answered == 300
    all_once(batch, 300)
    assert batch.endpoint.answered.total() <= 300 + 3 * 2 * 8, "only what was in flight is done again"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_is_told_to_end_gives_its_claims_back(batch, how):
    batch.prompts(300)
    batch.endpoint.delay_s = 0.02
    end_after(batch, 40, start_driver(batch), how)
    summary = batch.run(waits_for_others=False)
    assert summary.skipped >= 24 and summary.answered == 300, "nothing was waited for"
    all_once(batch, 300)
    assert batch.endpoint.answered.total() <= 300 + 8


def test_drivers_at_the_same_time_share_the_rows(batch):
    batch.prompts(600)
    batch.endpoint.delay_s = 0.3  # so that the second has begun before the first has claimed all
    drivers = [start_driver(batch) for _ in range(2)]
    said = [driver.communicate(timeout=100) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    shares = [int(out) for out, _ in said]
    assert all(shares), "both have worked"
    all_once(batch, 600)
    assert batch.endpoint.answered.total() == 600


def test_the_rows_of_a_driver_that_was_killed_are_taken_over(batch):
    batch.prompts(600)
    batch.endpoint.delay_s = 0.02
    first, second = start_driver(batch), start_driver(batch)
    end_after(batch, 60, first, signal.SIGKILL)
    _, said = second.communicate(timeout=200)
    assert second.returncode == 0, said
    all_once(batch, 600)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=st.lists(st.lists(FAULTS, max_size=2), min_size=1, max_size=8))
def test_any_faults_leave_every_row_once(new_batch, faults):
    batch = new_batch()
    batch.prompts(len(faults))
    batch.endpoint.faults = {f"p{index}": list(some) for index, some in enumerate(faults)}
    batch.run(concurrency=3)
    all_once(batch, len(faults))


def test_output_in_no_folder_is_refused(batch):
    batch.prompts(1)
    with pytest.raises(BatchError, match="nowhere"):
        batch.run(output=OutputOptions(path=batch.folder / "nowhere" / "out.jsonl"))
    assert not batch.endpoint.bodies


@pytest.fixture
def small_disk(tmp_path):
    """A filesystem of 96 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk_at(folder, "96k"):
        yield folder


def test_a_full_disk_names_the_file_and_loses_nothing(batch, small_disk):
    batch.prompts(2000)
    output = batch.output = small_disk / "out.jsonl"
    with pytest.raises(BatchError, match=rf"cannot write {output}.*No space left on device"):
        batch.run()
    sent = batch.endpoint.answered.total()
    assert sent > 50
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    assert batch.run().answered == 2000
    all_once(batch, 2000)
    assert batch.endpoint.answered.total() <= 2000 + 2 * 64
