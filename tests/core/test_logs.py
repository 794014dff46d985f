"""The root cause out of logs as programs write them."""

from slurminfer.core.logs import ends_itself, lost_task, root_cause, tail

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
    log = """
(APIServer pid=6) WARNING 11-25 18:36:04 [system_utils.py:255] failed to increase with error current limit exceeds
(EngineCore pid=64) ERROR 11-25 18:36:26 [core.py:1512] EngineCore encountered a fatal error.
(EngineCore pid=64) ERROR 11-25 18:36:26 [core.py:1512] KeyError: 'cmpl-bf'
"""
    assert root_cause(log) == "KeyError: 'cmpl-bf'"
    assert root_cause("INFO 11-25 18:36:04 [a.py:2] no error\nINFO 11-25 18:36:05 [a.py:3] bye").endswith("bye")


def test_of_sglang_a_crash_counts_not_what_it_has_ignored_before():
    log = """
[2026-11-28 19:30:38] Ignore import error when loading sglang.srt.models.inkling: No module named 'helion'
[2026-11-28 19:32:12] Subprocess scheduler_0 (pid=1809) crashed with exit code -9. Triggering SIGQUIT for cleanup...
[2026-11-28 19:32:12] SIGQUIT received. signum=None, frame=None. It usually means one child failed.
"""
    assert ends_itself(log)
    assert root_cause(log).startswith("Subprocess scheduler_0 (pid=1809) crashed with exit code -9.")


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
