"""Reading what sacct says that jobs have used. Rows are written as Slurm 22.05 prints them."""

import os

import pytest

from slurminfer.core.errors import SlurmError
from slurminfer.slurm.accounting import JobRun, parse_runs, runs_of

UID = 1007
ROWS = """\
5|1007|gpu|astro|1785000000|1785003600|3600|2|32|billing=32,cpu=32,gres/gpu=8,gres/gpu:a100=8,mem=64G,node=2|
5.batch||||1785000000|1785003600|3600|1|16|cpu=16,mem=32G,node=1|7200000
5.extern||||1785000000|1785003600|3600|2|32|cpu=32,mem=64G,node=2|14400000
5|1007|gpu|astro|1785007200|Unknown|60|2|32|cpu=32,gres/gpu:a100=6,gres/gpu:h100=2,mem=64G,node=2|0
6|1007|cpu|bio|Unknown|Unknown|0|1|4||18446744073709551614
slurm_persist_conn: some warning
"""


def parsed(text: str) -> list[JobRun]:
    return parse_runs(text, UID)


def test_each_run_of_a_requeued_job_counts():
    first, second, waiting = parsed(ROWS)
    assert (first.job, first.elapsed_s, first.nodes, first.cpus, first.gpus) == ("5", 3600.0, 2, 32, 8)
    assert (first.started_at, first.ended_at, first.partition) == (1785000000.0, 1785003600.0, "gpu")
    assert (second.job, second.gpus, second.ended_at, second.account) == ("5", 8, None, "astro")
    assert (waiting.elapsed_s, waiting.gpus, waiting.started_at) == (0.0, 0, None)


def test_energy_is_that_of_the_step_with_most_and_none_where_slurm_has_none():
    assert [run.energy_j for run in parsed(ROWS)] == [14400000.0, None, None]


@pytest.mark.parametrize(
    ("joules", "energy"),
    [
        (360_000, 360_000.0),
        (2**32 - 2, None),  # NO_VAL
        (2**64 - 2, None),
        (2**64 - 5000, None),  # a sensor was set back
        (400_000_000, None),  # 111 kW
    ],
)
def test_an_energy_that_no_node_draws_is_none(joules, energy):
    (run,) = parsed(f"5|{UID}|p|a|1785000000|1785003600|3600|1|8|cpu=8|{joules}\n")
    assert run.energy_j == energy


def test_a_number_of_nonsense_in_one_step_leaves_that_of_the_others():
    rows = [f"5|{UID}|p|a|1785000000|1785086400|86400|1|8|cpu=8|{2**32 - 2}", "5.0||||1|2|86400|1|8|cpu=8|36000000"]
    (run,) = parsed("\n".join(rows))
    assert run.energy_j == 36_000_000.0


def test_a_job_of_somebody_else_who_had_the_id_before_does_not_count():
    other = "5|1|p|a|1784000000|1784003600|3600|1|8|cpu=8|3600\n5.batch||||1|2|1|1|8|cpu=8|7200\n"
    assert [run.account for run in parsed(other + ROWS)] == ["astro", "astro", "bio"]


def test_many_jobs_take_several_calls(commands, monkeypatch):
    monkeypatch.setenv("UID_HERE", str(os.getuid()))
    commands(
        "sacct",
        'for last; do :; done; IFS=,; for id in ${last#--jobs=}; do echo "$id|$UID_HERE|p|a|1|2|1|1|1|cpu=1|"; done',
    )
    assert len(runs_of([str(number) for number in range(2500)])) == 2500


def test_no_accounting_is_an_error_in_slurms_words(commands):
    commands("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    with pytest.raises(SlurmError, match="accounting storage is disabled"):
        runs_of(["1"])


def test_no_job_needs_no_slurm(commands):
    assert runs_of([]) == {}
