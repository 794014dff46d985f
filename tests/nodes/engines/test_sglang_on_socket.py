"""SGLang's launcher on a Unix socket, with stand-ins for uvicorn and sglang: neither is installed for the tests."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from slurminfer.nodes.engines.sglang import _LAUNCHER

pytestmark = pytest.mark.process

UVICORN = """
class Config:
    def __init__(self, app, host="127.0.0.1", port=8000, uds=None, **options):
        self.port, self.uds = port, uds
"""
# As in sglang.launch_server: the module spawns processes, which import it again under another name.
LAUNCH_SERVER = """
import multiprocessing, sys
import uvicorn

def child(queue):
    queue.put(__name__)

if __name__ == "__main__":
    port = int(sys.argv[sys.argv.index("--port") + 1])
    served, other = uvicorn.Config("app", host="h", port=port), uvicorn.Config("app", port=port + 1)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=[queue])
    process.start()
    name = queue.get(timeout=30)
    process.join()
    print(served.uds, other.uds, name, sys.argv[1:], sep="|")
"""


def test_its_server_and_no_other_gets_the_socket_and_its_processes_still_spawn(tmp_path):
    (tmp_path / "uvicorn.py").write_text(UVICORN)
    (tmp_path / "sglang").mkdir()
    (tmp_path / "sglang" / "__init__.py").touch()
    (tmp_path / "sglang" / "launch_server.py").write_text(LAUNCH_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine.sock"
        argv = [sys.executable, str(_LAUNCHER), str(path), "--config", "key.yaml", "--port", "4000", "--tp-size", "2"]
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert stat.S_ISSOCK(path.stat().st_mode) and stat.S_IMODE(path.stat().st_mode) == 0o600
    words = ["--config", "key.yaml", "--port", "4000", "--tp-size", "2"]
    assert done.stdout.strip() == f"{path}|None|__mp_main__|{words}"
