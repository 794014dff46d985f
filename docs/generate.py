"""Write the generated reference pages: reference/spec.md from core/spec/, reference/commands.md from cli.py,
reference/api-fields.md from nodes/native/api/requests/fields.py, reference/responses-fields.md from
router/relay/surfaces/responses/fields.py, reference/failures.md from slurm/ and nodes/engines/failures/.

python docs/generate.py            write them
python docs/generate.py --check    exit with 1 if they are not what the code says
"""

import ast
import html
import inspect
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import inspect as types

from slurminfer.core.logs.failures import KnownFailure
from slurminfer.core.spec.deployment import DeploymentSpec
from slurminfer.core.spec.job import JobSpec
from slurminfer.core.spec.model import ModelSpec, SpeculativeSpec
from slurminfer.core.spec.pool import PoolSpec
from slurminfer.core.spec.router import RouterSpec, RuleSpec
from slurminfer.nodes.engines.failures import containers, engines, gpu, machine, model
from slurminfer.nodes.native.api.requests import fields as api
from slurminfer.router.relay.surfaces.responses import fields as responses
from slurminfer.slurm import failures as slurm
from slurminfer.slurm.reasons import REASONS

REFERENCE = Path(__file__).parent / "reference"
# Headings of the page, and the types behind them.
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "Top level": DeploymentSpec,
    "`[model]`": ModelSpec,
    "`[[pool]]`": PoolSpec,
    "`[router]`": RouterSpec,
    "`[[router.rule]]`": RuleSpec,
    "`[speculative]`": SpeculativeSpec,
    "The file of a single job": JobSpec,
}
_SPEC_HEAD = """\
# Spec reference

*Generated from `core/spec/` by `make docs`; do not edit.*

A spec is a TOML file that describes one deployment. `slurminfer serve` and `slurminfer batch --spec` read it. A key
that is not listed here is an error, and the message lists the keys that are valid. `slurminfer serve SPEC --dry-run`
checks the file and prints the jobs that would be submitted.
"""
_COMMANDS_HEAD = """\
# Commands

*Generated from `src/slurminfer/cli.py` by `make docs`; do not edit.*

Every command exits with 0 when it has done what it was asked, with 1 when it failed, and with 2 when the command line
makes no sense. Errors are one line on stderr; where the command line makes no sense, two more lines say how the command
is called.

`slurminfer --version` prints the version, the folder that it was started from, and the version of Python. Every command
has `--help`, or `-h`.
"""
_API_HEAD = """\
# Fields of requests

*Generated from `nodes/native/api/requests/fields.py` by `make docs`; do not edit.*

What the native engine does with each field of a request to `/v1/chat/completions`, `/v1/completions` and
`/v1/embeddings`: those of OpenAI, vLLM and SGLang, and some of other engines. A field that is null counts as absent.
[The API of the native engine](../engine/api.md) explains more. If the engine is SGLang or vLLM, the router passes all
fields on.
"""
_RESPONSES_HEAD = """\
# Fields of /v1/responses

*Generated from `router/relay/surfaces/responses/fields.py` by `make docs`; do not edit.*

What the router does with each field of a request to [/v1/responses](../guide/responses.md). A field that is null counts
as absent. Fields that are not in these tables, such as `top_k` or `chat_template_kwargs`, go to the engine unchanged.
"""
_RESPONSES_REFUSED = """\
The request gets a 400 that names the field, unless the field is null, false or empty.
"""
_RESPONSES_RENAMED = """\
These are fields of chat completions. They get a 400 that says what to use.
"""
_FAILURES_HEAD = """\
# Failures that are explained

*Generated from `slurm/` and `nodes/engines/failures/` by `make docs`; do not edit.*

`slurminfer status`, `slurminfer logs` and `slurminfer serve --wait` know these by what Slurm and the engines write. For
each job that has ended they show what has happened, the line that shows it, and what to change. Of another failure they
show the first exception in the logs of all ranks. Sections and keys are those of the [spec](spec.md).
"""
_NEVER_TEXT = """\
`serve --wait` fails at once, with exit code 1, where the router's job or all workers wait for one of these.
"""
_OBEYED_TEXT = """\
*Chat* is `/v1/chat/completions`, *completions* is `/v1/completions`.
"""
_EMBEDDINGS_TEXT = """\
Other fields of this page get a 400, unless they are null, false, 0 or empty, or among the ignored ones.
"""
_REFUSED_TEXT = """\
These would change the answer and are not implemented. With any value but those of the second column, which change
nothing, the request gets a 400 that names the field.
"""
_IGNORED_TEXT = """\
These cannot change the answer. Fields that are in no table are ignored too, unless the name is nearly that of a field
above, such as `temprature`: that is a 400.
"""


def main() -> int:
    """Write or check the pages."""
    pages = {
        REFERENCE / "spec.md": spec_page(),
        REFERENCE / "commands.md": commands_page(),
        REFERENCE / "api-fields.md": api_fields_page(),
        REFERENCE / "responses-fields.md": responses_fields_page(),
        REFERENCE / "failures.md": failures_page(),
    }
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path} is not what the code says: run 'make docs'", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages[path], encoding="utf-8")
    return 0


# ---- the spec


def spec_page() -> str:
    """A table of keys for each section."""
    return "\n".join([_SPEC_HEAD, *(line for name, kind in SECTIONS.items() for line in _section(name, kind))])


def _section(name: str, kind: type[msgspec.Struct]) -> Iterator[str]:
    yield f"## {name}\n"
    yield f"{_sentence(_paragraph(kind.__doc__ or '').removeprefix(f'{name}: '))}\n"
    yield "| key | value | default | |"
    yield "|---|---|---|---|"
    explained = explanations(kind)
    described = types.type_info(kind)
    assert isinstance(described, types.StructType)
    inherited = set().union(*(getattr(base, "__struct_fields__", ()) for base in kind.__bases__))
    for field in sorted(described.fields, key=lambda field: field.name in inherited):
        cells = (f"`{field.name}`", value_of(field.type), _default(field), explained.get(field.name, ""))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def value_of(kind: types.Type) -> str:
    """What may stand behind the key, in words."""
    match kind:
        case types.LiteralType():
            return " or ".join(f'`"{value}"`' for value in sorted(kind.values, key=str))
        case types.IntType():
            return ", ".join(["integer", *_bounds(kind)])
        case types.FloatType():
            return ", ".join(["number", *_bounds(kind)])
        case types.StrType():
            return "string"
        case types.BoolType():
            return "true or false"
        case types.VarTupleType():
            return _tables(kind.item_type) or f"list of {value_of(kind.item_type)}s"
        case types.DictType():
            return f"table; each value: {value_of(kind.value_type)}"
        case types.StructType():
            return "table"
        case types.UnionType():
            return " or ".join(value_of(one) for one in kind.types if not isinstance(one, types.NoneType))
    raise TypeError(f"no words for {kind}")


def _bounds(kind: types.IntType | types.FloatType) -> Iterator[str]:
    if kind.ge is not None:
        yield f"at least {kind.ge}"
    if kind.gt is not None:
        yield f"more than {kind.gt}"
    if kind.le is not None:
        yield f"at most {kind.le}"


def _tables(kind: types.Type) -> str | None:
    """What a list of sections is; None for another list."""
    if not isinstance(kind, types.StructType):
        return None
    heading = next(heading for heading, section in SECTIONS.items() if section is kind.cls)
    return "one or more `[[pool]]`" if kind.cls is PoolSpec else f"any number of {heading}"


def _default(field: types.Field) -> str:
    if field.required:
        return "required"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if value is None or isinstance(value, msgspec.Struct) or value in ("", (), {}):
        return ""
    return f"`{msgspec.json.encode(value).decode()}`"


def explanations(kind: type[msgspec.Struct]) -> dict[str, str]:
    """What the comments above and behind each key say, inherited keys included."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("slurminfer."):
            found |= _own_explanations(base)
    return found


def _own_explanations(kind: type) -> dict[str, str]:
    """The same without inherited keys."""
    source = Path(inspect.getfile(kind)).read_text(encoding="utf-8")
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    module = ast.parse(source)
    own = {line.lineno for line in ast.walk(module) if isinstance(line, ast.stmt)}
    [section] = [node for node in module.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__]
    found: dict[str, str] = {}
    for node in section.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above = node.lineno - 1
            while above in comments and above not in own:
                above -= 1
            lines = [*range(above + 1, node.lineno), *range(node.lineno, (node.end_lineno or node.lineno) + 1)]
            found[node.target.id] = _sentence(" ".join(comments[line] for line in lines if line in comments))
    return found


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return f"{text[:1].upper()}{text[1:]}" + ("" if not text or text.endswith((".", "?", ":")) else ".")


def _paragraph(docstring: str) -> str:
    return " ".join(docstring.split())


# ---- the fields of requests


def api_fields_page() -> str:
    """A table for each of: obeyed, obeyed by embeddings, refused, harmless."""
    obeyed = [(name, _endpoint(rule.endpoint), rule.note) for name, rule in api.OBEYED.items()]
    embeddings = list(api.EMBEDDINGS_OBEYED.items())
    refused = [(name, _values(rule.nothing), rule.note) for name, rule in sorted(api.REFUSED.items())]
    harmless = [(name, note) for name, note in sorted(api.HARMLESS.items())]
    return "\n".join(
        [
            _API_HEAD,
            *_table("Obeyed", _OBEYED_TEXT, ("field", "in", "values"), obeyed),
            *_table("Obeyed by /v1/embeddings", _EMBEDDINGS_TEXT, ("field", "values"), embeddings),
            *_table("Refused", _REFUSED_TEXT, ("field", "values that are ignored", "what to do instead"), refused),
            *_table("Ignored", _IGNORED_TEXT, ("field", "why it cannot change the answer"), harmless),
        ]
    )


def responses_fields_page() -> str:
    """A table for each of: obeyed, ignored, refused, named differently."""
    return "\n".join(
        [
            _RESPONSES_HEAD,
            *_table("Obeyed", "", ("field", ""), list(responses.OBEYED.items())),
            *_table("Ignored", "", ("field", "why it cannot change the answer"), list(responses.IGNORED.items())),
            *_table("Refused", _RESPONSES_REFUSED, ("field", ""), list(responses.REFUSED.items())),
            *_table("Other names", _RESPONSES_RENAMED, ("field", "here"), list(responses.RENAMED.items())),
        ]
    )


def _table(title: str, text: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield f"## {title}\n"
    if text:
        yield text
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for name, *cells in rows:
        yield f"| {' | '.join([f'`{name}`', *cells])} |"
    yield ""


def _endpoint(path: str | None) -> str:
    return "chat, completions" if path is None else {api.CHAT: "chat", api.COMPLETIONS: "completions"}[path]


def _values(nothing: Sequence[object]) -> str:
    if tuple(nothing) == api.NOTHING:
        return "null, false, 0 or empty"
    extra = [value for value in nothing if value not in api.NOTHING or value is True]
    words = ["null, false, 0 or empty" if len(nothing) > len(extra) + 1 else "null"]
    return " or ".join(words + [f"`{msgspec.json.encode(value).decode()}`" for value in extra])


# ---- failures


def failures_page() -> str:
    """Tables of what is known: jobs that wait, jobs that Slurm ended, and what programs write into logs."""
    never = [(reason.words, reason.advice) for reason in REASONS if reason.never_ends]
    waits = [(reason.words, reason.advice) for reason in REASONS if not reason.never_ends]
    states = [(f"`{state}`", found.cause, found.advice) for state, found in slurm.STATES.items()]
    waiting, what = ("the job waits because", "what to change"), ("what has happened", "what to change")
    return "\n".join(
        [
            _FAILURES_HEAD,
            *_plain_table("Jobs that never start as they are", _NEVER_TEXT, waiting, never),
            *_plain_table("Jobs that only have to wait", "", waiting, waits),
            *_plain_table("Jobs that Slurm has ended", "", ("state", *what), states),
            *_plain_table("Jobs that did not run", "", what, _known((*slurm.REASONS, *slurm.LOGS))),
            *_plain_table("The node and its software", "", what, _known(machine.MACHINE)),
            *_plain_table("Containers of Apptainer", "", what, _known(containers.CONTAINERS)),
            *_plain_table("GPUs and the network between ranks", "", what, _known(gpu.GPU)),
            *_plain_table("The model", "", what, _known(model.MODEL)),
            *_plain_table("SGLang", "", what, _known(engines.SGLANG)),
            *_plain_table("vLLM", "", what, _known(engines.VLLM)),
        ]
    )


def _known(table: Sequence[KnownFailure]) -> list[tuple[str, str]]:
    """Cause and advice of each; what a log would fill in is `...`."""
    rows = [(re.sub(r"(\{\w+\})+", "...", row.cause), row.advice) for row in table]
    return list(dict.fromkeys(rows))


def _plain_table(title: str, text: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield f"## {title}\n"
    if text:
        yield text
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for cells in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


# ---- the commands


def commands_page() -> str:
    """What typer says of every command."""
    words = [sys.executable, "-m", "typer", "slurminfer.cli", "utils", "docs", "--name", "slurminfer"]
    told = subprocess.run(words, capture_output=True, encoding="utf-8", check=True).stdout
    _, _, commands = html.unescape(told).partition("\n## ")
    # typer leaves out the argument of a group where it shows how the group's commands are called.
    commands = re.sub(r"^\$ slurminfer keys (?=[a-z])", "$ slurminfer keys NAME ", commands, flags=re.MULTILINE)
    commands = re.sub(r"^\$ slurminfer batch run ", "$ slurminfer batch ", commands, flags=re.MULTILINE)
    commands = re.sub(r"^\$ .*", lambda call: re.sub(r"[{}]", "", call[0]), commands, flags=re.MULTILINE)
    # Lists of a group's commands, cut off after some words: each has a section below. --help is the same everywhere.
    commands = re.sub(r"^\*\*Commands\*\*:\n\n(?:\* .*\n)+\n?", "", commands, flags=re.MULTILINE)
    commands = re.sub(r"^\* `--help`.*\n", "", commands, flags=re.MULTILINE)
    commands = re.sub(r"^\*\*Options\*\*:\n\n(?!\* )", "", commands, flags=re.MULTILINE)
    commands = re.sub(r"\n{3,}", "\n\n", commands)
    return f"{_COMMANDS_HEAD}\n## {commands.rstrip()}\n"


if __name__ == "__main__":
    sys.exit(main())
