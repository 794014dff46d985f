"""The deployment spec: what is read, what is refused, and in which words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.core.errors import SpecError
from slurminfer.core.spec import DeploymentSpec, dump_spec, load_spec, parse_spec, parse_time

MINIMAL = """
name = "demo"
[model]
path = "demo"
[[pool]]
name = "cpu"
"""


def spec(pool: str = "", after: str = "") -> DeploymentSpec:
    return parse_spec(f"{MINIMAL}{pool}\n{after}")


def refused(pool: str = "", after: str = "") -> SpecError:
    with pytest.raises(SpecError) as caught:
        spec(pool, after)
    return caught.value


def test_a_minimal_spec_has_defaults_for_the_rest():
    read = spec("workers = 2")
    assert [pool.name for pool in read.slots()] == ["cpu", "cpu"]
    assert read.router.port == 30000
    assert read.pool[0].time_s == 3600


def test_dumping_and_parsing_gives_the_same_spec():
    read = spec('workers = 2\nslurm = {qos = "long", exclusive = true}\nextra_args = ["--a b"]', "[router]\nport = 0")
    assert parse_spec(dump_spec(read)) == read


def test_an_unknown_key_is_named_with_its_value_and_the_valid_keys():
    message = str(refused("wrokers = 3"))
    assert "pool[0].wrokers = 3" in message
    assert "workers" in message
    assert "cpus_per_task" in message


def test_an_unknown_table_is_named_with_the_valid_ones():
    message = str(refused(after="[routr]\nport = 1"))
    assert "routr" in message
    assert "router" in message.partition("valid keys")[2]


@pytest.mark.parametrize(
    ("pool", "key", "said"),
    [
        ('workers = "two"', "pool[0].workers", "expected `int`, got `str`"),
        ("workers = 0", "pool[0].workers", ">= 1"),
        ("workers = 99999999999999999999999", "pool[0].workers", "<= 10000"),
        ('time = "soon"', "pool[0].time", "Slurm time"),
        ('time = "٣٠"', "pool[0].time", "Slurm time"),
        ('mem = "lots"', "pool[0].mem", "64G"),
        ('mem = "٣G"', "pool[0].mem", "64G"),
        ('env = {"A=B" = "1"}', "pool[0].env.A=B", "variable's name"),
        ('env = {"" = "1"}', "pool[0].env.", "variable's name"),
        ('env = {A = "x\\u0000"}', "pool[0].env.A", "control"),
        ('setup = ["ls", "\\u0000"]', "pool[0].setup[1]", "control"),
        ('"a\\u0000b" = 1', "pool[0]", "control"),
        ('"a\\nb" = 1', "pool[0]", "control"),
        ('partition = "cpu\\n#SBATCH --uid=0"', "pool[0].partition", "one line"),
        ('account = "a\\rb"', "pool[0].account", "one line"),
        ('mem = "4G\\n"', "pool[0].mem", "one line"),
        ('slurm = {comment = "x\\ny"}', "pool[0].slurm.comment", "one line"),
        ('slurm = {"qos=a --uid" = "0"}', "pool[0].slurm.qos=a --uid", "long name of an sbatch option"),
        ('env = {A = "\\u001b[2J"}', "pool[0].env.A", "control"),
        ("nodes = 9223372036854775807", "pool[0].nodes", "<= 10000"),
        ("cpus_per_task = 9223372036854775807", "pool[0].cpus_per_task", "<= 65536"),
        ("gpus_per_node = 65", "pool[0].gpus_per_node", "<= 64"),
        ("tensor_parallel = 100000", "pool[0].tensor_parallel", "<= 65536"),
        ("drain_seconds = 9223372036854775807", "pool[0].drain_seconds", "<= 31536000"),
        ("max_running_requests = 9223372036854775807", "pool[0].max_running_requests", "<= 1000000"),
        ('time = "999999999-00"', "pool[0].time", "at most a year"),
        ("drain_seconds = 3600", "pool[0].drain_seconds", "less than time"),
        ("slurm = {cpus-per-task = 3}", "pool[0].slurm.cpus-per-task", "say it with cpus_per_task"),
        ('slurm = {output = "x"}', "pool[0].slurm.output", "logs/"),
    ],
)
def test_an_invalid_value_is_refused_by_key_value_and_expectation(pool, key, said):
    error = refused(pool)
    assert error.key == key
    assert said in str(error)


def test_shell_code_variables_and_words_of_a_command_line_may_have_several_lines():
    read = spec("setup = ['if true\\nthen ls\\nfi']\nenv = {A = 'x'}\nextra_args = ['a']".replace("'", '"'))
    assert read.pool[0].setup == ("if true\nthen ls\nfi",)


def test_all_pools_together_have_a_bound():
    error = refused("workers = 6000", '[[pool]]\nname = "b"\nworkers = 6000')
    assert "12000 workers in all" in str(error) and "at most 10000" in str(error)


def test_a_missing_key_says_so():
    with pytest.raises(SpecError, match=r"model\.path: missing"):
        parse_spec('name = "a"\n[model]\n[[pool]]')


def test_two_pools_of_one_name_are_refused():
    assert refused(after='[[pool]]\nname = "cpu"').key == "pool[1].name"


def test_a_name_that_cannot_be_a_directory_is_refused():
    with pytest.raises(SpecError, match=r"name = '\.\./x'"):
        parse_spec(MINIMAL.replace('name = "demo"', 'name = "../x"', 1))


def test_text_that_is_not_toml_says_where():
    with pytest.raises(SpecError, match="line 2"):
        parse_spec("x = 1\nname = = 2")


@pytest.mark.parametrize("value", ["[" * 5000 + "]" * 5000, "9" * 5000], ids=["nested", "digits"])
def test_toml_beyond_what_its_parser_can_read_is_a_spec_error(value):
    with pytest.raises(SpecError, match="spec: file: "):
        parse_spec(f"name = {value}")


def test_a_spec_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"nothing\.toml"):
        load_spec(tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 1800), ("30:15", 1815), ("02:30:15", 9015), ("1-0", 86400), ("1-02:30", 95400), ("1-02:30:15", 95415)],
)
def test_slurm_times(text, seconds):
    assert parse_time(text) == seconds


@given(st.text(max_size=12))
def test_no_text_makes_the_time_parser_fail_in_another_way(text):
    try:
        assert parse_time(text) >= 0
    except ValueError as error:
        assert "not a Slurm time" in str(error)


@given(st.text(max_size=200))
def test_no_text_makes_the_spec_parser_fail_in_another_way(text):
    with pytest.raises(SpecError):
        parse_spec(text)


def speculative(lines: str) -> DeploymentSpec:
    return parse_spec(MINIMAL.replace("[[pool]]", f"[speculative]\n{lines}\n[[pool]]", 1))


def test_guesses_are_looked_up_unless_a_draft_is_named():
    assert parse_spec(MINIMAL).speculative is None
    spec = speculative("")
    assert spec.speculative is not None and spec.speculative.method == "ngram"
    assert parse_spec(dump_spec(spec)) == spec
    spec = speculative('method = "draft"\ndraft_model = "org/small"\ndraft_tokens = 4')
    assert spec.speculative is not None and spec.speculative.draft_model == "org/small"
    assert parse_spec(dump_spec(spec)) == spec


@pytest.mark.parametrize(
    ("lines", "key", "said"),
    [
        ('method = "medusa"', "speculative.method", "ngram"),
        ('method = "eagle3"', "speculative.draft_model", "expected the head that method 'eagle3'"),
        ('method = "draft"', "speculative.draft_model", "expected the smaller model"),
        ('draft_model = "org/small"', "speculative.draft_model", "expected no model with method 'ngram'"),
        ("draft_tokens = 0", "speculative.draft_tokens", "1"),
        ("tokens = 3", "speculative.tokens", "draft_tokens"),
    ],
)
def test_guesses_that_cannot_be_are_refused(lines, key, said):
    with pytest.raises(SpecError, match=said) as caught:
        speculative(lines)
    assert caught.value.key == key


def test_a_pool_may_have_a_model_of_its_own():
    own = "name = 'x'\n[[pool]]\nname = 'a'\n[pool.model]\npath = 'org/one'\n"
    spec = parse_spec(own + "[[pool]]\nname = 'b'\n[pool.model]\npath = 'org/two'\nname = 'second'\n")
    assert [spec.model_of(pool).served_name for pool in spec.pool] == ["one", "second"]
    assert parse_spec(dump_spec(spec)) == spec
    spec = parse_spec("name = 'x'\n[model]\npath = 'org/three'\n" + own.partition("\n")[2])
    assert spec.model_of(spec.pool[0]).served_name == "one"


def test_a_pool_without_any_model_is_refused_by_name():
    with pytest.raises(SpecError, match=r"model: missing; expected \[model\], or pool\[0\].model"):
        parse_spec("name = 'x'\n[[pool]]\n")


@pytest.mark.parametrize("worker", ["a-0", "a-17", "a-b-3"])
def test_a_worker_is_of_the_pool_that_its_id_begins_with(worker):
    spec = parse_spec("name = 'x'\n[model]\npath = 'm'\n[[pool]]\nname = 'a'\n[[pool]]\nname = 'a-b'\n")
    assert spec.pool_of(worker).name == worker.rpartition("-")[0]


@pytest.mark.parametrize("worker", ["a", "a-", "a-x", "b-0", ""])
def test_other_ids_are_no_workers(worker):
    spec = parse_spec("name = 'x'\n[model]\npath = 'm'\n[[pool]]\nname = 'a'\n")
    with pytest.raises(SpecError, match="expected POOL-SERIAL; pools: a"):
        spec.pool_of(worker)


TWO = """
name = "demo"
[model]
path = "org/large"
[[pool]]
name = "gpu"
{gpu}
[[pool]]
name = "cpu"
{cpu}
"""


def two_pools(router: str, gpu: str = "", cpu: str = "[pool.model]\npath = 'org/small'") -> DeploymentSpec:
    return parse_spec(TWO.format(gpu=gpu, cpu=cpu) + router)


@pytest.mark.parametrize(
    ("router", "key", "said"),
    [
        ("tls = 'files'", "router.tls_certificate", "tls = 'files' needs tls_certificate and tls_key"),
        ("tls = 'files'\ntls_certificate = '/c'", "router.tls_key", "needs tls_certificate and tls_key"),
        ("tls = 'files'\ntls_certificate = ''\ntls_key = '/k'", "router.tls_certificate", "needs"),
        ("tls_certificate = '/c'", "router.tls_certificate", "only with tls = 'files', not with 'off'"),
        ("tls = 'self_signed'\ntls_key = '/k'", "router.tls_key", "not with 'self_signed'"),
        ("python = '/usr/bin/python'", "router.python", "only with backend = 'sglang'"),
        ("[[router.rule]]\npools = ['cpu']", "router.rule[0]", "at least one condition"),
        ("[[router.rule]]\ntenant = 'alice'", "router.rule[0]", "expected pools, serve or both"),
        ("[[router.rule]]\ntenant = 'a b'\nserve = 'small'", "router.rule[0].tenant", "expected letters"),
        ("[[router.rule]]\ntenant = 'a'\npools = ['cpu', 'tpu']", "router.rule[0].pools[1]", "pools: gpu, cpu"),
        ("[[router.rule]]\nmodel = 'gpt-4o'\nserve = 'huge'", "router.rule[0].serve", "a pool serves: large, small"),
        ("[[router.rule]]\nmodel = 'gpt-4o'\npools = ['cpu']", "router.rule[0].model", "one of large, small"),
        ("[[router.rule]]\nmodel = 'large'\npools = ['cpu']", "router.rule[0].pools", "none of them serves"),
        ("[[router.rule]]\nmodel = 'a'\nserve = 'small'\npools = ['gpu']", "router.rule[0].pools", "'small'"),
        (
            "[[router.rule]]\nmin_prompt_tokens = 9\nmax_prompt_tokens = 8\nserve = 'small'",
            "router.rule[0].min_prompt_tokens",
            "at most max_prompt_tokens = 8",
        ),
        ("[[router.rule]]\nmin_prompt_tokens = 0\nserve = 'small'", "router.rule[0].min_prompt_tokens", ">= 1"),
        ("backend = 'rust'", "router.backend", "native, sglang"),
        ("policy = 'least_loaded'", "router.policy", "cache_aware"),
    ],
)
def test_what_the_router_cannot_do_is_refused(router, key, said):
    with pytest.raises(SpecError) as caught:
        two_pools(f"[router]\n{router}")
    assert caught.value.key == key
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "router",
    [
        "tls = 'files'\ntls_certificate = '/c'\ntls_key = '/k'",
        "tls = 'self_signed'",
        "[[router.rule]]\nmodel = 'gpt-4o'\nserve = 'small'\npools = ['cpu']",
        "[[router.rule]]\nmin_prompt_tokens = 8\nmax_prompt_tokens = 8\npools = ['gpu', 'cpu']",
        "[[router.rule]]\ntenant = 'owner'\nserve = 'small'",
        "[[router.rule]]\nmodel = 'large'\npools = ['gpu']",
    ],
)
def test_what_the_router_can_do_is_taken(router):
    read = two_pools(f"[router]\n{router}")
    assert parse_spec(dump_spec(read)) == read


def test_some_pool_of_every_model_gets_requests_first():
    assert two_pools("", cpu="spill_after = 5").pool[1].spill_after == 5
    for gpu, cpu, key in (
        ("spill_after = 5", "spill_after = 5", "pool[0].spill_after"),
        ("", "spill_after = 0\n[pool.model]\npath = 'org/small'", "pool[1].spill_after"),
    ):
        with pytest.raises(SpecError) as caught:
            two_pools("", gpu, cpu)
        assert caught.value.key == key


@pytest.mark.parametrize(
    "key",
    [
        "relays = 2", "overcommit = 2.0", "reserved = 0.0", "retry_budget = 0.5", "hedge_after = 1.0",
        "tls = 'self_signed'", "access_log = true", "pending_connections = 9",
    ],
)  # fmt: skip
def test_keys_that_sglang_router_cannot_obey_are_refused(key):
    caught = refused(after=f"[router]\nbackend = 'sglang'\n{key}")
    assert caught.key == f"router.{key.split()[0]}"
    assert "backend = 'sglang' cannot obey" in str(caught)


def test_sglang_router_has_one_model_no_rules_and_policies_of_its_own():
    sglang = "[router]\nbackend = 'sglang'\n"
    assert spec(after=f"{sglang}python = '/venv/bin/python'\npolicy = 'power_of_two'").router.backend == "sglang"
    assert refused(after=f"{sglang}policy = 'session'").key == "router.policy"
    assert spec(after=f"{sglang}allowed_origins = ['https://a.org']\nqueue = 7").router.queue == 7
    for origins in ("[]", "['*']", "['https://*.org']"):
        assert refused(after=f"{sglang}allowed_origins = {origins}").key == "router.allowed_origins"
    assert refused(after=f"{sglang}[[router.rule]]\nmodel = 'a'\npools = ['cpu']").key == "router.rule"
    for words, key in (({}, "router.backend"), ({"cpu": "spill_after = 1"}, "pool[1].spill_after")):
        with pytest.raises(SpecError) as caught:
            two_pools(sglang, **words)
        assert caught.value.key == key
