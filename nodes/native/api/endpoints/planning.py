"""How the answers to a chat request are read, and what they must look like."""

import asyncio
from functools import partial

from ...engine.request import Limits
from ...grammar.constraint import Constraint, JsonSchema
from ...grammar.errors import ConstraintError
from ...grammar.matcher import Grammar
from ..answers.reader import Reading
from ..errors import ApiError, short
from ..grammars import GrammarCompiler
from ..reasoning.tags import begins_within
from ..requests.chat import ChatRequest
from ..requests.structured import Structure, structure_of
from ..requests.tools import Toolset
from ..service import ServedModel
from ..tools.harmony import head_of
from ..tools.plan import CallPlan, after_thinking, arguments_of, call_plan

_MOST_NAMED = 16  # strict functions that are compiled one by one to find the fault


class AnswerPlanner:
    """Plans for one model, by its chat template."""

    def __init__(self, model: ServedModel, grammars: GrammarCompiler) -> None:
        self._model, self._grammars = model, grammars
        self._frames = model.family is not None and model.family.frames

    async def plan(
        self, body: ChatRequest, tools: Toolset, prompt: str, limits: Limits
    ) -> tuple[Reading, Grammar | None]:
        """For the answers to `prompt`, the rendered text. Raises ApiError."""
        structure = structure_of(body)
        plan, grammar = await self._plan(body, tools, structure, prompt, limits)
        return self._reading(body, tools, plan, prompt), grammar

    async def _plan(
        self, body: ChatRequest, tools: Toolset, structure: Structure | None, prompt: str, limits: Limits
    ) -> tuple[CallPlan, Grammar | None]:
        param = structure.param if structure and not tools.functions else "tools"
        plan = None
        try:
            plan = await self._calls(tools, structure, param, prompt)
            return plan, await self._compile(body, plan.constraint, param, prompt, limits)
        except ApiError as error:
            if error.status == 429:  # none at all can be compiled now
                raise
            try:
                lenient = await self._calls(tools, structure, param, prompt, lenient=True)
                if lenient == plan or lenient.constraint is None:
                    raise
                return lenient, await self._compile(body, lenient.constraint, param, prompt, limits)
            except ApiError:
                await self._name_fault(tools, limits)
                raise

    async def _calls(
        self, tools: Toolset, structure: Structure | None, param: str, prompt: str, *, lenient: bool = False
    ) -> CallPlan:
        """`lenient`: the schemas of functions that are not strict may have what cannot be compiled."""
        wanted = structure.constraint if structure else None
        family, source = self._model.family, self._model.template.source
        plan = partial(call_plan, tools, family, source, wanted, lenient=lenient, head=head_of(prompt))
        try:
            return await asyncio.to_thread(plan) if tools.functions else plan()
        except ConstraintError as error:
            raise ApiError(400, f"{param}: {error}", param=param) from error

    async def _compile(
        self, body: ChatRequest, constraint: Constraint | None, param: str, prompt: str, limits: Limits
    ) -> Grammar | None:
        if constraint is None:
            return None
        within = self._begins_within(body, prompt)
        if not self._frames:
            constraint = after_thinking(constraint, self._model.tags, prompt, within=within)
        return await self._grammars.compile(Structure(param, constraint), limits.vocab_size)

    async def _name_fault(self, tools: Toolset, limits: Limits) -> None:
        """Raise ApiError that names the function whose schema cannot be compiled, if it is one of the first."""
        for function in [each for each in tools.functions if each.strict][:_MOST_NAMED]:
            param = f"tools: function {short(function.name)}"
            try:
                await self._grammars.compile(Structure(param, JsonSchema(dict(function.parameters))), limits.vocab_size)
                family, source = self._model.family, self._model.template.source
                arguments = await asyncio.to_thread(arguments_of, function, family, source)
                await self._grammars.compile(Structure(param, arguments), limits.vocab_size)
            except ConstraintError as error:
                raise ApiError(400, f"{param}: {error}", param="tools") from error
            except ApiError as error:
                raise ApiError(error.status, error.message, param="tools") from error

    def _reading(self, body: ChatRequest, tools: Toolset, plan: CallPlan, prompt: str) -> Reading:
        separates = body.separate_reasoning is not False
        return Reading(
            tags=self._model.tags if separates else None,
            within=separates and self._begins_within(body, prompt),
            tells_thoughts=body.include_reasoning is not False,
            thoughts_at_once=body.stream_reasoning is not False,
            family=plan.family,
            head=head_of(prompt) if self._frames else "",
            functions=tools.schemas,
            one_call=bool(tools.functions) and not tools.parallel,
        )

    def _begins_within(self, body: ChatRequest, prompt: str) -> bool:
        tags = self._model.tags
        continued = body.turns[-1]["content"] if body.continue_final_message else ""
        return tags is not None and begins_within(tags, prompt, continued)
