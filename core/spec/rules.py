"""Checks of the router's rules."""

from ..errors import SpecError
from ..toml import set_keys
from .deployment import DeploymentSpec, served_names
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
    wanted = rule.serve or rule.model
    if wanted is None:
        return
    if wanted not in served:
        expected = f"no pool serves it: expected serve = ..., one of {', '.join(served)}"
        raise SpecError(f"{key}.model", wanted, expected)
    if rule.pools and wanted not in [spec.model_of(pools[name]).served_name for name in rule.pools]:
        raise SpecError(f"{key}.pools", list(rule.pools), f"none of them serves the model {wanted!r}")
