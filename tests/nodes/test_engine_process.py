"""The engine as a child process."""

import signal
import sys
import time

from slurminfer.nodes.engine_process import EngineProcess


def test_the_walltime_s_signal_is_not_the_engine_s(tmp_path):
    engine = EngineProcess(
        [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"], {}, tmp_path / "log"
    )
    try:
        while "up" not in (tmp_path / "log").read_text():
            time.sleep(0.02)
        engine._process.send_signal(signal.SIGUSR2)
        time.sleep(0.3)
        assert engine.exit_code() is None
    finally:
        engine.stop()
    assert engine.exit_code() == -signal.SIGTERM
