"""A Jinja environment in which a template ends soon and stays small, whatever it says.

Jinja's own sandbox keeps a template from what it should not see, not from nested loops or texts that double. Here every
step of a loop, call, filter and operator is counted, and every text and list that they make is measured. Where one
operation alone could make a huge text, its size is estimated before (growth.py). What looks at whole texts and lists
costs steps for these (costs.py). The count is the same on every machine.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import meta, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, _PassArg
from jinja2.visitor import NodeTransformer

from .costs import PLAIN, SHALLOW, SHALLOW_METHODS, check_arguments, check_method, parts, steps_of, steps_of_numbers
from .growth import LONGEST_LIST, LONGEST_TEXT, size_after

MOST_STEPS = 1_000_000  # about a second or two
_TEXT_STEP = 1024  # characters that cost as much as a step
_LIST_STEP = 16  # items
_MOST_DIGITS = 10_000
_BUDGET = "\0budget"  # a variable that no template can name
# Filters likewise.
_COUNT, _JOIN, _MEASURE, _WEIGH, _LOOK = "\0count", "\0join", "\0measure", "\0weigh", "\0look"


class Budget:
    """What one rendering may still do. Methods raise SecurityError where that is too much."""

    def __init__(self) -> None:
        self._steps = 0

    def spend(self, steps: int = 1) -> None:
        """Count steps."""
        self._steps += steps
        if self._steps > MOST_STEPS:
            raise SecurityError(f"takes more than {MOST_STEPS} steps: does a loop or a macro ever end?")

    def count(self, values: Iterable[Any]) -> Iterator[Any]:
        """The same values, each of which is a step."""
        for value in values:
            self.spend()
            yield value

    def measure(self, value: Any) -> Any:
        """A value that was made just now, or an iterator that counts."""
        if isinstance(value, (str, bytes)):
            _require(len(value), LONGEST_TEXT)
            self.spend(1 + len(value) // _TEXT_STEP)
        elif isinstance(value, (list, tuple, dict, set)):
            if len(value) > LONGEST_LIST:
                raise SecurityError(f"a list has more than {LONGEST_LIST} items")
            self.spend(1 + len(value) // _LIST_STEP)
        elif isinstance(value, Iterator):
            return self.count(value)
        else:
            if isinstance(value, int):
                _require_digits(value.bit_length())
            self.spend()
        return value

    def weigh(self, value: Any) -> tuple[int, int]:
        """Spend steps for a value and all that is in it, as often as it is: lists of lists grow like texts.

        Gives how many characters and items that is. Raises SecurityError also for too many characters in all.
        """
        left, characters, items = [value], 0, 0
        while left:
            each = left.pop()
            if isinstance(each, (str, bytes)):
                characters += len(each)
                _require(characters, LONGEST_TEXT)
                self.spend(len(each) // _TEXT_STEP)
            elif isinstance(each, range):
                items += len(each)
                self.spend(1 + len(each) // _LIST_STEP)
            elif isinstance(each, Namespace):
                left.append(object.__getattribute__(each, "_Namespace__attrs"))
                self.spend()
            elif (found := parts(each)) is not None:
                items += len(found)
                self.spend(1 + len(found) // _LIST_STEP)
                texts = sum([len(part) for part in found if part.__class__ is str])
                characters += texts
                _require(characters, LONGEST_TEXT)
                self.spend(texts // _TEXT_STEP)
                left.extend([part for part in found if part.__class__ not in PLAIN])
        return characters, items


def compile_template(text: str) -> jinja2.Template:
    """Raises jinja2.TemplateSyntaxError, RecursionError, and SyntaxError or ValueError for what Python cannot have."""
    tree = _Guard().visit(_environment.parse(text))
    tree.set_environment(_environment)
    return _environment.from_string(tree)


def undeclared(text: str) -> set[str]:
    """Names of the variables that a template uses without setting them."""
    return meta.find_undeclared_variables(_environment.parse(text)) - set(_environment.globals)


def render(template: jinja2.Template, variables: Mapping[str, Any], longest: int) -> str:
    """Raises SecurityError for what takes too long or has more than `longest` characters, and what templates raise."""
    pieces, size = [], 0
    for piece in template.generate({**variables, _BUDGET: Budget()}):
        size += len(piece)
        _require(size, longest)
        pieces.append(piece)
    return "".join(pieces)


class _Guard(NodeTransformer):
    """Puts filters of ours around whatever loops or grows without a call, a filter or an operator."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _COUNT)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), _JOIN)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, _MEASURE) if isinstance(node.arg, nodes.Slice) else node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _filtered(node.expr, _WEIGH)
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, _LOOK if operand.op in ("in", "notin") else _WEIGH)
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return self._literal(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return self._literal(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self._literal(node) if node.ctx == "load" else node

    def _literal(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, _WEIGH)


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "**", "%"])

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator, of which the result is measured."""
        budget = _budget(context)
        if isinstance(left, int) and isinstance(right, int):
            if operator in ("*", "**"):
                product = left.bit_length() + right.bit_length()
                _require_digits(left.bit_length() * max(1, right) if operator == "**" else product)
            budget.spend(steps_of_numbers(operator, left, right))
        elif operator == "%":
            budget.weigh(right)
        _require(size_after(operator, left, (right,), {}), LONGEST_TEXT)
        return budget.measure(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call, of which the result is measured. The names are those that no keyword of a template can have."""
        budget = _budget(__context)
        if isinstance(__obj, LoopContext) and args:
            args = (budget.count(args[0]), *args[1:])
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps str.format
        check_method(method)
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if owner is not None and not isinstance(owner, Macro):
            args = tuple(list(budget.count(each)) if isinstance(each, Iterator) else each for each in args)
            _check(budget, name, owner, args, kwargs, is_deep=name not in SHALLOW_METHODS)
        budget.spend()
        return budget.measure(super().call(__context, __obj, *args, **kwargs))


def _check(
    budget: Budget, name: str, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, is_deep: bool
) -> None:
    """Spend what a filter, test or method costs; `is_deep`: it looks into what it is given.

    Raises SecurityError for one that costs or makes too much.
    """
    given = (*args, *kwargs.values())
    check_arguments(name, value, given)
    _require(size_after(name, value, args, kwargs), LONGEST_TEXT)
    if is_deep:
        is_key = name == "in" and any(isinstance(each, Mapping) for each in given)
        characters, items = budget.weigh((value,) if is_key else (value, given))
        budget.spend(steps_of(name, value, given, characters, items))


def _guarded(name: str, function: Callable[..., Any], *, is_test: bool = False) -> Callable[..., Any]:
    """A filter or test, of which the result is measured."""
    passed = _PassArg.from_obj(function)

    @pass_context
    def guarded(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = _budget(context)
        if isinstance(value, Iterator) and not is_test:
            value = list(budget.count(value))
        _check(budget, name, value, args, kwargs, is_deep=name not in SHALLOW)
        first = {
            _PassArg.context: (context,), _PassArg.eval_context: (context.eval_ctx,),
            _PassArg.environment: (context.environment,), None: (),
        }[passed]  # fmt: skip
        return budget.measure(function(*first, value, *args, **kwargs))

    return guarded


@pass_context
def _finalize(context: Context, value: Any) -> str:
    """What is written, also into the text of a macro or a block."""
    if not isinstance(value, str):
        _budget(context).weigh(value)
    text = str(value)
    _budget(context).measure(text)
    return text


@pass_context
def _count(context: Context, values: Any) -> Iterator[Any]:
    return _budget(context).count(values)


@pass_context
def _join(context: Context, values: list[Any]) -> Any:
    _budget(context).weigh(values)
    texts = [str(value) for value in values]
    _require(sum(map(len, texts)), LONGEST_TEXT)
    return _budget(context).measure("".join(texts))


@pass_context
def _measure(context: Context, value: Any) -> Any:
    return _budget(context).measure(value)


@pass_context
def _weigh(context: Context, value: Any) -> Any:
    _budget(context).weigh(value)
    return value


@pass_context
def _look(context: Context, value: Any) -> Any:
    """What is looked through for something; a key is found in a mapping at once."""
    if not isinstance(value, Mapping):
        _budget(context).weigh(value)
    return value


def _budget(context: Context) -> Budget:
    budget = context.get(_BUDGET)
    assert isinstance(budget, Budget)
    return budget


def _require_digits(bits: int) -> None:
    if bits > 4 * _MOST_DIGITS:
        raise SecurityError(f"a number has more than {_MOST_DIGITS} digits")


def _require(size: int, most: int) -> None:
    if size > most:
        raise SecurityError(f"a text is longer than {most} characters")


def _make_environment() -> _Environment:
    environment = _Environment(undefined=jinja2.StrictUndefined, autoescape=False, finalize=_finalize)
    environment.globals = {name: environment.globals[name] for name in ("range", "namespace")}
    environment.filters = {name: _guarded(name, function) for name, function in environment.filters.items()}
    environment.filters |= {_COUNT: _count, _JOIN: _join, _MEASURE: _measure, _WEIGH: _weigh, _LOOK: _look}
    tests: dict[str, Any] = {**environment.tests}
    environment.tests = {name: _guarded(name, test, is_test=True) for name, test in tests.items()}
    return environment


_environment = _make_environment()
