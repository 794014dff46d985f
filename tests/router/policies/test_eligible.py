"""Who may take a request."""

from slurminfer.core.spec.router import RuleSpec
from slurminfer.router.policies.eligible import Eligibility, PoolRouting

from ...support.policy_workers import Stub, request

NOW = 1_000_000.0
POOLS = [PoolRouting(name="p", model="m"), PoolRouting(name="q", model="n")]


def eligibility(workers, pools=POOLS, rules=()):
    one = Eligibility(pools, rules)
    one.update(workers)
    return one


def slots(one, asked=None, **more):
    return [worker.slot for worker in one.candidates(asked or request(), NOW, **more).workers]


def test_by_model():
    one = eligibility([Stub(0), Stub(1, pool="q", model="n"), Stub(2)])
    assert slots(one) == [0, 2]
    assert slots(one, request(model="n")) == [1]
    assert slots(one, request(model=None)) == [0, 1, 2]


def test_the_model_that_a_name_means_as_a_rule():
    rules = [
        RuleSpec(model="claude-*", tenant="alice", serve="n"),
        RuleSpec(model="claude-*", min_prompt_tokens=99, serve="n", tenant="bob"),
        RuleSpec(model="claude-*", serve="m"),
        RuleSpec(model="*", pools=("p",)),
    ]
    one = eligibility([], rules=rules)
    asked = [("claude-1", "alice"), ("claude-2", "bob"), ("claude-3", "carol"), ("n", "alice")]
    assert [one.likely_model(*each) for each in asked] == ["n", "n", "m", "n"]
    assert one.likely_model("made-up", "alice") == one.likely_model(None, "alice") == ""


def test_an_unknown_model_is_named_with_those_that_there_are():
    nobody = eligibility([Stub(0)]).candidates(request(model="x"), NOW)
    assert (nobody.reason, nobody.unknown_model) == ("no worker serves the model 'x'; models: m, n", True)


def test_draining_and_tried_workers_get_nothing():
    workers = [Stub(0, choosable=False), Stub(1), Stub(2)]
    one = eligibility(workers)
    assert slots(one) == [1, 2]
    assert slots(one, tried={1}) == [2]
    nobody = one.candidates(request(), NOW, tried={1, 2})
    assert nobody.reason == "every ready worker of the model 'm' has failed with this request"
    one.update([Stub(0, choosable=False)])
    nobody = one.candidates(request(), NOW)
    assert (nobody.reason, nobody.unknown_model) == ("no worker of the model 'm' is ready", False)


def test_the_same_list_while_nothing_changes():
    one = eligibility([Stub(0), Stub(1)])
    assert one.candidates(request(), NOW).workers is one.candidates(request(), NOW).workers


def test_the_first_rule_that_fits_counts():
    rules = [
        RuleSpec(tenant="vip", pools=("q",)),
        RuleSpec(model="alias", serve="n"),
        RuleSpec(min_prompt_tokens=1000, pools=("q",)),
        RuleSpec(max_prompt_tokens=10, pools=("p",)),
    ]
    workers = [Stub(0), Stub(1, pool="q"), Stub(2, pool="q", model="n")]
    one = eligibility(workers, rules=rules)
    assert slots(one, request(tenant="vip")) == [1]
    found = one.candidates(request(model="alias"), NOW)
    assert ([worker.slot for worker in found.workers], found.model) == ([2], "n")
    assert slots(one, request(input_tokens=1000)) == [1]
    assert slots(one, request(input_tokens=10)) == [0]
    assert slots(one, request(input_tokens=500)) == [0, 1]


def test_a_pattern_stands_for_all_names_but_those_of_models():
    rules = [
        RuleSpec(model="claude-opus-*", serve="n"),
        RuleSpec(model="*", tenant="vip", pools=("q",)),
        RuleSpec(model="*", serve="m"),
    ]
    one = eligibility([Stub(0), Stub(1, pool="q", model="n")], rules=rules)
    lanes = {name: one.lane(request(model=name)) for name in ("claude-opus-4", "claude-haiku", "gpt-5", "m", "n", "")}
    assert lanes == {
        "claude-opus-4": ("n", ()), "claude-haiku": ("m", ()), "gpt-5": ("m", ()), "m": ("m", ()), "n": ("n", ()),
        "": ("m", ()),
    }  # fmt: skip
    assert one.lane(request(model=None)) == (None, ()), "no name fits no pattern"
    assert one.lane(request(model="m", tenant="vip")) == ("m", ("q",)), "a model fits where it stays what it is"


def test_a_rule_whose_pools_have_nobody_is_named():
    one = eligibility([Stub(0)], rules=[RuleSpec(tenant="t", pools=("q",))])
    reason = "no worker of the model 'm' in the pools q, where a rule sends this request is ready"
    assert one.candidates(request(), NOW).reason == reason


def test_a_worker_that_ends_too_soon_gets_nothing():
    soon, later, free = Stub(0, ends_at=NOW + 240), Stub(1, ends_at=NOW + 7200), Stub(2)
    one = eligibility([soon, later, free])
    assert slots(one, request(output=50 * 600)) == [1, 2]
    assert slots(one, request(output=50)) == [0, 1, 2]
    one.update([soon, Stub(1, ends_at=NOW + 300)])
    assert slots(one, request(output=50 * 600)) == [1], "nobody has the time: the one with the most"


def test_what_waits_at_a_worker_counts_for_its_time():
    one = eligibility([Stub(0, ends_at=NOW + 120, pending_tokens=100_000), Stub(1, ends_at=NOW + 120)])
    assert slots(one) == [1]


SPILL = [PoolRouting(name="gpu", model="m"), PoolRouting(name="cpu", model="m", spill_after=5.0)]


def test_a_spill_over_pool_gets_what_would_wait_too_long():
    gpu, cpu = Stub(0, pool="gpu"), Stub(1, pool="cpu")
    one = eligibility([gpu, cpu], SPILL)
    assert slots(one) == [0]
    gpu.pending_tokens = 6000
    assert slots(one) == [0, 1]
    gpu.pending_tokens = 0
    assert slots(one, tried={0}) == [1]
    one.update([cpu])
    assert slots(one) == [1], "there is no other pool"


def test_a_second_spill_over_pool_waits_for_the_first():
    pools = [*SPILL, PoolRouting(name="slow", model="m", spill_after=60.0)]
    gpu, cpu, slow = Stub(0, pool="gpu", pending_tokens=70_000), Stub(1, pool="cpu"), Stub(2, pool="slow")
    one = eligibility([gpu, cpu, slow], pools)
    assert slots(one) == [0, 1]
    cpu.pending_tokens = 70_000
    assert slots(one) == [0, 1, 2]
