"""Other names of models: what rules make of a name that a client asks for, whatever its prompt is."""

from collections.abc import Collection, Iterable

from ...core.spec.patterns import fits, is_pattern
from ...core.spec.router import RuleSpec


def means(rule: RuleSpec, name: str, served: Collection[str]) -> bool:
    """Whether a rule is about a name. A pattern that gives another model leaves names alone that are served."""
    if rule.model is None or not fits(rule.model, name):
        return False
    return rule.serve is None or not is_pattern(rule.model) or name not in served


def model_behind(name: str, rules: Iterable[RuleSpec], served: Collection[str], tenant: str | None) -> str | None:
    """The model that a tenant gets who asks for `name`; None where it is no alias."""
    return next((rule.serve for rule in _of_names(rules, tenant) if means(rule, name, served)), None)


def aliases(model: str, rules: Iterable[RuleSpec], tenant: str | None) -> list[str]:
    """The other names of a model for a tenant, with their wildcards."""
    return [rule.model for rule in _of_names(rules, tenant) if rule.serve == model and rule.model not in (None, model)]


def _of_names(rules: Iterable[RuleSpec], tenant: str | None) -> list[RuleSpec]:
    """Rules that depend on the name alone, for this tenant."""
    return [
        rule
        for rule in rules
        if rule.model is not None
        and rule.serve is not None
        and rule.min_prompt_tokens is None
        and rule.max_prompt_tokens is None
        and rule.tenant in (None, tenant)
    ]
