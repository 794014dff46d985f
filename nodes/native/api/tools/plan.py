"""What the answer to a request with tools must look like, and how it is read."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...grammar.constraint import After, Constraint, Either
from ...grammar.errors import ConstraintError
from ..reasoning.tags import Tags
from ..requests.tools import Function, Toolset
from .families import FORCED, Family
from .writing import BARE, BARE_SINGLE, MOST_CALLS

_ANY_ARGUMENTS: Mapping[str, Any] = {"type": "object", "additionalProperties": True}


@dataclass(frozen=True, slots=True)
class CallPlan:
    """How calls are read, and what the answer must look like for their sake."""

    family: Family | None = None  # None: they are not looked for
    constraint: Constraint | None = None


def call_plan(
    tools: Toolset, family: Family | None, template: str, wanted: Constraint | None, *, lenient: bool = False
) -> CallPlan:
    """The plan for `tools` of a model of `family`.

    Args:
        template: the model's chat template.
        wanted: what an answer without calls must look like.
        lenient: only functions that are strict have their arguments checked.

    Raises ConstraintError for the schema of a strict function that cannot be written in the family's format. Calls that
    are forced are then JSON.
    """
    if not tools.functions:
        return CallPlan(constraint=wanted)
    writing = family.writing(template) if family else None
    schemas = {
        function.name: function.parameters if function.strict or not lenient else _ANY_ARGUMENTS
        for function in tools.functions
    }
    most = MOST_CALLS if tools.parallel else 1
    if tools.mode == "required":
        with suppress(ConstraintError):
            if writing is not None:
                return CallPlan(family, writing.calls(schemas, most))
        bare = BARE if tools.parallel else BARE_SINGLE
        return CallPlan(FORCED, bare.calls(schemas, most))
    if writing is None:
        return CallPlan(family, wanted)
    schemas = {f.name: f.parameters if f.strict else _ANY_ARGUMENTS for f in tools.functions}
    if wanted is not None:
        return CallPlan(family, Either([writing.calls(schemas, most), wanted]))
    is_strict = any(function.strict for function in tools.functions)
    return CallPlan(family, writing.calls_in_text(schemas, tools.parallel) if is_strict else None)


def arguments_of(function: Function, family: Family | None, template: str) -> Constraint:
    """The arguments of one function as the family writes them. Raises ConstraintError."""
    writing = family.writing(template) if family else None
    return (writing or BARE).arguments(function.parameters)


def after_thinking(constraint: Constraint, tags: Tags | None, prompt: str, *, within: bool) -> Constraint:
    """The constraint for what follows the thinking. `within`: the answer begins within the tags."""
    if tags is None or prompt.rstrip().endswith(tags.end):
        return constraint
    return After(tags.end, constraint, None if within else tags.begin)
