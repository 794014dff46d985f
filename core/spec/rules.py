"""Checks of the router's rules."""

from collections.abc import Sequence

from ..errors import SpecError
from ..toml import set_keys
from .deployment import DeploymentSpec, served_names
from .patterns import fits, is_pattern
from .router import RuleSpec
from .values import check_name


def check_rules(spec: DeploymentSpec) -> None:
    """Raise SpecError for a rule that leads nowhere. To be repeated once the models are found: names may change."""
    for index, rule in enumerate(spec.router.rule):
        key = f"router.rule[{index}]"
        _check_conditions(key, rule)
        if not rule.pools and rule.serve is None:
            expected = "expected pools, serve or both: what is to be done with requests that fit"
            raise SpecError(key, set_keys(rule), expected)
        _check_targets(key, rule, spec)
        _check_reached(f"{key}.model", rule, spec, index)


def _check_conditions(key: str, rule: RuleSpec) -> None:
    least, most = rule.min_prompt_tokens, rule.max_prompt_tokens
    if all(condition is None for condition in (rule.model, least, most, rule.tenant)):
        expected = "expected at least one condition: model, min_prompt_tokens, max_prompt_tokens or tenant"
        raise SpecError(key, set_keys(rule), expected)
    if least is not None and most is not None and least > most:
        raise SpecError(f"{key}.min_prompt_tokens", least, f"expected at most max_prompt_tokens = {most}")
    if rule.tenant is not None:
        check_name(f"{key}.tenant", rule.tenant)


def _check_targets(key: str, rule: RuleSpec, spec: DeploymentSpec) -> None:
    """Whether the pools and the model that a rule leads to are there, and belong together."""
    pools = {pool.name: pool for pool in spec.pool}
    for place, name in enumerate(rule.pools):
        if name not in pools:
            raise SpecError(f"{key}.pools[{place}]", name, f"expected names of pools: {', '.join(pools)}")
    served = served_names(spec)
    if rule.serve is not None and rule.serve not in served:
        raise SpecError(f"{key}.serve", rule.serve, f"expected a model that a pool serves: {', '.join(served)}")
    wanted = _wanted(f"{key}.model", rule, served)
    if wanted and rule.pools and not {spec.model_of(pools[name]).served_name for name in rule.pools} & set(wanted):
        raise SpecError(f"{key}.pools", list(rule.pools), f"none of them serves the model {rule.serve or rule.model!r}")


def _wanted(key: str, rule: RuleSpec, served: Sequence[str]) -> list[str]:
    """The models that requests which fit may get; none: it does not matter."""
    if rule.serve is not None:
        return [rule.serve]
    if rule.model is None:
        return []
    found = [name for name in served if fits(rule.model, name)]
    if not found:
        what = "stands for no model that a pool serves" if is_pattern(rule.model) else "no pool serves it"
        raise SpecError(key, rule.model, f"{what}: expected serve = ..., one of {', '.join(served)}")
    return found


def _check_reached(key: str, rule: RuleSpec, spec: DeploymentSpec, index: int) -> None:
    """Raise SpecError for a rule that nothing comes to, because all that fits it fits an earlier one."""
    if rule.model is None:
        return
    for place, earlier in enumerate(spec.router.rule[:index]):
        if not _is_of_name(earlier) or earlier.model is None or not fits(earlier.model, rule.model):
            continue
        if is_pattern(earlier.model) and earlier.serve is not None and rule.model in served_names(spec):
            continue
        expected = f"router.rule[{place}] with model = {earlier.model!r} takes all of it: expected this rule before it"
        raise SpecError(key, rule.model, expected)


def _is_of_name(rule: RuleSpec) -> bool:
    """Whether the name that is asked for is a rule's only condition."""
    return all(condition is None for condition in (rule.min_prompt_tokens, rule.max_prompt_tokens, rule.tenant))
