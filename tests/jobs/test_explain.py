"""Failures of engines and of Slurm, as they were written, and what is said of them. The texts are in failures.toml."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from slurminfer.core.job import JobEnding, JobPhase, JobStatus
from slurminfer.core.logs.text import LogFormat
from slurminfer.jobs.explain import Log, explain
from slurminfer.nodes.engines.table import ADAPTERS
from slurminfer.slurm.failures import STATES
from slurminfer.slurm.states import PHASES

FAILURES: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "failures.toml").read_text(encoding="utf-8"))[
    "failure"
]
TASK_LOG = LogFormat(prefix=re.compile(r"submitit (?P<level>[A-Z]+) \([^)]*\) - "))


def status_of(failure: dict[str, Any]) -> JobStatus:
    told = {key: failure[key] for key in ("cancelled_by", "memory", "preempted") if key in failure}
    return JobStatus(
        id="7",
        phase=PHASES[failure.get("state", "FAILED")],
        state=failure.get("state", "FAILED"),
        reason=failure.get("reason", "NonZeroExitCode"),
        ending=JobEnding(**told) if told else None,
    )


def logs_of(failure: dict[str, Any]) -> list[Log]:
    adapter = ADAPTERS[failure.get("engine", "native")]
    return [
        Log(text=failure.get("engine_log", ""), log_format=adapter.log_format, known=adapter.known_failures),
        Log(text=failure.get("task_log", ""), log_format=TASK_LOG, known=adapter.known_failures),
    ]


@pytest.mark.parametrize("failure", FAILURES, ids=[failure["name"] for failure in FAILURES])
def test_a_failure_is_explained_with_what_to_change(failure):
    found = explain(logs_of(failure), status_of(failure))
    assert re.search(failure["cause"], found.cause), found
    assert failure["advice"] in found.advice, found
    logs = failure.get("engine_log", "") + failure.get("task_log", "")
    assert found.line in logs and (found.line or not logs.strip())


def test_there_are_many_and_each_says_where_it_is_from():
    assert len(FAILURES) >= 40
    assert len({failure["name"] for failure in FAILURES}) == len(FAILURES)
    assert sum(failure["source"].startswith("caused: ") for failure in FAILURES) >= 40


def test_every_state_of_slurm_that_says_why_is_one_in_which_a_job_has_failed():
    assert all(PHASES[state] is JobPhase.FAILED for state in STATES)


def log(text: str, engine: str = "vllm") -> Log:
    return Log(text=text, log_format=ADAPTERS[engine].log_format, known=ADAPTERS[engine].known_failures)


FAILED = JobStatus(id="7", phase=JobPhase.FAILED, state="FAILED", reason="NonZeroExitCode")


def test_what_follows_from_another_failure_counts_only_where_nothing_else_is_known():
    echo = log("RuntimeError: NCCL error: unhandled system error\n")
    cause = log("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n")
    assert explain([echo, cause], FAILED).cause == "the GPU's memory is full"
    assert "another rank had died" in explain([echo], FAILED).cause


def test_what_could_not_be_staged_is_no_cause():
    full = "weights are not staged, but read from /models/m: No space left on device\n"
    assert "full" not in explain([log(full)], FAILED).cause


def test_of_a_killed_rank_the_others_complaints_do_not_count():
    ranks = [log("ncclRemoteError: connection closed by peer\n"), log("srun: error: n2: task 1: Killed\n")]
    assert "SIGKILL" in explain(ranks, FAILED).cause


def test_what_slurm_did_counts_more_than_what_logs_say_of_it():
    cancelled = JobStatus(id="7", phase=JobPhase.FAILED, state="CANCELLED")
    found = explain([log("ConnectionError: connection reset by peer\n")], cancelled)
    assert (found.cause, found.line) == (STATES["CANCELLED"].cause, "ConnectionError: connection reset by peer")


def test_of_an_unknown_failure_there_is_the_line_alone():
    found = explain([log("loading\nKeyError: 'x'\nbye\n")], FAILED)
    assert (found.cause, found.line, found.advice, str(found)) == ("", "KeyError: 'x'", "", "KeyError: 'x'")
    assert explain([], FAILED).line == ""


@pytest.mark.parametrize(
    "harmless",
    [
        "n1:9:9 [0] NCCL INFO NET/Plugin: libnccl-net.so: cannot open shared object file: No such file or directory",
        "[2026-11-28 19:30:38] server_args=ServerArgs(trust_remote_code=True, quantization=None)",
        "(APIServer pid=6) WARNING 11-25 18:36:04 [system_utils.py:255] too many open files",
    ],
)
def test_lines_that_only_look_like_failures_explain_nothing(harmless):
    assert explain([log(harmless)], FAILED).cause == ""


def test_whether_the_same_job_may_succeed_when_it_is_started_again_is_told():
    node = JobStatus(id="7", phase=JobPhase.FAILED, state="NODE_FAIL")
    memory = JobStatus(id="7", phase=JobPhase.FAILED, state="OUT_OF_MEMORY")
    assert (explain([], node).may_pass, explain([], memory).may_pass) == (True, False)


def test_a_setup_line_that_failed_explains_no_program_that_has_worked():
    said = [log("slurminfer: a setup line failed with exit status 1: source ~/.bashrc\n")]
    assert "a line of `setup` failed" in explain(said, FAILED).cause
    assert explain(said, FAILED, has_worked=True).cause == ""


def test_a_job_that_has_worked_was_launched_whatever_slurm_says_of_its_end():
    failed = JobStatus(id="7", phase=JobPhase.FAILED, state="FAILED", reason="JobLaunchFailure")
    assert "could not launch the job" in explain([], failed).cause
    assert explain([], failed, has_worked=True).cause == ""
