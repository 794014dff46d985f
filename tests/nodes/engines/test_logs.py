"""The root cause out of logs as engines write them."""

from slurminfer.core.logs.text import ends_itself, root_cause
from slurminfer.nodes.engines.table import ADAPTERS

SGLANG, VLLM = ADAPTERS["sglang"].log_format, ADAPTERS["vllm"].log_format


def test_the_prefix_of_vllms_logger_hides_no_exception_and_its_level_tells_what_is_none():
    log = """
(APIServer pid=6) WARNING 11-25 18:36:04 [system_utils.py:255] failed to increase with error current limit exceeds
(EngineCore pid=64) ERROR 11-25 18:36:26 [core.py:1512] EngineCore encountered a fatal error.
(EngineCore pid=64) ERROR 11-25 18:36:26 [core.py:1512] KeyError: 'cmpl-bf'
"""
    assert root_cause(log, VLLM) == "KeyError: 'cmpl-bf'"
    assert root_cause("INFO 11-25 18:36:04 [a.py:2] no error\nINFO 11-25 18:36:05 [a.py:3] bye", VLLM).endswith("bye")


def test_in_sglangs_log_a_crash_counts_not_what_it_has_ignored_before():
    log = """
[2026-11-28 19:30:38] Ignore import error when loading sglang.srt.models.inkling: No module named 'helion'
[2026-11-28 19:32:12] Subprocess scheduler_0 (pid=1809) crashed with exit code -9. Triggering SIGQUIT for cleanup...
[2026-11-28 19:32:12] SIGQUIT received. signum=None, frame=None. It usually means one child failed.
"""
    assert ends_itself(log, SGLANG)
    assert root_cause(log, SGLANG).startswith("Subprocess scheduler_0 (pid=1809) crashed with exit code -9.")
