"""What one driver after another leaves of a shard: one record for each row, whatever the files have gone through."""

import logging
import shutil
import threading

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.ledger.ledger import Counts
from slurminfer.jobs.batch.ledger.look import look
from slurminfer.jobs.batch.ledger.record import Record, decode, encode
from slurminfer.jobs.batch.ledger.segments import ShardRecords
from slurminfer.jobs.batch.parameters import Parameters

from .conftest import answer, failure, finish, texts


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_shard_with_a_row_missing_is_not_sealed(ledgers, missing):
    ledger = ledgers.open(3)
    shard = ledger.claim()
    for index in {0, 1, 2} - {missing}:
        ledger.append(shard, answer(index))
    with pytest.raises(BatchError, match=f"no record of its row {missing}"):
        ledger.seal(shard)
    assert not ledger.is_sealed(0)
    ledger.append(shard, answer(missing))
    ledger.seal(shard)
    assert [record.index for record in ledger.records(0)] == [0, 1, 2]


def test_shards_are_claimed_in_order_and_given_back(ledgers):
    ledger = ledgers.open(1, 1, 1)
    first = ledger.claim()
    ledger.release(first)
    assert [ledger.claim().number for _ in range(3)] == [1, 2, 0]
    assert ledger.claim() is None
    with pytest.raises(BatchError, match="shard 7 is not claimed"):
        ledger.append(msgspec.structs.replace(first, number=7), answer(0))


def test_a_segment_that_is_cut_anywhere_loses_no_whole_record(tmp_path):
    lines = [encode(answer(0)), encode(failure(1, "é")), encode(Record(index=2, blank=True))]
    whole, path = b"".join(lines), tmp_path / "s"
    ends = [len(b"".join(lines[:count])) for count in range(1, 4)]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        records = ShardRecords(3)
        records.refresh([path])
        kept = sum(size >= end for end in ends)
        assert list(records.lines()) == lines[:kept]
        assert records.missing == (kept if kept < 3 else None)
        path.write_bytes(whole)  # the rest arrives: what was torn was only under way
        records.refresh([path])
        assert list(records.lines()) == lines


@pytest.mark.parametrize(
    "garbage",
    [bytes(4096), b"\xff\xfe", b"{}", b'{"index":7}', b'{"index":-1,"error":"no"}', b"[" * 9999, b'{"index":1e99}',
     b'{"index":99999999999999999999}', b""],
)  # fmt: skip
def test_garbage_in_the_middle_is_passed_over(tmp_path, garbage, caplog):
    lines, path = [encode(answer(0)), encode(answer(1))], tmp_path / "s"
    path.write_bytes(lines[0] + garbage + b"\n" + lines[1])
    records = ShardRecords(2)
    with caplog.at_level(logging.WARNING):
        records.refresh([path])
    assert list(records.lines()) == lines and "passed over what is no record" in caplog.text


def test_an_answer_counts_before_an_error_and_the_first_before_the_second(tmp_path):
    found = [[failure(0), answer(1, "1"), answer(0, "late")], [answer(0, "2"), failure(1), failure(2), answer(1, "3")]]
    for name, some in zip("ab", found, strict=True):
        (tmp_path / name).write_bytes(b"".join(map(encode, some)))
    records = ShardRecords(4)
    records.refresh([tmp_path / "b", tmp_path / "a"])
    assert texts(map(decode, records.lines())) == ["late", "1", "no"]
    assert (records.answered, records.missing, records.sums.failed) == ({0, 1}, 3, 1)


STEP = st.tuples(st.sampled_from(["answer", "fail", "blank", "tear", "zeros", "next", "release"]), st.integers(0, 4))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=25))
def test_every_row_has_one_record_whatever_drivers_do_one_after_the_other(ledgers, steps):
    shutil.rmtree(ledgers.path, ignore_errors=True)
    ledger = ledgers.open(5)
    shard, expected = ledger.claim(), {}  # what readers must find: an answer if there is any
    for step, index in steps:
        (segment,) = ledgers.path.glob(f"0/segments/00000.{ledger._id}.jsonl")
        if step == "answer":
            ledger.append(shard, answer(index, f"{ledger._id} {index}"))
            expected[index] = "answer"
        elif step in ("fail", "blank"):
            ledger.append(shard, failure(index) if step == "fail" else Record(index=index, blank=True))
            if step == "blank" or index not in expected:
                expected[index] = "fail" if step == "fail" else "answer"
        elif step in ("tear", "zeros"):
            with segment.open("ab") as file:
                file.write(encode(answer(index))[:-3] if step == "tear" else bytes(10) + b"\n")
        if step in ("tear", "next"):
            ledger.__exit__()
            ledger = ledgers.open(5)
            shard = ledger.claim()
        elif step == "release":
            ledger.release(shard)
            shard = ledger.claim()
        assert ledger.settled(shard) == {i for i, kind in expected.items() if kind == "answer"}
        assert [r.index for r in ledger.records(0)] == sorted(expected)
        counts = ledger.counts()
        assert counts.failed == sum(kind == "fail" for kind in expected.values())
        assert look(ledgers.path).counts == counts
    finish(ledger, shard)
    assert [record.index for record in ledger.records(0)] == [0, 1, 2, 3, 4]
    assert not list(ledgers.path.glob("0/segments/*")) and not list(ledgers.path.glob("0/sealed/.*"))
    assert ledger.counts() == look(ledgers.path).counts
    ledger.__exit__()


def test_counts_are_those_of_sealed_and_open_rows(ledgers):
    ledger = ledgers.open(2, 2)
    shard = ledger.claim()
    ledger.append(shard, answer(0, tokens=5))
    ledger.append(shard, Record(index=1, blank=True))
    ledger.seal(shard)
    shard = ledger.claim()
    ledger.append(shard, failure(1))
    ledger.append(shard, answer(0, tokens=7))
    expected = Counts(rows=3, answered=2, failed=1, prompt_tokens=4, cached_tokens=0, completion_tokens=12)
    assert ledger.counts() == expected == look(ledgers.path).counts


def test_failed_rows_of_a_sealed_shard_are_open_again(ledgers):
    with ledgers.open(2, 1) as ledger:
        shard = ledger.claim()
        ledger.append(shard, answer(0, "first"))
        ledger.append(shard, failure(1))
        ledger.seal(shard)
        finish(ledger, ledger.claim())
    with ledgers.open(2, 1, retry_failed=False) as reader:
        assert reader.is_sealed(0) and texts(reader.records(0)) == ["first", "no"]
    assert look(ledgers.path).is_settled
    ledger = ledgers.open(2, 1)
    assert (ledger.is_sealed(0), ledger.is_sealed(1)) == (False, True)
    assert texts(ledger.records(0)) == ["first", "no"]  # kept until there is something better
    shard = ledger.claim()
    assert ledger.settled(shard) == {0}
    ledger.append(shard, answer(1, "second"))
    ledger.seal(shard)
    assert texts(ledger.records(0)) == ["first", "second"]


def test_opening_failed_rows_again_may_break_off_anywhere(ledgers, monkeypatch):
    with ledgers.open(1, 1) as ledger:
        for _ in range(2):
            shard = ledger.claim()
            ledger.append(shard, failure(0))
            ledger.seal(shard)
    renames, rename = [], __import__("os").rename

    def break_off(source, target):
        renames.append(source)
        if len(renames) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as broken:
        broken.setattr("os.rename", break_off)
        with pytest.raises(KeyboardInterrupt):
            ledgers.open(1, 1)
    assert look(ledgers.path).counts.failed == 2
    ledger = ledgers.open(1, 1)
    assert [finish(ledger, ledger.claim()).number for _ in range(2)] == [0, 1]
    assert ledger.counts().answered == 2 and ledger.counts().failed == 0


def test_changed_parameters_are_named(ledgers):
    ledgers.open(1, parameters=Parameters(model="m", sampling={"seed": msgspec.Raw(b"[1, 2]")}))
    ledgers.open(1, parameters=Parameters(model="m", sampling={"seed": msgspec.Raw(b"[1,2]")}))
    with pytest.raises(BatchError) as caught:
        ledgers.open(1, parameters=Parameters(model="n", sampling={"top_p": msgspec.Raw(b"0.5")}))
    said = str(caught.value)
    assert 'model was "m", is "n" now; seed was [1, 2], is not given now; top_p was not given, is 0.5 now' in said
    assert "choose another output, or remove that folder to begin anew" in said


def test_parameters_without_results_give_way(ledgers):
    """As after an end at once, to mend a mistake."""
    mine, other = Parameters(model="m"), Parameters(model="n")
    ledgers.open(1, parameters=other).__exit__()
    with ledgers.open(1, parameters=mine) as ledger:
        ledger.append(ledger.claim(), failure(0))
    with pytest.raises(BatchError, match='model was "m", is "n" now'):
        ledgers.open(1, parameters=other)
    ledgers.open(1, parameters=mine)


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"{", "is not a batch's ledger"), (b"\xff", "is not text"), (b"[]", "is not a batch's ledger"),
     (b'{"version":3,"begun_at":1,"parameters":{}}', "has layout 3: expected 2")],
)  # fmt: skip
def test_a_folder_that_is_no_ledger_of_ours_is_left_alone(ledgers, text, said):
    ledgers.path.mkdir()
    (ledgers.path / "batch.json").write_bytes(text)
    for reading in (lambda: ledgers.open(1), lambda: look(ledgers.path)):
        with pytest.raises(BatchError, match=rf"{said}.*choose another output"):
            reading()
    assert (ledgers.path / "batch.json").read_bytes() == text


@pytest.mark.parametrize("plan", [b"", b"\xff" * 9, b"\x81\xa5files\x90"])
def test_a_damaged_plan_says_so(ledgers, plan):
    with ledgers.open(1):
        (ledgers.path / "0/plan").write_bytes(plan)
    for reading in (lambda: ledgers.open(1), lambda: look(ledgers.path)):
        with pytest.raises(BatchError, match="0/plan is damaged"):
            reading()


def test_what_others_keep_in_the_folder_is_no_matter(ledgers):
    (ledgers.path / "jobs").mkdir(parents=True)
    (ledgers.path / "output.json").write_text("{}")
    (ledgers.path / "7").write_text("a file")
    ledger = ledgers.open(1)
    for folder in ("sealed", "segments"):
        (ledgers.path / "0" / folder / "99999.jsonl").write_text("foreign")
        (ledgers.path / "0" / folder / "99999.1.0.0.0.0.0.sums").write_text("foreign")
        (ledgers.path / "0" / folder / "00009.abc.jsonl").write_text("foreign")
    assert ledger.counts().answered == 0 == look(ledgers.path).counts.answered
    finish(ledger, ledger.claim())
    assert ledger.counts().answered == 1


@pytest.mark.parametrize("damage", [b"\0" * 50, b"", b'{"index":1}\n'])
def test_a_damaged_sealed_shard_says_what_to_do(ledgers, damage):
    with ledgers.open(2) as ledger:
        finish(ledger, ledger.claim())
        (path,) = ledgers.path.glob("0/sealed/*.jsonl")
        path.write_bytes(damage)
        with pytest.raises(BatchError, match=r"is damaged: .*; remove it, and start the same command again"):
            list(ledger.records(0))
    path.unlink()
    again = ledgers.open(2)
    finish(again, again.claim(), "new ")
    assert texts(again.records(0)) == ["new 0", "new 1"]


def test_a_record_is_one_line_whatever_it_says(ledgers):
    record = Record(index=0, answer=msgspec.Raw(b'{\n"a": "\\n"\n}'))
    assert encode(record).count(b"\n") == 1
    read = decode(encode(record)).answer
    assert read is not None and msgspec.json.decode(read) == {"a": "\n"}
    assert decode(encode(failure(0, "half \ud83d"))).error == "half ?"


def test_a_segment_that_is_removed_or_replaced_is_noticed(ledgers):
    ledger = ledgers.open(1, 1)
    shard = ledger.claim()
    ledger.append(shard, answer(0))
    (segment,) = ledgers.path.glob("0/segments/*")
    segment.rename(segment.with_suffix(".away"))
    with pytest.raises(BatchError, match="removed or renamed"):
        ledger.sync()
    segment.write_bytes(b"")
    with pytest.raises(BatchError, match="replaced by another file"):
        ledger.sync()


def test_a_ledger_is_for_several_threads(ledgers):
    """One claims, one appends, one seals and gives back, one syncs and counts; as a driver has them."""
    ledger = ledgers.open(*[3] * 24)
    claimed, raised, is_done = [], [], threading.Event()

    def work():
        try:
            while (shard := ledger.claim(lambda shard: shard.number not in claimed)) is not None:
                claimed.append(shard.number)
                for index in {0, 1, 2} - ledger.settled(shard):
                    ledger.append(shard, answer(index))
                ledger.release(shard) if shard.number % 4 == 0 else ledger.seal(shard)
        except BaseException as error:
            raised.append(error)

    def watch():
        try:
            while not is_done.is_set():
                ledgers.now += 10
                ledger.sync()
                assert ledger.counts().rows == 72
                ledger.is_sealed(23)
        except BaseException as error:
            raised.append(error)

    workers, watchers = ([threading.Thread(target=each) for _ in range(2)] for each in (work, watch))
    for thread in (*workers, *watchers):
        thread.start()
    for thread in workers:
        thread.join()
    is_done.set()
    for thread in watchers:
        thread.join()
    assert not raised and sorted(claimed) == list(range(24))
    assert ledger.counts().answered == 72
    assert [n for n in range(24) if not ledger.is_sealed(n)] == list(range(0, 24, 4))
