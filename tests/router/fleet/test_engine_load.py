"""What is read of the three engines' metrics."""

import pytest

from slurminfer.nodes.native.api.metrics import Metrics
from slurminfer.nodes.native.engine.stats import EngineStats
from slurminfer.router.fleet.engine_load import EngineLoad, parse_load, with_rates

SGLANG = """\
# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="0"} 7.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{model_name="m"} 2.0
# TYPE sglang:token_usage gauge
sglang:token_usage{model_name="m"} 0.28
# TYPE sglang:cache_hit_rate gauge
sglang:cache_hit_rate{model_name="m"} 0.5
# TYPE sglang:gen_throughput gauge
sglang:gen_throughput{model_name="m"} 86.5
# TYPE sglang:max_total_num_tokens gauge
sglang:max_total_num_tokens{model_name="m"} 454432.0
# TYPE sglang:time_to_first_token_seconds histogram
sglang:time_to_first_token_seconds_bucket{le="0.1",model_name="m"} 3.0
"""
VLLM = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.2
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.4
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1000.0
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 250.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 5000.0
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="1000"} 1.0
"""


def native(**stats):
    metrics = Metrics()
    metrics.stats = EngineStats(**stats)
    return metrics.render().decode()


def test_native():
    text = native(running_requests=3, waiting_requests=1, kv_blocks_used=50, kv_blocks_total=200, kv_block_tokens=16)
    load, _ = parse_load("native", text)
    assert (load.running, load.waiting, load.cache_tokens, load.cache_usage) == (3, 1, 3200, 0.25)


def test_sglang():
    load, _ = parse_load("sglang", SGLANG)
    assert (load.running, load.waiting, load.cache_tokens, load.cache_usage) == (7, 2, 454432, 0.28)
    assert (load.hit_rate, load.tokens_per_s) == (0.5, 86.5)


def test_vllm_adds_up_its_processes():
    load, _ = parse_load("vllm", VLLM)
    assert (load.running, load.waiting, load.cache_tokens) == (7, 0, 16_000)
    assert load.cache_usage == pytest.approx(0.3)


def test_rates_are_those_of_the_time_between_two_readings():
    first = native(generation_tokens=1000, prompt_tokens=100, prefix_cache_hit_tokens=0)
    second = native(generation_tokens=1500, prompt_tokens=300, prefix_cache_hit_tokens=150)
    _, before = parse_load("native", first)
    load, now = parse_load("native", second)
    load = with_rates(load, now, before, 5.0)
    assert (load.tokens_per_s, load.hit_rate) == (100.0, 0.75)


def test_a_restarted_engine_and_a_first_reading_have_no_rates():
    load, before = parse_load("native", native(generation_tokens=1000, prompt_tokens=100))
    assert with_rates(load, before, {}, 5.0).tokens_per_s is None
    load, now = parse_load("native", native(generation_tokens=10, prompt_tokens=1))
    assert with_rates(load, now, before, 5.0).tokens_per_s is None


@pytest.mark.parametrize("engine", ["native", "sglang", "vllm", "unknown"])
def test_nothing_is_known_of_an_engine_that_says_nothing(engine):
    assert parse_load(engine, "")[0] == parse_load(engine, "<html>")[0] == EngineLoad()


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-3.0", "1e300"])
def test_senseless_numbers_are_none(value):
    text = f"sglang:num_running_reqs {value}\nsglang:max_total_num_tokens {value}\n"
    load, _ = parse_load("sglang", text)
    assert load.running is None and load.cache_tokens is None


def test_a_torn_line_is_refused():
    with pytest.raises(ValueError):
        parse_load("sglang", 'sglang:num_running_reqs{model_name="m')
