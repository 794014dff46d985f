"""The root cause out of logs as programs write them."""

import re

from slurminfer.core.logs.text import PLAIN, LogFormat, ends_itself, lost_task, remark, root_cause, tail

TWO_RANKS = """
INFO loading weights
Traceback (most recent call last):
  File "model.py", line 3, in load
    raise
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB
Traceback (most recent call last):
  File "dist.py", line 3, in wait
RuntimeError: Connection closed by peer
"""


def test_the_first_exception_counts_not_its_echo():
    assert root_cause(TWO_RANKS).startswith("torch.OutOfMemoryError: CUDA out of memory")


def test_a_loggers_prefix_hides_no_exception_and_its_level_tells_what_is_none():
    log_format = LogFormat(prefix=re.compile(r"(?P<level>INFO|ERROR) \d+: "))
    log = "INFO 1: error rate 0\nERROR 2: a fatal error\nERROR 3: KeyError: 'x'\n"
    assert root_cause(log, log_format) == "KeyError: 'x'"
    assert root_cause(log) == "INFO 1: error rate 0"


def test_a_crash_counts_more_than_a_complaint():
    log = "error: no such plugin\nchild 3 died\n"
    assert root_cause(log, LogFormat(crash=re.compile("child . died"))) == "child 3 died"
    assert root_cause(log) == "error: no such plugin"


def test_only_what_the_program_says_of_ending_itself_counts():
    assert ends_itself("goodbye", LogFormat(ends_itself=re.compile("bye")))
    assert not ends_itself("goodbye", PLAIN)


def test_without_an_exception_the_first_complaint():
    assert root_cause("loading\nerror: no such model\nbye") == "error: no such model"


def test_without_a_complaint_the_last_line():
    assert root_cause("one\ntwo\n\n") == "two"


def test_an_empty_or_missing_log(tmp_path):
    assert root_cause(tail(tmp_path / "none.log")) == ""


def test_srun_says_which_task_died_first():
    said = "srun: error: n2: task 1: Killed\nsrun: Terminating StepId=2.0\nsrun: error: n1: task 0: Killed"
    assert lost_task(f"ready\n{said}\n") == "task 1 on n2: Killed"
    assert lost_task("srun: error: n[2-3]: tasks 1-2: Out Of Memory") == "tasks 1-2 on n[2-3]: Out Of Memory"
    assert lost_task("srun: error: Unable to create step") == ""


def test_a_remark_is_what_a_program_that_works_tells_its_user():
    log_format = LogFormat(remark=re.compile("^slower: "))
    assert remark("ready\nslower: no compiler\nslower: again\n", log_format) == "slower: no compiler"
    assert remark("slower: no compiler\n", PLAIN) == ""


def test_that_a_node_does_not_see_the_folder_of_sbatch_is_no_reason():
    log = "slurmstepd-n1: error: couldn't chdir to `/home/me/specs': No such file or directory: going to /tmp instead\n"
    assert root_cause(log) == log.strip()  # it is the last word, where there is no other
    assert root_cause(f"{log}cannot open model.bin\ndone\n") == "cannot open model.bin"


def test_what_a_container_tells_besides_its_errors_is_no_failure():
    told = "INFO:    Cleanup error: squashfuse_ll failed to unmount\nWARNING: cannot update passwd\n"
    error = "\x1b[91mERROR  : Failed to create user namespace\n\x1b[0m"
    assert root_cause(told + error) == "ERROR  : Failed to create user namespace"
