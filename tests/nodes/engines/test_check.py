"""What engines refuse of a spec, and in which words."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.core.errors import SpecError
from slurminfer.core.spec.deployment import DeploymentSpec
from slurminfer.core.spec.files import parse_spec
from slurminfer.core.spec.model import ModelSpec
from slurminfer.core.workers.layout import Layout, check_layout
from slurminfer.nodes.engines.check import check_engines
from slurminfer.nodes.engines.table import ADAPTERS


def checked(engine: str, pool: str = "", model: str = "", speculative: str | None = None) -> DeploymentSpec:
    guesses = "" if speculative is None else f"[speculative]\n{speculative}\n"
    text = f"name = 'x'\n[model]\npath = 'demo'\n{model}\n{guesses}[[pool]]\nengine = '{engine}'\n{pool}\n"
    spec = parse_spec(text)
    check_engines(spec)
    return spec


def model_of(spec: DeploymentSpec) -> ModelSpec:
    return spec.model_of(spec.pool[0])


def test_an_unknown_engine_is_named_with_those_there_are():
    with pytest.raises(SpecError) as caught:
        checked("ollama")
    assert str(caught.value) == "spec: pool[0].engine = 'ollama': expected one of: native, sglang, vllm"


@pytest.mark.parametrize("engine", ADAPTERS)
def test_every_engine_takes_what_a_spec_has_by_default(engine):
    checked(engine)
    assert "auto" in ADAPTERS[engine].kv_cache_dtypes


@pytest.mark.parametrize("kind", ["awq", "gptq", "fp8", "compressed-tensors", "gguf"])
def test_the_native_engine_may_be_told_what_the_model_must_be(kind):
    assert model_of(checked("native", model=f"quantization = '{kind}'")).quantization == kind


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_other_engines_have_words_of_their_own_for_it(engine):
    assert model_of(checked(engine, model="quantization = 'awq_marlin'")).quantization == "awq_marlin"


@pytest.mark.parametrize(
    ("kind", "engine", "said"),
    [
        ("awq_marlin", "native", "engine native reads awq, gptq, fp8, compressed-tensors, gguf"),
        ("gguf", "sglang", "engine sglang cannot read the blocks of a GGUF file; leave it out"),
        ("gguf", "vllm", "engine vllm cannot read"),
    ],
)
def test_quantization_is_refused_where_the_engine_cannot(kind, engine, said):
    with pytest.raises(SpecError, match=rf"model\.quantization = '{kind}': {said}"):
        checked(engine, model=f"quantization = '{kind}'")


@pytest.mark.parametrize(
    ("dtype", "engine"), [("int8", "native"), ("int4", "native"), ("fp8_e5m2", "sglang"), ("fp8", "vllm")]
)
def test_the_kv_cache_has_a_dtype_of_the_engine(dtype, engine):
    assert model_of(checked(engine, model=f"kv_cache_dtype = '{dtype}'")).kv_cache_dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "engine", "valid"),
    [("fp8", "native", "int8, int4"), ("fp8", "sglang", "fp8_e5m2, fp8_e4m3"), ("int4", "vllm", "fp8_e4m3")],
)
def test_a_kv_cache_dtype_of_another_engine_is_refused_with_the_valid_ones(dtype, engine, valid):
    said = rf"kv_cache_dtype = '{dtype}': expected one of: auto.* {valid}.*engine {engine} of pool\[0\]"
    with pytest.raises(SpecError, match=said) as caught:
        checked(engine, model=f"kv_cache_dtype = '{dtype}'")
    assert caught.value.key == "model.kv_cache_dtype"


def test_a_pools_own_model_is_named_in_errors():
    with pytest.raises(SpecError, match=r"pool\[0\]\.model\.kv_cache_dtype = 'fp8'"):
        checked("native", "[pool.model]\npath = 'm'\nkv_cache_dtype = 'fp8'")


@pytest.mark.parametrize(
    ("lines", "key", "said"),
    [
        ("method = 'eagle'\ndraft_model = 'org/head'", "method", r"expected ngram or draft \(engine native of pool\[0"),
        ("draft_tokens = 16", "draft_tokens", "expected at most 15"),
    ],
)
def test_the_native_engine_does_not_guess_in_every_way(lines, key, said):
    with pytest.raises(SpecError, match=said) as caught:
        checked("native", speculative=lines)
    assert caught.value.key == f"speculative.{key}"


@pytest.mark.parametrize("lines", ["draft_tokens = 16", "method = 'eagle3'\ndraft_model = 'org/head'"])
def test_other_engines_guess_more_and_with_heads(lines):
    assert checked("sglang", speculative=lines).speculative is not None


@pytest.mark.parametrize(
    ("engine", "pool", "key", "said"),
    [
        ("native", "nodes = 2", "nodes", "nearest: tensor_parallel = 2, or pipeline_parallel = 2, or nodes = 1"),
        ("sglang", "gpus_per_node = 4", "tensor_parallel", "nodes x gpus_per_node = 4"),
        ("sglang", "gpus_per_node = 4", "tensor_parallel", "nearest: tensor_parallel = 4, or pipeline_parallel = 4"),
        ("vllm", "sequence_parallel = 2\ngpus_per_node = 2", "sequence_parallel", "only engine native has it; flags"),
        ("sglang", "sequence_parallel = 2", "sequence_parallel", "extra_args; nearest: sequence_parallel = 1"),
        (
            "sglang", "tensor_parallel = 3\npipeline_parallel = 2\nnodes = 3\ngpus_per_node = 2", "pipeline_parallel",
            "SGLang needs whole stages on each of 3 nodes, or whole nodes for each stage; nearest: ",
        ),
    ],
)  # fmt: skip
def test_layouts_that_an_engine_refuses(engine, pool, key, said):
    with pytest.raises(SpecError) as caught:
        checked(engine, pool)
    assert caught.value.key == f"pool[0].{key}"
    assert said in str(caught.value)


@pytest.mark.parametrize(("tp", "pp", "nodes", "gpus"), [(8, 2, 2, 8), (16, 2, 4, 8), (2, 4, 2, 4)])
def test_layouts_that_sglang_takes(tp, pp, nodes, gpus):
    lines = f"tensor_parallel = {tp}\npipeline_parallel = {pp}\nnodes = {nodes}\ngpus_per_node = {gpus}"
    assert checked("sglang", lines).pool[0].layout.ranks == nodes * gpus


@pytest.mark.parametrize("engine", ADAPTERS)
def test_one_line_of_a_spec_is_enough_for_every_engine(engine):
    spec = checked(engine, "nodes = 4\ntensor_parallel = 16\npipeline_parallel = 2\ngpus_per_node = 8")
    assert spec.pool[0].layout.ranks_per_node == 8


counts = st.integers(1, 24)


@given(st.sampled_from(list(ADAPTERS)), counts, counts, counts, st.integers(0, 8), counts, counts)
def test_what_is_suggested_instead_of_a_layout_works_with_the_engine(engine, tp, pp, nodes, gpus, cpus, sp):
    rule = ADAPTERS[engine].layout_fault
    asked = Layout(
        tensor_parallel=tp, sequence_parallel=sp, pipeline_parallel=pp, gpus_per_node=gpus, cpus_per_task=cpus,
        nodes=nodes,
    )  # fmt: skip
    try:
        check_layout("pool[0]", asked, rule)
    except SpecError as error:
        for suggestion in error.expected.partition("nearest: ")[2].split(", or "):
            changes: dict[str, Any] = {key: int(value) for key, value in re.findall(r"(\w+) = (\d+)", suggestion)}
            check_layout("pool[0]", replace(asked, **changes), rule)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("native", '["--host", "0.0.0.0"]'), ("native", '["--port=8000"]'), ("vllm", '["--api-key", "x"]'),
        ("vllm", '["--uds", "/tmp/s"]'), ("sglang", '["--port", "30000"]'), ("sglang", '["--enable-http2"]'),
        ("sglang", '["--tokenizer-worker-n", "2"]'), ("sglang", '["--grpc-port=1"]'),
    ],
)  # fmt: skip
def test_no_engine_is_told_to_listen_elsewhere_or_to_take_another_key(engine, words):
    with pytest.raises(
        SpecError, match=r"pool\[0\].extra_args = '--.*is not to be set: the agent starts the engine on"
    ):
        checked(engine, f"extra_args = {words}")
