"""The worker's record: a sign of life, and no reason to stop where it cannot be written."""

import threading

from slurminfer.core.errors import RunDirectoryError
from slurminfer.core.records import WorkerRecord, WorkerState
from slurminfer.nodes.agent import keeper
from slurminfer.nodes.agent.keeper import RecordKeeper

RECORD = WorkerRecord(
    id="cpu-0", pool="cpu", engine="native", model="m", state=WorkerState.READY, host="n1", job="1", epoch=0, pid=1,
    updated_at=0.0,
)  # fmt: skip


class Disk:
    """Where records go; `full` as long as the test says."""

    def __init__(self) -> None:
        self.written: list[WorkerRecord] = []
        self.full = False
        self.tried = threading.Semaphore(0)

    def write(self, record: WorkerRecord) -> None:
        self.tried.release()
        if self.full:
            raise RunDirectoryError("cannot write cpu-0.json: No space left on device")
        self.written.append(record)


def test_a_change_is_written_before_the_agent_goes_on():
    disk = Disk()
    kept = RecordKeeper(disk.write, RECORD)
    assert kept.note(state=WorkerState.DRAINING)
    assert disk.written[-1].state is WorkerState.DRAINING and disk.written[-1].updated_at > 0
    kept.close()


def test_it_is_written_again_and_again():
    disk = Disk()
    kept = RecordKeeper(disk.write, RECORD, heartbeat_s=0.001)
    for _ in range(5):
        assert disk.tried.acquire(timeout=20)
    kept.close()
    times = [record.updated_at for record in disk.written]
    assert times == sorted(times) and len(set(times)) > 1


def test_a_full_disk_holds_nobody_up_and_the_last_word_is_written_when_there_is_room(monkeypatch, capsys):
    monkeypatch.setattr(keeper, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(keeper, "_RETRY_S", 0.001)
    disk = Disk()
    kept = RecordKeeper(disk.write, RECORD)
    disk.full = True
    assert not kept.note(state=WorkerState.DRAINING)
    for _ in range(3):
        assert disk.tried.acquire(timeout=20)
    disk.full = False
    kept.note(state=WorkerState.GONE, reason="ended by SIGTERM")
    kept.close()
    assert disk.written[-1].state is WorkerState.GONE
    assert capsys.readouterr().out.count("No space left on device") == 1, "said once, not at each try"
