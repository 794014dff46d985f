"""`setup` lines with a watch on them, run by a real bash."""

import subprocess

import pytest

from slurminfer.core.processes.setup import FAILED, watched


def run(*lines: str, sourced: str = "", tmp_path=None) -> tuple[str, str]:
    """What is written to stderr, and the variable that the program behind the lines gets."""
    script = "\n".join([*watched(lines), f"printenv {FAILED}", ""])
    if tmp_path is None:
        argv = ["bash", "-c", 'setup=$1; eval "$setup"', "bash", script]
    else:
        (tmp_path / "script").write_text(script)
        argv = ["bash", str(tmp_path / "script")]
    done = subprocess.run(argv, capture_output=True, text=True)
    return done.stderr, done.stdout.strip()


@pytest.fixture(params=["eval", "file"])
def how(request, tmp_path):
    """As local mode runs the lines, and as Slurm runs the batch script."""
    return {} if request.param == "eval" else {"tmp_path": tmp_path}


def test_a_failing_line_is_reported_and_the_job_goes_on(how):
    said, variable = run("module() { return 3; }", "module load cuda", "false", **how)
    assert "slurminfer: a setup line failed with exit status 3: module load cuda\n" in said
    assert "slurminfer: a setup line failed with exit status 1: false\n" in said
    assert variable == "exit status 3 of: module load cuda"


@pytest.mark.parametrize(
    "line", ["false || true", "[ -d /nowhere ] && ls", "if false; then ls; fi", "! true", "for x in 1 2; do :; done"]
)
def test_what_bash_tests_is_no_failure(how, line):
    assert run(line, **how) == ("", "")


def test_what_fails_inside_of_a_sourced_file_is_not_the_users_line(how, tmp_path):
    (tmp_path / "profile").write_text("false\ntrue\n")
    assert run(f". {tmp_path}/profile", **how) == ("", "")
    assert run(f". {tmp_path}/missing", **how)[1] == f"exit status 1 of: . {tmp_path}/missing"


def test_lines_may_belong_together_and_change_the_shell(how):
    said, variable = run("if true; then", "  x=1", "fi", "[ $x = 1 ]", "cd /", "[ $PWD = / ]", **how)
    assert (said, variable) == ("", "")


@pytest.mark.parametrize("status", [0, 3])
def test_a_line_that_ends_the_script_is_reported(how, status):
    assert run("true", f"exit {status}", "true", **how) == (
        f"slurminfer: setup ended the job with exit status {status}: exit {status}\n", "",
    )  # fmt: skip


def test_so_is_a_file_that_does_and_a_variable_that_is_missing(how, tmp_path):
    (tmp_path / "profile").write_text("exit 4\n")
    assert f"setup ended the job with exit status 4: . {tmp_path}/profile\n" in run(f". {tmp_path}/profile", **how)[0]
    said = run(": ${MISSING:?}", **how)[0]  # bash says 1 or 127
    assert "setup ended the job with exit status 1" in said and said.endswith(": : ${MISSING:?}\n")


def test_what_ends_a_shell_of_its_own_or_is_killed_is_not_reported_as_an_exit(how):
    assert "ended the job" not in run("(exit 3)", "kill -TERM $$", **how)[0]


def test_a_trap_of_the_users_own_stays(how):
    assert run("trap 'echo bye >&2' EXIT", **how)[0] == "bye\n"


def test_no_lines_need_no_watch():
    assert watched([]) == []
