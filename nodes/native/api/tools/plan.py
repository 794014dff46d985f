"""What the answer to a request with tools must look like, and how it is read."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...grammar.constraint import After, Constraint, Either
from ...grammar.errors import ConstraintError
from ...grammar.lark import json_text
from ..reasoning.tags import Tags
from ..requests.tools import Function, Toolset
from .families import FORCED, Family
from .harmony import is_within_a_message
from .writing.formats import BARE, BARE_SINGLE
from .writing.harmony import within_a_message
from .writing.writing import MOST_CALLS, Writing

_MOST_KEYS = 50_000  # more can be compiled in no format
_ANY_ARGUMENTS: Mapping[str, Any] = {"type": "object", "additionalProperties": True}


@dataclass(frozen=True, slots=True)
class CallPlan:
    """How calls are read, and what the answer must look like for their sake."""

    family: Family | None = None  # None: they are not looked for
    constraint: Constraint | None = None


def call_plan(
    tools: Toolset,
    family: Family | None,
    template: str,
    wanted: Constraint | None,
    *,
    lenient: bool = False,
    head: str = "",
) -> CallPlan:
    """The plan for `tools` of a model of `family`.

    Args:
        template: the model's chat template.
        wanted: what an answer without calls must look like.
        lenient: only functions that are strict have their arguments checked.
        head: of a message that the prompt ends with, where the family's answers are framed.

    Raises ConstraintError for the schema of a strict function that cannot be written in the family's format. Calls that
    are forced are then JSON.
    """
    writing = family.writing(template) if family else None
    frames = family if family and family.frames else None
    is_within = frames is not None and is_within_a_message(head)
    if wanted is not None and frames and writing and not is_within:
        wanted = writing.framed(wanted)
    if not tools.functions:
        return CallPlan(frames, wanted)
    if tools.mode == "required":
        return _forced(tools, family, writing, lenient=lenient, is_within=is_within)
    if writing is None:
        return CallPlan(family, wanted)
    schemas = {f.name: f.parameters if f.strict else _ANY_ARGUMENTS for f in tools.functions}
    _require_few_keys(schemas)
    if wanted is not None:
        calls = writing.calls(schemas, MOST_CALLS if tools.parallel else 1)
        return CallPlan(family, Either([within_a_message(calls) if is_within else calls, wanted]))
    if not any(function.strict for function in tools.functions):
        return CallPlan(family)
    text = writing.calls_in_text(schemas, tools.parallel)
    return CallPlan(family, within_a_message(text) if is_within and text else text)


def _forced(
    tools: Toolset, family: Family | None, writing: Writing | None, *, lenient: bool, is_within: bool
) -> CallPlan:
    """The plan for answers that must be calls."""
    schemas = {f.name: f.parameters if f.strict or not lenient else _ANY_ARGUMENTS for f in tools.functions}
    _require_few_keys(schemas)
    most = MOST_CALLS if tools.parallel else 1
    with suppress(ConstraintError):
        if writing is not None:
            calls = writing.calls(schemas, most)
            return CallPlan(family, within_a_message(calls) if is_within else calls)
    bare = BARE if tools.parallel else BARE_SINGLE
    return CallPlan(FORCED, bare.calls(schemas, most))


def _require_few_keys(schemas: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ConstraintError for schemas so large that what is made of them would take much memory."""
    count = sum(json_text(schema).count('":') for schema in schemas.values())
    if count > _MOST_KEYS:
        raise ConstraintError(f"{count} keys in the schemas of functions: expected at most {_MOST_KEYS}")


def arguments_of(function: Function, family: Family | None, template: str) -> Constraint:
    """The arguments of one function as the family writes them. Raises ConstraintError."""
    writing = family.writing(template) if family else None
    return (writing or BARE).arguments(function.parameters)


def after_thinking(constraint: Constraint, tags: Tags | None, prompt: str, *, within: bool) -> Constraint:
    """The constraint for what follows the thinking. `within`: the answer begins within the tags."""
    if tags is None or prompt.rstrip().endswith(tags.end):
        return constraint
    return After(tags.end, constraint, None if within else tags.begin)
