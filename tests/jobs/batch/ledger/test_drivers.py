"""Several drivers on one ledger: who has which shard, and what becomes of those of dead ones."""

import os
import signal
import subprocess
import sys

import msgspec
import pytest

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.ledger.look import look
from slurminfer.jobs.batch.ledger.signs import sign_here

from .conftest import answer, failure, finish, texts


def test_each_shard_is_one_drivers(ledgers):
    drivers = [ledgers.open(1, 1, 1, 1), ledgers.open(1, 1, 1, 1)]
    assert sorted(driver.claim().number for driver in drivers * 2) == [0, 1, 2, 3]
    assert [driver.claim() for driver in drivers] == [None, None]
    assert [driver.others for driver in drivers] == [1, 1]


def test_a_driver_sees_what_another_one_seals_and_gives_back(ledgers):
    one, two = ledgers.open(1, 2), ledgers.open(1, 2)
    finish(one, one.claim(), "one ")
    shard = one.claim()
    one.append(shard, answer(0))
    assert two.claim() is None
    assert two.is_sealed(0) and texts(two.records(0)) == ["one 0"]
    one.release(shard)
    assert two.settled(two.claim()) == {0}


def test_a_silent_driver_of_another_machine_loses_its_shard_after_a_minute(ledgers):
    one, two = ledgers.open(2), ledgers.open(2)
    one.append(one.claim(), answer(0, "one"))
    ledgers.rewrite_sign(one, host="far-away", boot="1" * 8)
    assert two.claim() is None
    ledgers.now += 59
    assert two.claim() is None
    ledgers.now += 1
    finish(two, two.claim(), "two ")
    assert texts(two.records(0)) == ["one", "two 1"]


def test_a_driver_of_another_machine_that_gives_signs_keeps_its_shard(ledgers):
    one, two = ledgers.open(2), ledgers.open(2)
    one.claim()
    one._mine.host = "far-away"
    for _ in range(5):
        ledgers.now += 50
        one.sync()
        assert two.claim() is None and two.others == 1


def test_a_driver_whose_process_is_gone_is_dead_at_once(ledgers):
    one, two = ledgers.open(2), ledgers.open(2)
    one.claim()
    assert two.claim() is None
    ledgers.rewrite_sign(one, process=f"{os.getpid()}@1-{one._mine.boot}")  # its pid was given to another one since
    assert two.others == 0 and two.claim().number == 0


def test_a_requeued_job_has_its_shards_at_once(ledgers, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    one, neighbour = ledgers.open(1, 1), ledgers.open(1, 1)
    assert (one.claim().number, neighbour.claim().number) == (0, 1)  # another task of the same job
    ledgers.rewrite_sign(one, host="far-away", boot="1" * 8)
    ledgers.rewrite_sign(neighbour, job="78", host="far-away", boot="1" * 8)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    again = ledgers.open(1, 1)
    assert again.claim().number == 0 and again.claim() is None


@pytest.mark.parametrize("acts", [("append", "sync", "seal", "release"), ("release",), ("sync", "seal"), ("exit",)])
def test_a_driver_that_was_taken_for_dead_harms_nothing(ledgers, acts):
    zombie, other = ledgers.open(2), ledgers.open(2)
    shard = zombie.claim()
    zombie.append(shard, answer(0, "zombie"))
    ledgers.silence(zombie, other)
    finish(other, other.claim(), "other ")
    (sealed,) = ledgers.path.glob("0/sealed/*.jsonl")
    before = sealed.read_bytes()
    does = {
        "append": lambda: zombie.append(shard, answer(1, "late")),
        "sync": zombie.sync,
        "seal": lambda: zombie.seal(shard),
        "release": lambda: zombie.release(shard),
        "exit": zombie.__exit__,
    }
    for act in acts:
        does[act]()
    assert [path.read_bytes() for path in ledgers.path.glob("0/sealed/*.jsonl")] == [before]
    assert texts(zombie.records(0)) == texts(other.records(0)) == ["zombie", "other 1"]
    assert zombie.claim() is other.claim() is None
    assert zombie.counts() == other.counts() == look(ledgers.path).counts


def test_a_driver_that_was_taken_for_dead_may_seal_first(ledgers):
    zombie, other = ledgers.open(2), ledgers.open(2)
    shard = zombie.claim()
    ledgers.silence(zombie, other)
    taken = other.claim()
    other.append(taken, answer(0, "other"))
    finish(zombie, shard, "zombie ")
    sealed = texts(zombie.records(0))
    other.append(taken, answer(1, "other"))
    other.sync()
    other.seal(taken)
    assert texts(other.records(0)) == sealed == ["other", "zombie 1"]


def test_a_driver_that_was_taken_for_dead_does_not_give_back_what_it_has_no_more(ledgers):
    zombie, other = ledgers.open(2), ledgers.open(2)
    shard = zombie.claim()
    ledgers.silence(zombie, other)
    other.claim()
    zombie.release(shard)
    assert zombie.claim() is None and ledgers.open(2).claim() is None


def test_sealing_while_another_one_seals_changes_nothing(ledgers, monkeypatch):
    """The other driver is quicker after this one has looked, while it writes."""
    slow, quick = ledgers.open(1), ledgers.open(1)
    shard = slow.claim()
    slow.append(shard, failure(0))
    ledgers.silence(slow, quick)
    taken, fsync = quick.claim(), os.fsync

    def fsync_late(descriptor):
        monkeypatch.setattr(os, "fsync", fsync)
        finish(quick, taken, "quick ")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_late)
    slow.seal(shard)
    assert {path.name for path in ledgers.path.glob("0/sealed/*")} == {"00000.jsonl", "00000.1.0.0.2.0.1.sums"}
    assert texts(slow.records(0)) == texts(quick.records(0)) == ["quick 0"]


def between(monkeypatch, driver, before=lambda: None, after=lambda: None):
    """Have something happen right before and after a driver writes a sealed shard, once."""
    write = driver._sealed.write

    def written(*args):
        monkeypatch.setattr(driver._sealed, "write", write)
        before()
        write(*args)
        after()

    monkeypatch.setattr(driver._sealed, "write", written)


def test_segments_that_go_while_they_are_sealed_are_sealed_by_another_driver(ledgers, monkeypatch):
    slow, quick = ledgers.open(1), ledgers.open(1)
    shard = slow.claim()
    slow.append(shard, answer(0, "slow"))
    ledgers.silence(slow, quick)
    taken = quick.claim()
    between(monkeypatch, slow, before=lambda: finish(quick, taken))
    slow.seal(shard)
    assert texts(slow.records(0)) == ["slow"]


def test_a_driver_that_stops_after_sealing_removes_nothing_of_who_opens_the_shard_again(ledgers, monkeypatch):
    stopped, later = ledgers.open(2), []
    shard = stopped.claim()
    stopped.append(shard, answer(0, "first"))
    stopped.append(shard, failure(1))

    def open_again():
        ledgers.rewrite_sign(stopped, process=f"{os.getpid()}@1-{stopped._mine.boot}")  # it is dead
        later.append(ledgers.open(2))
        later[0].append(later[0].claim(), answer(1, "second"))

    between(monkeypatch, stopped, after=open_again)
    stopped.seal(shard)
    later[0].sync()
    later[0].seal(shard)
    assert texts(later[0].records(0)) == ["first", "second"]


def test_what_a_living_driver_is_sealing_stays(ledgers):
    one = ledgers.open(1)
    for id in ("living", "dead"):
        (ledgers.path / "0/sealed" / f".00000.{id}").touch()
    one._sealed.clean(lambda id: id == "dead")
    assert [path.name for path in ledgers.path.glob("0/sealed/*")] == [".00000.living"]


def test_a_segment_may_be_sealed_while_it_is_read(ledgers):
    one, two = ledgers.open(3), ledgers.open(3, retry_failed=False)
    shard = one.claim()
    for index in range(2):
        one.append(shard, answer(index))
    reading = two.records(0)
    first = next(reading)
    finish(one, shard)
    assert [record.index for record in (first, *reading)] == [0, 1]  # as it was when reading began
    reading = two.records(0)
    assert [record.index for record in reading] == [0, 1, 2]


@pytest.mark.parametrize("there", [[], ["0.1.0.0.0.0"], ["1.0.0.9.9.9", "0.1.0.0.0.0"]])
def test_sums_that_were_not_told_or_are_wrong_are_mended(ledgers, there):
    """A driver may be killed between sealing and telling; users may remove a sealed file and leave its sums."""
    with ledgers.open(1, 1) as one:
        finish(one, one.claim())
        for path in ledgers.path.glob("0/sealed/*.sums"):
            path.unlink()
        if not there:
            assert look(ledgers.path).counts.answered == 1
    for figures in there:
        (ledgers.path / f"0/sealed/00001.{figures}.sums").touch()
    ledgers.open(1, 1)
    assert {path.name for path in ledgers.path.glob("0/sealed/*")} == {"00000.jsonl", "00000.1.0.0.2.0.1.sums"}


def test_failed_rows_stay_while_another_driver_lives(ledgers):
    one = ledgers.open(1)
    shard = one.claim()
    one.append(shard, failure(0))
    one.seal(shard)
    assert ledgers.open(1).is_sealed(0)
    assert list(ledgers.path.glob("0/sealed/*")) and not list(ledgers.path.glob("0/segments/*"))


class Waiting:
    """Stands in for the sleep of a driver that waits until it may open the ledger: other things happen meanwhile."""

    def __init__(self, *acts):
        self._acts = iter(acts)

    def __call__(self, seconds):
        next(self._acts)()


def opening(ledgers, name, **changes):
    """A driver that is opening the ledger now: its sign and its claim."""
    sign = msgspec.structs.replace(sign_here(), id=name, opening=True, **changes)
    for folder in (ledgers.path, ledgers.path / "drivers"):
        folder.mkdir(exist_ok=True)
    (ledgers.path / "drivers" / f"{name}.json").write_bytes(msgspec.json.encode(sign))
    claim = ledgers.path / f"opening.{int(last(ledgers).suffix[1:]) + 1 if last(ledgers) else 0}"
    claim.write_text(name)
    return claim


def last(ledgers):
    """The claim to open the ledger that counts; None where there never was one."""
    return max(ledgers.path.glob("opening.*"), key=lambda path: int(path.suffix[1:]), default=None)


def test_one_driver_opens_a_ledger_at_a_time(ledgers):
    opening(ledgers, "other")
    ledgers.open(1, sleep=Waiting(lambda: None, lambda: opening(ledgers, "").touch()))
    assert [path.read_text() for path in ledgers.path.glob("opening.*")] == [""]


@pytest.mark.parametrize("dead", [{"process": "1@1-00000000"}, {"ended": True}])
def test_a_driver_that_died_while_it_opened_the_ledger_keeps_nobody_waiting(ledgers, dead):
    opening(ledgers, "first", **dead)
    opening(ledgers, "second", **dead)
    ledgers.open(1, sleep=Waiting())
    assert [path.read_text() for path in ledgers.path.glob("opening.*")] == [""]


def test_a_waiting_driver_says_for_whom(ledgers, caplog):
    claim = opening(ledgers, "other")
    ledgers.open(1, sleep=Waiting(*[lambda: None] * 60, claim.unlink))
    (told,) = caplog.messages
    assert "another driver opens it now (process" in told


def test_drivers_that_begin_in_the_same_instant_try_failed_rows_again(ledgers):
    with ledgers.open(1) as one:
        shard = one.claim()
        one.append(shard, failure(0))
        one.seal(shard)
    opening(ledgers, "other").unlink()  # it has given its sign, and waits
    assert ledgers.open(1).claim().number == 0


def test_a_driver_taken_for_dead_while_it_opens_takes_nothing_apart(ledgers):
    with ledgers.open(1) as one:
        shard = one.claim()
        one.append(shard, failure(0))
        one.seal(shard)

    def late():
        opening(ledgers, "other")
        return one.plan.files

    assert ledgers.enter(one.plan, one.parameters, files=late).is_sealed(0)
    assert last(ledgers).read_text() == "other"


def test_of_drivers_that_find_another_one_dead_one_has_its_shard(ledgers):
    dead, *rest = (ledgers.open(1) for _ in range(3))
    dead.claim()
    ledgers.silence(dead, *rest)
    for driver in rest:
        driver._claims.look()
    assert [driver._take(0) for driver in rest] == [True, False]
    for driver in rest:
        driver._claims.look()
    assert not rest[1]._take(0)


@pytest.mark.parametrize("between", ["given back", "given back and taken"])
def test_a_claim_may_change_hands_after_one_has_looked(ledgers, between):
    """The driver that looked first must not take a living one's shard."""
    dead, slow, quick, third = (ledgers.open(1) for _ in range(4))
    dead.claim()
    ledgers.silence(dead, slow, quick, third)
    slow._claims.look()
    shard = quick.claim()
    quick.release(shard)
    if between == "given back and taken":
        assert third.claim() is not None
    assert not slow._take(0)
    slow._claims.look()
    assert slow._take(0) is (between == "given back")


@pytest.mark.parametrize(
    "name", ["00000.007", "00000.x", "00000.1.2", "00000.-1", "00000.", "00000.99999999999999999999"]
)
def test_what_is_no_claim_keeps_nobody_waiting(ledgers, name):
    ledgers.open(1).__exit__()
    (ledgers.path / "0" / "claims" / name).write_text("somebody")
    assert ledgers.open(1).claim().number == 0


@pytest.mark.parametrize("text", ["nobody", "../../x", "x" * 5000, "a\0b"])
def test_a_claim_of_a_driver_that_there_never_was_is_a_dead_ones(ledgers, text):
    ledgers.open(1).__exit__()
    (ledgers.path / "0" / "claims" / "00000.3").write_text(text)
    assert ledgers.open(1).claim().number == 0


def test_a_claim_that_leads_nowhere_is_nobodys(ledgers):
    ledgers.open(1).__exit__()
    (ledgers.path / "0" / "claims" / "00000.3").symlink_to("nowhere")
    assert ledgers.open(1).claim().number == 0


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.write_bytes(b"\xff")])
def test_a_claim_that_cannot_be_read_is_told(ledgers, make):
    ledgers.open(1).__exit__()
    make(ledgers.path / "0" / "claims" / "00000.3")
    with pytest.raises(BatchError, match=r"claims/00000\.3"):
        ledgers.open(1).claim()


def test_a_driver_that_was_stopped_while_it_gave_back_frees_nothing_of_others(ledgers, monkeypatch):
    """It has seen that it has the shard; when it wakes up, another one has it that found it dead."""
    stopped, other, third = (ledgers.open(1) for _ in range(3))
    shard = stopped.claim()
    holder = stopped._claims._holder

    def late(name, number):
        found = holder(name, number)
        monkeypatch.setattr(stopped._claims, "_holder", holder)
        ledgers.silence(stopped, other, third)
        assert other.claim() is not None
        return found

    monkeypatch.setattr(stopped._claims, "_holder", late)
    stopped.release(shard)
    assert third.claim() is None


def test_a_pid_of_another_container_says_nothing(ledgers):
    one, two = ledgers.open(1), ledgers.open(1)
    one.claim()
    ledgers.rewrite_sign(one, pid_namespace=1, process=f"{os.getpid()}@1-{one._mine.boot}")
    assert two.others == 1 and two.claim() is None


def test_who_only_reads_is_no_driver(ledgers):
    reader = ledgers.open(1, retry_failed=False)
    one = ledgers.open(1)
    assert one.others == 0 and reader.others == 1
    reader.sync()
    reader.__exit__()
    assert len(look(ledgers.path).drivers) == 1
    late = ledgers.open(1, retry_failed=False)
    one.release(one.claim())
    assert late.claim() is not None and one.others == 1


def test_status_tells_of_drivers(ledgers, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    one = ledgers.open(2)
    one.append(one.claim(), answer(0, tokens=7))
    ledgers.now += 10
    one.sync()
    (told,) = look(ledgers.path).drivers
    assert (told.job, told.rows, told.completion_tokens, told.is_living) == ("12", 1, 7, True)
    one.__exit__()
    assert not look(ledgers.path).drivers[0].is_living


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"[" * 5000])
def test_a_damaged_sign_is_that_of_nobody(ledgers, damage):
    one, two = ledgers.open(1), ledgers.open(1)
    one.claim()
    (ledgers.path / "drivers" / f"{one._id}.json").write_bytes(damage)
    assert two.others == 0 and two.claim().number == 0


def test_a_driver_that_failed_while_it_opened_the_ledger_holds_up_nobody(ledgers):
    with pytest.raises(BatchError, match="no plan"):
        ledgers.enter(None, ledgers.open(1).parameters, files=_fail)
    assert [driver.is_living for driver in look(ledgers.path).drivers].count(True) == 1


def _fail():
    raise BatchError("no plan")


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import answer, plan_of
from slurminfer.jobs.batch.ledger.ledger import Ledger
from slurminfer.jobs.batch.parameters import Parameters

with Ledger(Path(sys.argv[1]), Parameters(), lambda: plan_of(*[20] * 12)) as ledger:
    while (shard := ledger.claim()) is not None:
        for index in sorted(set(range(20)) - ledger.settled(shard)):
            ledger.append(shard, answer(index, f"{shard.number} {index}"))
            print(index, flush=True)
        ledger.sync()
        ledger.seal(shard)
"""


@pytest.mark.process
def test_writers_that_are_killed_leave_every_row_once(ledgers):
    def start():
        command = [sys.executable, "-c", WRITER, str(ledgers.path), os.path.dirname(__file__)]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    writers = [start(), start()]
    for lines in (30, 7, 41):
        victim = writers.pop(0)
        for _ in range(lines):
            victim.stdout.readline()
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        writers.append(start())
    assert [(writer.communicate(), writer.returncode)[1] for writer in writers] == [0, 0]
    ledger = ledgers.open(*[20] * 12)
    while (shard := ledger.claim()) is not None:  # of a writer that was killed when the last one looked
        for index in sorted(set(range(20)) - ledger.settled(shard)):
            ledger.append(shard, answer(index, f"{shard.number} {index}"))
        ledger.seal(shard)
    assert look(ledgers.path).is_settled
    for number in range(12):
        assert texts(ledger.records(number)) == [f"{number} {index}" for index in range(20)]
    assert ledger.counts().answered == look(ledgers.path).counts.answered == 240
    assert not list(ledgers.path.glob("0/segments/*"))


def test_a_shard_that_a_dead_driver_has_sealed_is_not_done_again(ledgers):
    one, two = ledgers.open(1, 1), ledgers.open(1, 1)
    shard = one.claim()
    two._list_sealed()
    finish(one, shard)
    one.__exit__()
    assert two.claim().number == 1


def test_leftovers_of_a_driver_that_was_killed_while_it_sealed_are_removed(ledgers):
    with ledgers.open(1, 1) as one:
        finish(one, one.claim())
        (ledgers.path / "0/segments/00000.abcdef01.jsonl").write_bytes(b"{}\n")
        (ledgers.path / "0/sealed/.00001.abcdef01").write_bytes(b"{")
        ledgers.open(1, 1).__exit__()  # the other one lives
        assert list(ledgers.path.glob("0/segments/*")) and list(ledgers.path.glob("0/sealed/.*"))
    ledgers.open(1, 1)
    assert not list(ledgers.path.glob("0/segments/*")) and not list(ledgers.path.glob("0/sealed/.*"))
