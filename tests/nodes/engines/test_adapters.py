"""What each engine is started with. SGLang's and vLLM's flags are those of their documentation; see the adapters."""

import stat
from pathlib import Path

import pytest
import yaml

from slurminfer.core.keys import new_key
from slurminfer.core.machine import libraries
from slurminfer.core.spec.model import ModelSpec, SpeculativeSpec
from slurminfer.core.spec.pool import PoolSpec
from slurminfer.nodes.engines import sglang
from slurminfer.nodes.engines.launch import EngineLaunch
from slurminfer.nodes.engines.table import ADAPTERS

MODEL = ModelSpec(path="/models/llama", name="llama", dtype="bfloat16", context_length=8192)


def launch(tmp_path: Path, **changes) -> EngineLaunch:
    known = {
        "model": MODEL, "pool": PoolSpec(), "address": "10.0.0.1", "key": "secret",
        "socket": Path("/private/engine.sock"),
        "private": tmp_path, "threads": 8,
    }  # fmt: skip
    return EngineLaunch(**{**known, **changes})


def pairs(argv: list[str]) -> dict[str, str]:
    """Every flag with the word after it."""
    return {word: after for word, after in zip(argv, [*argv[1:], ""], strict=True) if word.startswith("--")}


@pytest.mark.parametrize("engine", ADAPTERS)
def test_no_engine_shows_the_key_in_the_process_list(engine, tmp_path):
    assert not any("secret" in word for word in ADAPTERS[engine].argv(launch(tmp_path)))


@pytest.mark.parametrize("engine", ADAPTERS)
def test_every_engine_runs_with_the_interpreter_of_the_pool(engine, tmp_path):
    pool = PoolSpec(python="/envs/x/bin/python", extra_args=("--own-flag", "7"))
    argv = ADAPTERS[engine].argv(launch(tmp_path, pool=pool))
    assert argv[0] == "/envs/x/bin/python"
    assert argv[-2:] == ["--own-flag", "7"]


def test_native(tmp_path):
    argv = ADAPTERS["native"].argv(launch(tmp_path, pool=PoolSpec(max_running_requests=32)))
    assert argv[1:3] == ["-m", "slurminfer.nodes.native"]
    assert "--max-batch-tokens" not in argv
    assert (
        pairs(ADAPTERS["native"].argv(launch(tmp_path, pool=PoolSpec(gpus_per_node=1))))["--max-batch-tokens"] == "8192"
    )
    assert pairs(argv) == {
        "--model": "/models/llama", "--served-model-name": "llama", "--uds": "/private/engine.sock",
        "--dtype": "bfloat16", "--context-length": "8192", "--max-running-requests": "32", "--threads": "8",
        "--kv-cache-dtype": "auto",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pool", "node_rank"),
    [
        (PoolSpec(nodes=2, tensor_parallel=4, sequence_parallel=3, pipeline_parallel=2, cpus_per_task=12), 1),
        (PoolSpec(nodes=1, tensor_parallel=4, sequence_parallel=3, pipeline_parallel=2, cpus_per_task=24), 0),
    ],
)
def test_native_with_several_ranks_is_told_where_they_meet_on_one_node_too(tmp_path, pool, node_rank):
    plain = pairs(ADAPTERS["native"].argv(launch(tmp_path)))
    given = ADAPTERS["native"].argv(launch(tmp_path, pool=pool, node_rank=node_rank, rendezvous="10.0.0.1:5000"))
    assert pairs(given) == plain | {
        "--tensor-parallel": "4", "--sequence-parallel": "3", "--pipeline-parallel": "2", "--nodes": str(pool.nodes),
        "--node-rank": str(node_rank), "--rendezvous": "10.0.0.1:5000",
    }  # fmt: skip


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_other_engines_meet_on_one_node_by_themselves(engine, tmp_path):
    pool = PoolSpec(engine=engine, gpus_per_node=2, tensor_parallel=2)
    argv = ADAPTERS[engine].argv(launch(tmp_path, pool=pool, rendezvous="10.0.0.1:5000"))
    assert not any("10.0.0.1:5000" in word or "nnodes" in word for word in argv)


@pytest.mark.parametrize(("engine", "dtype"), [("native", "int4"), ("sglang", "fp8_e4m3"), ("vllm", "fp8_e5m2")])
def test_every_engine_is_told_the_dtype_of_its_kv_cache(engine, dtype, tmp_path):
    model = ModelSpec(path="/models/llama", kv_cache_dtype=dtype)
    assert pairs(ADAPTERS[engine].argv(launch(tmp_path, model=model)))["--kv-cache-dtype"] == dtype


NGRAM = SpeculativeSpec(draft_tokens=5)
DRAFT = SpeculativeSpec(method="draft", draft_model="/models/small", draft_tokens=4)
EAGLE3 = SpeculativeSpec(method="eagle3", draft_model="/models/head", draft_tokens=3)


@pytest.mark.parametrize(
    ("engine", "speculative", "expected"),
    [
        ("native", NGRAM, {"--speculative": "ngram", "--draft-tokens": "5"}),
        ("native", DRAFT, {"--speculative": "draft", "--draft-model": "/models/small", "--draft-tokens": "4"}),
        ("sglang", NGRAM, {"--speculative-algorithm": "NGRAM", "--speculative-num-draft-tokens": "6"}),
        (
            "sglang",
            DRAFT,
            {
                "--speculative-algorithm": "STANDALONE", "--speculative-draft-model-path": "/models/small",
                "--speculative-num-steps": "4", "--speculative-eagle-topk": "1", "--speculative-num-draft-tokens": "5",
            },
        ),
        (
            "sglang",
            EAGLE3,
            {
                "--speculative-algorithm": "EAGLE3", "--speculative-draft-model-path": "/models/head",
                "--speculative-num-steps": "3", "--speculative-eagle-topk": "1", "--speculative-num-draft-tokens": "4",
            },
        ),
        (
            "vllm",
            EAGLE3,
            {
                "--speculative-config": '{"method": "eagle3", "model": "/models/head", "num_speculative_tokens": 3}'
            },
        ),
        (
            "vllm",
            NGRAM,
            {
                "--speculative-config": '{"method": "ngram", "prompt_lookup_min": 2, "prompt_lookup_max": 4, '
                '"num_speculative_tokens": 5}'
            },
        ),
        (
            "vllm",
            DRAFT,
            {
                "--speculative-config": '{"method": "draft_model", "model": "/models/small", '
                '"num_speculative_tokens": 4}'
            },
        ),
    ],
)  # fmt: skip
def test_every_engine_is_told_how_to_guess(engine, speculative, expected, tmp_path):
    plain = pairs(ADAPTERS[engine].argv(launch(tmp_path)))
    given = pairs(ADAPTERS[engine].argv(launch(tmp_path, speculative=speculative)))
    plain.pop("--port", None)  # SGLang's is another one at each launch
    given.pop("--port", None)
    assert given == plain | expected


def test_native_is_told_what_the_model_must_be(tmp_path):
    model = ModelSpec(path="/models/llama", quantization="gguf")
    assert pairs(ADAPTERS["native"].argv(launch(tmp_path, model=model)))["--quantization"] == "gguf"


def test_native_leaves_out_what_the_spec_leaves_open(tmp_path):
    argv = ADAPTERS["native"].argv(launch(tmp_path, model=ModelSpec(path="/models/llama")))
    assert "--context-length" not in argv
    assert "--max-running-requests" not in argv
    assert "None" not in argv


def test_sglang_on_one_node(tmp_path):
    pool = PoolSpec(engine="sglang", gpus_per_node=4, tensor_parallel=4, max_running_requests=64)
    argv = ADAPTERS["sglang"].argv(launch(tmp_path, pool=pool))
    given = pairs(argv)
    assert argv[1:3] == [str(sglang._LAUNCHER), "/private/engine.sock"]
    assert "--skip-server-warmup" in given and "--host" not in given
    assert given["--model-path"] == "/models/llama"
    assert given["--tp-size"] == "4"
    assert given["--max-running-requests"] == "64"
    assert "--enable-metrics" in given
    assert "--nnodes" not in given
    assert "--device" not in given


def test_sglang_reads_its_key_from_a_file_that_only_the_user_can_read(tmp_path):
    argv = ADAPTERS["sglang"].argv(launch(tmp_path))
    path = Path(pairs(argv)["--config"])
    assert path.read_text(encoding="utf-8") == 'api-key: "secret"\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


AWKWARD = (
    "123456",
    "1e5",
    "0x1f",
    "true",
    "null",
    "2026-11-28",
    "~",
    "*a",
    "a: b",
    "#a",
    "'",
    '"',
    "\\x",
    "{a}",
    "@a",
    "_",
)


@pytest.mark.parametrize("key", [None, *AWKWARD])
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_key_reaches_every_engine_as_it_is(tmp_path, name, key):
    key = key or new_key()
    adapter, there = ADAPTERS[name], launch(tmp_path, key=key)
    argv = adapter.argv(there)
    assert name == "sglang" or key in adapter.env(there).values()
    if name == "sglang":
        assert yaml.safe_load(Path(pairs(argv)["--config"]).read_text(encoding="utf-8")) == {"api-key": key}


def test_sglang_without_gpus_runs_its_cpu_engine(tmp_path):
    adapter = ADAPTERS["sglang"]
    assert pairs(adapter.argv(launch(tmp_path)))["--device"] == "cpu"
    assert adapter.env(launch(tmp_path)) == {"SGLANG_USE_CPU_ENGINE": "1"}


@pytest.mark.parametrize("rank", [0, 1])
def test_sglang_over_two_nodes(tmp_path, rank):
    pool = PoolSpec(engine="sglang", nodes=2, gpus_per_node=8, tensor_parallel=8, pipeline_parallel=2)
    there = launch(tmp_path, pool=pool, node_rank=rank, rendezvous="10.0.0.1:5000")
    given = pairs(ADAPTERS["sglang"].argv(there))
    assert ADAPTERS["sglang"].env(there) == {"SGLANG_HOST_IP": "10.0.0.1"}
    assert given["--nnodes"] == "2"
    assert given["--node-rank"] == str(rank)
    assert given["--dist-init-addr"] == "10.0.0.1:5000"
    assert given["--pp-size"] == "2"


def test_vllm_on_cpus_gets_the_allocator_and_the_openmp_that_are_there(tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libiomp5.so").touch()
    monkeypatch.setenv("LD_PRELOAD", "mine.so")
    monkeypatch.setattr(libraries, "find_library", {"tcmalloc_minimal": "libtcmalloc_minimal.so.4"}.get)
    python = str(tmp_path / "bin" / "python")
    vllm = ADAPTERS["vllm"]
    env = vllm.env(launch(tmp_path, pool=PoolSpec(engine="vllm", python=python)))
    assert env["LD_PRELOAD"] == f"mine.so:libtcmalloc_minimal.so.4:{tmp_path}/lib/libiomp5.so"
    assert "LD_PRELOAD" not in vllm.env(launch(tmp_path, pool=PoolSpec(engine="vllm", python=python, gpus_per_node=1)))


def test_vllm_on_one_node(tmp_path, monkeypatch):
    monkeypatch.setattr(libraries, "find_library", lambda _: None)
    pool = PoolSpec(engine="vllm", gpus_per_node=2, tensor_parallel=2, max_running_requests=64)
    adapter = ADAPTERS["vllm"]
    argv = adapter.argv(launch(tmp_path, pool=pool))
    given = pairs(argv)
    assert argv[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert given["--uds"] == "/private/engine.sock" and "--port" not in given
    assert given["--model"] == "/models/llama"
    assert given["--tensor-parallel-size"] == "2"
    assert given["--max-model-len"] == "8192"
    assert given["--max-num-seqs"] == "64"
    assert adapter.env(launch(tmp_path)) == {"VLLM_API_KEY": "secret", "VLLM_HOST_IP": "10.0.0.1"}


@pytest.mark.parametrize(("rank", "headless"), [(0, False), (1, True)])
def test_vllm_over_two_nodes(tmp_path, rank, headless):
    pool = PoolSpec(engine="vllm", nodes=2, gpus_per_node=8, tensor_parallel=16)
    argv = ADAPTERS["vllm"].argv(launch(tmp_path, pool=pool, node_rank=rank, rendezvous="10.0.0.1:5000"))
    given = pairs(argv)
    assert argv[1:5] == ["-m", "vllm.entrypoints.cli.main", "serve", "/models/llama"]
    assert given["--nnodes"] == "2"
    assert given["--node-rank"] == str(rank)
    assert given["--master-addr"] == "10.0.0.1"
    assert given["--master-port"] == "5000"
    assert ("--headless" in argv) == headless


TWO_RANKS = {"rank_cpus": ((0, 1, 2, 3), (64, 65, 66, 68))}


def test_ranks_on_cpus_are_bound_to_their_shares(tmp_path):
    two = launch(tmp_path, pool=PoolSpec(tensor_parallel=2, cpus_per_task=8), **TWO_RANKS)
    assert ADAPTERS["sglang"].env(two)["SGLANG_CPU_OMP_THREADS_BIND"] == "0-3|64-66,68"
    assert ADAPTERS["vllm"].env(two)["VLLM_CPU_OMP_THREADS_BIND"] == "0-3|64-66,68"


def test_ranks_of_several_nodes_have_the_same_shares_on_each(tmp_path):
    pool = PoolSpec(tensor_parallel=4, nodes=2, cpus_per_task=8)
    two = launch(tmp_path, pool=pool, rendezvous="10.0.0.1:5000", **TWO_RANKS)
    assert ADAPTERS["sglang"].env(two)["SGLANG_CPU_OMP_THREADS_BIND"] == "0-3|64-66,68|0-3|64-66,68"


def test_one_rank_is_bound_where_the_engine_would_not_look_at_the_job(tmp_path):
    one = launch(tmp_path, rank_cpus=((8, 9),))
    assert ADAPTERS["sglang"].env(one)["SGLANG_CPU_OMP_THREADS_BIND"] == "8-9"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in ADAPTERS["vllm"].env(one)


def test_stages_on_one_node_are_not_bound_by_sglangs_list_of_tensor_ranks(tmp_path):
    pool = PoolSpec(tensor_parallel=1, pipeline_parallel=2, cpus_per_task=8)
    staged = launch(tmp_path, pool=pool, **TWO_RANKS)
    assert "SGLANG_CPU_OMP_THREADS_BIND" not in ADAPTERS["sglang"].env(staged)
    assert ADAPTERS["vllm"].env(staged)["VLLM_CPU_OMP_THREADS_BIND"] == "0-3|64-66,68"


def test_what_the_user_has_bound_stays(tmp_path, monkeypatch):
    pool = PoolSpec(tensor_parallel=2, cpus_per_task=8, env={"VLLM_CPU_OMP_THREADS_BIND": "nobind"})
    two = launch(tmp_path, pool=pool, **TWO_RANKS)
    assert "VLLM_CPU_OMP_THREADS_BIND" not in ADAPTERS["vllm"].env(two)
    monkeypatch.setenv("SGLANG_CPU_OMP_THREADS_BIND", "0|1")
    assert "SGLANG_CPU_OMP_THREADS_BIND" not in ADAPTERS["sglang"].env(two)


def test_the_native_engine_is_told_where_ranks_on_gpus_run_and_divides_cpus_itself(tmp_path):
    argv = ADAPTERS["native"].argv
    on_gpus = launch(tmp_path, pool=PoolSpec(tensor_parallel=2, gpus_per_node=2), **TWO_RANKS)
    assert pairs(argv(on_gpus))["--rank-cpus"] == "0-3|64-66,68"
    assert "--rank-cpus" not in argv(launch(tmp_path, pool=PoolSpec(tensor_parallel=2, cpus_per_task=8), **TWO_RANKS))
