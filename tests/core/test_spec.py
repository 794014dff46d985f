"""The deployment spec: what is read, what is refused, and in which words."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.core.errors import SpecError
from slurminfer.core.spec.deployment import DeploymentSpec
from slurminfer.core.spec.files import dump_spec, load_spec, parse_spec
from slurminfer.core.spec.values import parse_time

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
    assert "cpus_per_task" in message
    assert message.endswith("Did you mean workers?")


def test_no_key_is_proposed_for_one_that_resembles_none():
    assert "Did you mean" not in str(refused("zzz = 3"))


def test_an_unknown_table_is_named_with_the_valid_ones():
    message = str(refused(after="[routr]\nport = 1"))
    assert "routr" in message
    assert "router" in message.partition("valid keys")[2]


@pytest.mark.parametrize(
    ("pool", "key", "said"),
    [
        ('workers = "two"', "pool[0].workers", "expected a whole number, without quotes"),
        ('max_running_requests = "two"', "pool[0].max_running_requests", "expected a whole number, without"),
        ("workers = 0", "pool[0].workers", ">= 1"),
        ("workers = 99999999999999999999999", "pool[0].workers", "<= 10000"),
        ('time = "soon"', "pool[0].time", "Slurm time"),
        ('stage_weights = "scratch"', "pool[0].stage_weights", "expected true, or the absolute path of a folder"),
        ('stage_weights = ""', "pool[0].stage_weights", "expected true, or the absolute path of a folder"),
        ("stage_weights = 1", "pool[0].stage_weights", "expected true or false, or text in quotes"),
        ("time = 60", "pool[0].time", "expected text in quotes"),
        ('idle_time = "5m"', "pool[0].idle_time", "expected a number, without quotes"),
        ('backfill = "yes"', "pool[0].backfill", "expected true or false, without quotes"),
        ('setup = "module load x"', "pool[0].setup", "expected a list in [ ]"),
        ('env = {A = "a", B = 1}', "pool[0].env.B", "= 1: expected text in quotes"),
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
        ('time_min = "soon"', "pool[0].time_min", "Slurm time"),
        ('time_min = "02:00:00"', "pool[0].time_min", "at most time = 01:00:00"),
        ('time_min = "00:01:00"', "pool[0].drain_seconds", "less than time_min = 00:01:00"),
        ("slurm = {time_min = 5}", "pool[0].slurm.time_min", "say it with time_min"),
        ("slurm = {cpus-per-task = 3}", "pool[0].slurm.cpus-per-task", "say it with cpus_per_task"),
        ('slurm = {output = "x"}', "pool[0].slurm.output", "logs/"),
    ],
)
def test_an_invalid_value_is_refused_by_key_value_and_expectation(pool, key, said):
    error = refused(pool)
    assert error.key == key
    assert said in str(error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"{MINIMAL}[router.rule]\ntenant = 'a'\n",
            "router.rule = {'tenant': 'a'}: expected [[router.rule]], with two brackets instead of [router.rule]: ",
        ),
        (f"{MINIMAL}[router]\nrule = 'x'\n", "router.rule = 'x': expected [[router.rule]]: a section of its own"),
        ("name = 'a'\n[pool]\nworkers = 2\n", "pool = {'workers': 2}: expected [[pool]], with two brackets"),
        (f"{MINIMAL}[[router]]\nport = 1\n", "router = [{'port': 1}]: expected [router], with single brackets instead"),
        (f"{MINIMAL}[[pool.env]]\nA = 'b'\n", "pool[0].env = [{'A': 'b'}]: expected [pool.env], with single brackets"),
        (f"{MINIMAL}setup = 'ls'\n", "pool[0].setup = 'ls': expected a list in [ ]"),
        (
            f"{MINIMAL}[[router.rule]]\npools = ['cpu']\n",
            "router.rule[0] = {'pools': ['cpu']}: expected at least one condition: model, min_prompt_tokens",
        ),
        (
            f"{MINIMAL}[[router.rule]]\ntenant = 'a'\n",
            "router.rule[0] = {'tenant': 'a'}: expected pools, serve or both",
        ),
    ],
)
def test_sections_and_lists_of_another_form_are_told_how_to_write_them(text, said):
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert said in str(caught.value)


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


@pytest.mark.parametrize("value", [True, False, "/local/scratch", "$LOCAL_SCRATCH/me"])
def test_where_weights_are_staged(value):
    spec = parse_spec(f"{MINIMAL}stage_weights = {json.dumps(value)}\n")
    assert spec.pool[0].stage_weights == value and parse_spec(dump_spec(spec)) == spec


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
    assert [spec.model_of(pool).served_name for pool in spec.pool] == ["org/one", "second"]
    assert parse_spec(dump_spec(spec)) == spec
    spec = parse_spec("name = 'x'\n[model]\npath = 'org/three'\n" + own.partition("\n")[2])
    assert spec.model_of(spec.pool[0]).served_name == "org/one"


def test_the_demo_has_the_name_of_its_model():
    spec = parse_spec("name = 'x'\n[model]\npath = 'demo'\n[[pool]]\n")
    assert spec.model is not None and spec.model.served_name == "SmolLM2-135M-Instruct"


def test_a_pool_without_any_model_is_refused_by_name():
    with pytest.raises(SpecError, match=r"model: missing; expected \[model\], or pool\[0\].model"):
        parse_spec("name = 'x'\n[[pool]]\n")


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ("workers_per_job = 0", "expected"),
        ("workers_per_job = 'socket'", "expected a number or numa"),
        ("workers_per_job = 2\ncpus_per_task = 4\nnodes = 2", "expected 1 with nodes = 2"),
        ("workers_per_job = 'numa'\nnodes = 2", "expected 1 with nodes = 2"),
        ("workers_per_job = 'numa'\ngpus_per_node = 2", "expected a number with gpus_per_node"),
        ("workers_per_job = 3\ngpus_per_node = 8", "expected gpus_per_node = 8 GPUs for all workers, one for each"),
        ("workers_per_job = 4\ngpus_per_node = 8\ntensor_parallel = 4", "each of the 4 ranks of a worker"),
        ("workers_per_job = 4\ncpus_per_task = 3", "at most cpus_per_task = 3 CPUs for all workers"),
        ("workers_per_job = 2\ncpus_per_task = 3\ntensor_parallel = 2", "each of the 2 ranks of a worker"),
    ],
)
def test_workers_that_cannot_share_a_job_are_refused(pool, said):
    error = refused(pool)
    assert error.key == "pool[0].workers_per_job" and said in str(error)


def test_the_layout_of_workers_that_share_a_job_is_that_of_one():
    text = "name = 'x'\n[model]\npath = 'm'\n[[pool]]\nworkers_per_job = 2\ngpus_per_node = 8\ntensor_parallel = 4\n"
    layout = parse_spec(text + "cpus_per_task = 64").pool[0].layout
    assert (layout.gpus_per_node, layout.cpus_per_task, layout.ranks) == (4, 32, 4)
    assert parse_spec(dump_spec(parse_spec(text))) == parse_spec(text)


@pytest.mark.parametrize("worker", ["a-0", "a-17", "a-b-3", "a-0.1", "a-b-3.12"])
def test_a_worker_is_of_the_pool_that_its_id_begins_with(worker):
    spec = parse_spec("name = 'x'\n[model]\npath = 'm'\n[[pool]]\nname = 'a'\n[[pool]]\nname = 'a-b'\n")
    assert spec.pool_of(worker).name == worker.rpartition("-")[0]


@pytest.mark.parametrize("worker", ["a", "a-", "a-x", "b-0", "", "a-0.x", "a.1", "a-0."])
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
        ("[[router.rule]]\ntenant = 'a b'\nserve = 'org/small'", "router.rule[0].tenant", "expected letters"),
        ("[[router.rule]]\ntenant = 'a'\npools = ['cpu', 'tpu']", "router.rule[0].pools[1]", "pools: gpu, cpu"),
        (
            "[[router.rule]]\nmodel = 'gpt-4o'\nserve = 'huge'",
            "router.rule[0].serve",
            "a pool serves: org/large, org/small",
        ),
        ("[[router.rule]]\nmodel = 'gpt-4o'\npools = ['cpu']", "router.rule[0].model", "one of org/large, org/small"),
        ("[[router.rule]]\nmodel = 'org/large'\npools = ['cpu']", "router.rule[0].pools", "none of them serves"),
        ("[[router.rule]]\nmodel = 'a'\nserve = 'org/small'\npools = ['gpu']", "router.rule[0].pools", "'org/small'"),
        (
            "[[router.rule]]\nmin_prompt_tokens = 9\nmax_prompt_tokens = 8\nserve = 'org/small'",
            "router.rule[0].min_prompt_tokens",
            "at most max_prompt_tokens = 8",
        ),
        (
            "[[router.rule]]\nmodel = 'claude-*'\npools = ['cpu']",
            "router.rule[0].model",
            "'claude-*': stands for no model that a pool serves: expected serve = ..., one of org/large, org/small",
        ),
        ("[[router.rule]]\nmodel = '*large'\npools = ['cpu']", "router.rule[0].pools", "none of them serves"),
        (
            "[[router.rule]]\nmodel = 'claude-*'\nserve = 'org/small'\n"
            "[[router.rule]]\nmodel = 'claude-opus-*'\nserve = 'org/large'",
            "router.rule[1].model",
            "router.rule[0] with model = 'claude-*' takes all of it: expected this rule before it",
        ),
        (
            "[[router.rule]]\nmodel = 'a'\nserve = 'org/small'\n[[router.rule]]\nmodel = 'a'\nserve = 'org/large'",
            "router.rule[1].model",
            "router.rule[0] with model = 'a' takes all of it",
        ),
        ("[[router.rule]]\nmin_prompt_tokens = 0\nserve = 'org/small'", "router.rule[0].min_prompt_tokens", ">= 1"),
        ("allowed_origins = ['*', 'a.org']", "router.allowed_origins[1]", "expected a scheme and a host"),
        ("allowed_origins = ['https://a.org/']", "router.allowed_origins[0]", "without a path"),
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
        "allowed_origins = ['*', 'null', 'https://*.a.org', 'http://localhost:*']",
        "[[router.rule]]\nmodel = 'gpt-4o'\nserve = 'org/small'\npools = ['cpu']",
        "[[router.rule]]\nmin_prompt_tokens = 8\nmax_prompt_tokens = 8\npools = ['gpu', 'cpu']",
        "[[router.rule]]\ntenant = 'owner'\nserve = 'org/small'",
        "[[router.rule]]\nmodel = 'org/large'\npools = ['gpu']",
        "[[router.rule]]\nmodel = 'org/*'\npools = ['gpu']",
        "[[router.rule]]\nmodel = 'claude-opus-*'\nserve = 'org/large'\n"
        "[[router.rule]]\nmodel = '*'\nserve = 'org/small'\n"
        "[[router.rule]]\nmodel = 'org/large'\npools = ['gpu']",
        "[[router.rule]]\nmodel = 'a*'\nmin_prompt_tokens = 9\nserve = 'org/large'\n"
        "[[router.rule]]\nmodel = 'a*'\nserve = 'org/small'",
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
        "tls = 'self_signed'", "access_log = true", "pending_connections = 9", "batches = 9",
        "batch_files = 9", "batch_storage = 9",
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


def test_sglang_router_does_not_say_how_many_requests_wait_so_no_pool_grows_by_it():
    caught = refused(pool="min_workers = 0", after="[router]\nbackend = 'sglang'")
    assert (caught.key, caught.value) == ("pool[0].min_workers", 0)


BACKFILL = 'backfill = true\nmax_workers = 4\ntime_min = "20"'


def test_serve_starts_no_worker_of_a_backfill_pool():
    read = spec(BACKFILL)
    assert read.slots() == [] and read.pool[0].bounds == (0, 4)
    assert parse_spec(dump_spec(read)) == read


@pytest.mark.parametrize(
    ("pool", "key"),
    [
        ("backfill = true\nmax_workers = 4", "pool[0].time_min"),
        ("backfill = true\ntime_min = '20'", "pool[0].max_workers"),
        (f"{BACKFILL}\nworkers = 2", "pool[0].workers"),
        (f"{BACKFILL}\nmin_workers = 1", "pool[0].min_workers"),
        (f"{BACKFILL}\nslurm = {{requeue = true}}", "pool[0].slurm.requeue"),
        (f"{BACKFILL}\nslurm = {{no_requeue = false}}", "pool[0].slurm.no_requeue"),
    ],
)
def test_what_a_backfill_pool_cannot_be_is_refused(pool, key):
    assert refused(pool).key == key


def test_a_backfill_pool_gets_what_the_other_pools_of_its_model_leave():
    for read, expected in (
        (two_pools("", cpu=BACKFILL), [None, 0.0]),
        (two_pools("", cpu=f"{BACKFILL}\nspill_after = 5"), [None, 5]),
        (spec(BACKFILL), [None]),
    ):
        assert [read.spill_after_of(pool) for pool in read.pool] == expected
    with pytest.raises(SpecError) as caught:
        two_pools("", "spill_after = 5", BACKFILL)
    assert caught.value.key == "pool[0].spill_after"


def test_a_file_that_is_no_toml_is_named(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("# slurminfer\n\nruns models\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert str(caught.value).startswith(f"spec: {path}: not TOML: ")


def test_a_name_where_a_path_should_be_is_told_what_is_expected():
    with pytest.raises(SpecError, match=r"spec: demo: cannot read it: .*; expected the path of a TOML file"):
        load_spec(Path("demo"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = 'x'\n[model]\npath = 'demo'", "spec: pool: missing; expected at least one section [[pool]]"),
        ("name = 'x'\n[model]\n[[pool]]", "spec: model.path: missing; it has no default"),
        ("name = 'x'\nmodel = 'demo'\n[[pool]]", "spec: model = 'demo': expected a section [model]; its keys: path, "),
    ],
)
def test_a_section_that_is_missing_or_a_value_is_told_how_it_is_written(text, said):
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert str(caught.value).startswith(said)
