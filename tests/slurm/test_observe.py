"""Reading what Slurm prints. The texts are recorded from Slurm 22.05, the numbers of the exit statuses included."""

import os

import pytest

from slurminfer.core.errors import SlurmError
from slurminfer.core.job import JobPhase, JobStatus, of_name
from slurminfer.slurm.observe import observe, parse_sacct

SACCT = """\
5|FAILED|n1|3:0|1785000000|1785000009|00:05:00|cpu|normal|demo-cpu-0
6|CANCELLED by 1001|n1|0:0|1785000000|1785000009|00:05:00|cpu|normal|demo-cpu-0
8_0|COMPLETED|n1|0:0|1785000000|1785000009|UNLIMITED|cpu|normal|demo-cpu-0
8_[1-3%1]|PENDING|None assigned|0:0|Unknown|Unknown|00:05:00|cpu|normal|demo-cpu-0
11|FAILED|n2|0:9|1785000000|1785000009|00:05:00|cpu|normal|demo-cpu-0
12|NODE_FAIL|n2|1:0|1785000000|1785000009|00:05:00|cpu|normal|demo-cpu-0
"""
RUNNING = "5|RUNNING|n1|1785000000|1785000300|5:00|cpu|normal|None"


@pytest.mark.parametrize("text", ["", "\n", "slurm_load_jobs: some warning\n"])
def test_sacct_without_rows_is_no_job(text):
    assert parse_sacct(text) == {}


def test_sacct_rows_become_statuses():
    found = parse_sacct(SACCT)
    assert found["6"].state == "CANCELLED"
    assert found["8_0"].phase is JobPhase.DONE
    assert found["8_[1-3%1]"].node == ""
    assert found["12"].reason == ""


def test_sacct_tells_when_a_job_ran_and_where():
    found = parse_sacct(SACCT)
    assert (found["5"].started_at, found["5"].ends_at, found["5"].nodes) == (1785000000.0, 1785000009.0, ("n1",))
    assert (found["5"].limit_s, found["8_0"].limit_s, found["5"].partition) == (300, None, "cpu")
    assert found["8_[1-3%1]"].started_at is None


def test_sacct_failure_tells_exit_code_or_signal():
    found = parse_sacct(SACCT)
    assert found["5"].reason == "exit code 3"
    assert found["11"].reason == "signal 9, Killed"


def test_no_ids_need_no_slurm(commands):
    assert observe([]) == {}


def test_without_slurm_the_error_says_so(commands):
    with pytest.raises(SlurmError, match="no Slurm here: squeue is not on PATH"):
        observe(["1"])


def test_an_unknown_id_is_unknown_where_there_is_no_sacct(commands):
    commands("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert observe(["99999"]) == {"99999": JobStatus(id="99999", phase=JobPhase.UNKNOWN, state="UNKNOWN")}


def test_a_failing_sacct_is_no_error(commands):
    commands("squeue", f"echo '{RUNNING}'")
    commands("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    found = observe(["5", "4"])
    assert (found["5"].phase, found["4"].phase) == (JobPhase.RUNNING, JobPhase.UNKNOWN)


def test_only_ids_that_squeue_has_forgotten_go_to_sacct(commands, tmp_path):
    commands("squeue", f"echo '{RUNNING}'")
    commands("sacct", f"echo \"$@\" > '{tmp_path}/asked'; echo '4|COMPLETED|n1|0:0|1|2|5:00|cpu|normal|demo-cpu-0'")
    assert observe(["5", "4"])["4"].phase is JobPhase.DONE
    assert (tmp_path / "asked").read_text().split()[-1] == "--jobs=4"


def test_an_unreachable_slurmctld_is_an_error_and_not_the_end_of_all_jobs(commands):
    commands("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1")
    with pytest.raises(SlurmError, match="Unable to contact slurm controller"):
        observe(["5"])


def test_view_defaults_of_the_user_change_no_answer(commands, monkeypatch):
    monkeypatch.setenv("SQUEUE_PARTITION", "gpu")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    commands("squeue", 'echo "5|RUNNING|n1|1|2|5:00|cpu|normal|[$SQUEUE_PARTITION] [$SLURM_TIME_FORMAT]"')
    assert observe(["5"])["5"].reason == "[] [%s]"


def test_many_jobs_are_asked_for_by_their_user_and_forgotten_ones_by_the_thousand(commands, tmp_path):
    commands("squeue", f"echo \"$@\" >> '{tmp_path}/queue'; echo '{RUNNING}'; echo '{RUNNING}' | sed s/^5/9999999/")
    commands("sacct", f"echo x >> '{tmp_path}/accounting'")
    (tmp_path / "sed").symlink_to("/usr/bin/sed")
    ids = [str(number) for number in range(5, 10_005)]
    found = observe(ids)
    assert found.keys() == set(ids)
    assert (found["5"].phase, found["6"].phase) == (JobPhase.RUNNING, JobPhase.UNKNOWN)
    (asked,) = (tmp_path / "queue").read_text().splitlines()
    assert f"--user={os.getuid()}" in asked and "--jobs" not in asked
    assert (tmp_path / "accounting").read_text() == "x\n" * 10


def test_where_slurm_does_not_know_the_user_jobs_are_not_taken_for_forgotten(commands):
    commands("squeue", "echo 'squeue: error: Invalid user: 1234567' >&2")  # it ends with 0 all the same
    with pytest.raises(SlurmError, match="Invalid user: 1234567"):
        observe([str(number) for number in range(100)])


def test_a_slurm_conf_that_is_not_there_is_named_at_once(commands, monkeypatch):
    commands("squeue", "sleep 60")
    monkeypatch.setenv("SLURM_CONF", "/nowhere/slurm.conf")
    with pytest.raises(SlurmError, match=r"SLURM_CONF = '/nowhere/slurm\.conf': there is no such file"):
        observe(["1"])


def test_a_slurm_that_does_not_answer_in_time_is_an_error_that_says_where_to_look(commands, monkeypatch):
    commands("squeue", "while :; do :; done")
    monkeypatch.setattr("slurminfer.slurm.client.TIMEOUT_S", 0.1)
    with pytest.raises(SlurmError, match=r"squeue: no answer within 0.1 s: is SLURM_CONF right"):
        observe(["1"])


def test_a_machine_that_has_the_commands_and_no_cluster_is_told_where_to_look(commands):
    said = (
        "squeue: error: fetch_config: DNS SRV lookup failed\\nsqueue: fatal: Could not establish a configuration source"
    )
    commands("squeue", f"printf '{said}' >&2; exit 1")
    with pytest.raises(SlurmError, match=r"configuration source: is SLURM_CONF right, and does 'sinfo' answer here\?"):
        observe(["1"])


def test_names_are_what_follows_the_last_column_whatever_users_write_there(commands):
    name = "8|RUNNING|n1|1|2|5:00|cpu|normal|None\tdemo-cpu-0"
    commands("squeue", f"printf '%s\\t%s\\n' '{RUNNING}' '{name}' '5|a|b' demo-cpu-0")
    commands("sacct", f"echo '4|COMPLETED|n1|0:0|1|2|5:00|cpu|normal|{name}'")
    found = observe(["5", "4", "8"])
    assert (found["5"].name, found["5"].reason, found["4"].name) == (name, "", name)
    assert found["8"].phase is JobPhase.UNKNOWN


def test_only_jobs_of_this_user_are_seen(commands, tmp_path):
    for command in ("squeue", "sacct"):
        commands(command, f"echo \"$@\" > '{tmp_path}/{command}-asked'")
    observe(["5"])
    assert all(
        f"--user={os.getuid()}" in (tmp_path / f"{command}-asked").read_text() for command in ("squeue", "sacct")
    )


def test_a_job_of_another_name_is_not_the_one_that_was_meant():
    status = JobStatus(id="5", phase=JobPhase.RUNNING, state="RUNNING", name="demo-cpu-0")
    assert of_name(status, "demo-cpu-0") == of_name(status, "") == status
    lost = of_name(status, "demo-cpu-1")
    assert lost.is_anothers and not lost.phase.is_living and not status.is_anothers
