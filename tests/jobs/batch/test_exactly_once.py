"""Whatever happens to the driver, every id stands in the output exactly once."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.ledger.previous import Ledger

pytestmark = pytest.mark.process

DRIVER = """
import sys
from pathlib import Path
from slurminfer.jobs.batch.driver.driver import BatchOptions, run_batch
from slurminfer.jobs.batch.driver.endpoint import Address
run_batch(BatchOptions(input=Path(sys.argv[1]), output=Path(sys.argv[2]), endpoint=Address(sys.argv[3]), key="secret",
                       concurrency=8), lambda state: None)
"""
FAULTS = st.sampled_from([500, 503, 429, "cut", "drop", "mush"])


def start_driver(batch):
    argv = [sys.executable, "-c", DRIVER, str(batch.input), str(batch.output), batch.endpoint.url]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)


def test_killed_with_9_again_and_again(batch):
    batch.prompts(150)
    batch.endpoint.delay_s = 0.02
    sizes = []
    for _ in range(3):
        before = batch.output.stat().st_size if batch.output.exists() else 0
        driver = start_driver(batch)
        while not (batch.output.exists() and batch.output.stat().st_size > before):
            assert driver.poll() is None, driver.communicate()[1]
            time.sleep(0.005)
        driver.send_signal(signal.SIGKILL)
        driver.communicate()
        sizes.append(len(batch.output.read_bytes()))
    assert sizes[0] < sizes[1] < sizes[2], "each went on where the one before was"
    summary = batch.run()
    assert summary.skipped > 0 and summary.done == 150
    assert batch.ids() == sorted(f"p{index}" for index in range(150))


def test_two_drivers_on_one_output_are_refused(batch):
    batch.prompts(1)
    batch.endpoint.hold()
    driver = start_driver(batch)
    while not batch.endpoint.bodies:
        assert driver.poll() is None, driver.communicate()[1]
        time.sleep(0.01)
    with pytest.raises(BatchError, match="another batch is writing"):
        batch.run()
    batch.endpoint.release()
    _, said = driver.communicate(timeout=20)
    assert driver.returncode == 0, said
    assert batch.ids() == ["p0"]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(st.lists(FAULTS, max_size=2), min_size=1, max_size=8),
    cuts=st.lists(st.integers(min_value=0, max_value=400), max_size=3),
)
def test_any_faults_and_any_torn_ends_leave_every_id_once(new_batch, faults, cuts):
    """A cut takes bytes off the output's end, as a crash of the machine can, in mid-line or not."""
    batch = new_batch()
    batch.prompts(len(faults))
    for cut in [*cuts, 0]:
        batch.endpoint.faults = {f"p{index}": list(some) for index, some in enumerate(faults)}
        batch.run(concurrency=3)
        assert batch.ids() == sorted(f"p{index}" for index in range(len(faults)))
        data = batch.output.read_bytes()
        batch.output.write_bytes(data[: max(0, len(data) - cut)])


def test_every_possible_torn_line_is_cut_off(batch):
    batch.prompts(2)
    batch.run()
    first, second = batch.output.read_bytes().splitlines(keepends=True)
    for length in range(len(second)):
        batch.output.write_bytes(first + second[:length])
        with Ledger(batch.output) as again:
            assert again.finished == {json.loads(first)["id"]}
        assert batch.output.read_bytes() == first


@pytest.mark.parametrize(
    "text",
    [
        "my diary\n",
        "my diary",
        '{"id": 1, "prompt": "an input"}\n',
        '{"prompt": "x"}',
        "[]\n",
        "\n",
        '{"id":1,"text"\n',
    ],
)
def test_a_file_that_is_no_batchs_output_is_left_as_it_is(batch, text):
    batch.prompts(1)
    batch.output.write_text(text)
    with pytest.raises(BatchError, match=r"out\.jsonl, line 1: not a batch's result"):
        batch.run()
    assert batch.output.read_text() == text


def test_output_in_no_folder_is_refused(batch):
    batch.prompts(1)
    with pytest.raises(BatchError, match=r"cannot write .*No such file or directory"):
        batch.run(output=batch.folder / "nowhere" / "out.jsonl")


def test_filesystem_without_locks_warns_and_works(batch, monkeypatch, caplog):
    def refuse(file, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    batch.prompts(1)
    assert batch.run().done == 1
    assert "no locks on the filesystem" in caplog.text


@pytest.fixture
def small_disk(tmp_path):
    """A filesystem of 16 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if (done := subprocess.run(mount, capture_output=True, text=True)).returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_names_the_file_and_loses_nothing(batch, small_disk):
    batch.prompts(400)
    output = batch.output = small_disk / "out.jsonl"
    with pytest.raises(
        BatchError, match=rf"cannot write {output}: No space left on device; .*start the same command again"
    ):
        batch.run()
    written = batch.ids()
    assert len(written) > 50 and len(set(written)) == len(written)
    assert output.read_bytes().endswith(b"\n")
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert batch.run().skipped == len(written)
    assert len(set(batch.ids())) == len(batch.ids()) == 400
