"""From the command line of `slurminfer batch` to a batch. Every error names the option, the value and what is valid."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ....core.errors import UsageError
from ....core.rundir import RunDirectory
from ....core.spec.check_job import check_section
from ....core.spec.deployment import DeploymentSpec
from ....core.spec.files import dump_spec, load_job, parse_spec
from ....core.spec.job import JobSection, JobSpec
from ...serve.spec import read_spec
from ..batch import Batch, EndpointChoice
from ..driver.address import check_url
from ..outputs.export import OutputOptions
from ..parameters import Parameters

# Fields of a request that have an option of their own, or that the batch itself sets.
_OWN_FIELDS = {
    "model": "--model", "max_tokens": "--max-tokens", "temperature": "--temperature", "top_p": "--top-p",
    "seed": "--seed", "n": "--samples", "messages": "--messages-column", "prompt": "--prompt-column",
    "response_format": "--schema",
}  # fmt: skip
_UNUSABLE_FIELDS = ("stream", "stream_options")  # a batch takes whole answers
_PARAM = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)", re.DOTALL)
DRIVER_TIME = "04:00:00"  # of a driver's job for an endpoint that no spec tells of


def endpoint_choice(spec: Path | None, run: str | None, url: str | None, local: bool) -> EndpointChoice:
    """Where requests go. Raises UsageError, SpecError, RunNotFoundError."""
    text = None if spec is None else dump_spec(read_spec(spec))
    choice = EndpointChoice(spec=text, run=run, url=url, local=local)
    if run is not None:
        RunDirectory.existing(run)
    if url is not None:
        check_url(url)
    return choice


def parameters(
    *,
    prompt_column: str | None,
    messages_column: str | None,
    template: str | None,
    system: str | None,
    turns: Sequence[str],
    schema: Path | None,
    sampling: Mapping[str, Any],
    params: Sequence[str],
    **others: Any,
) -> Parameters:
    """What is asked for.

    Args:
        prompt_column: by its name; None where it was not given, as with all that may be None.
        messages_column: likewise.
        template: text or file; so are `system` and each of `turns`.
        schema: file of a JSON schema.
        sampling: fields of requests that have options of their own; None where they were not given.
        params: NAME=JSON.
        others: further fields of `Parameters`.

    Raises UsageError.
    """
    ways = {"prompt-column": prompt_column, "messages-column": messages_column, "template": template}
    given = [f"--{name}" for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)}: expected one of them, since each says what a row asks for")
    own = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in sampling.items() if value is not None}
    return Parameters(
        prompt_column=prompt_column,
        messages_column=messages_column,
        template=None if template is None else _template(template),
        system=None if system is None else text_or_file("--system", system),
        turns=tuple(text_or_file("--turn", turn) for turn in turns),
        schema=None if schema is None else _schema(schema),
        sampling={**own, **dict(map(_param, params))},
        **{name: value for name, value in others.items() if value is not None},
    )


def batch(
    inputs: Sequence[str],
    output: Path,
    endpoint: EndpointChoice,
    asked: Parameters,
    *,
    limit: int | None,
    sample: int | None,
    output_format: str | None,
    rows_per_file: int,
    columns: str | None,
    **others: Any,
) -> Batch:
    """All of it.

    Args:
        inputs: files, globs and directories.
        output: file or folder.
        endpoint: where requests go.
        asked: what is asked for.
        limit: the first rows only; not with `sample`.
        sample: some rows only.
        output_format: of the output, None where its name says it.
        rows_per_file: in an output folder.
        columns: of the input that are kept, with commas; None: all.
        others: further fields of `Batch`.

    Raises UsageError.
    """
    if limit is not None and sample is not None:
        raise UsageError(f"--limit {limit} --sample {sample}: expected one of them")
    kept = None if columns is None else tuple(name.strip() for name in columns.split(",") if name.strip())
    return Batch(
        inputs=tuple(os.path.join(os.getcwd(), each) for each in inputs),
        output=OutputOptions(path=output.absolute(), format=output_format, rows_per_file=rows_per_file, columns=kept),
        endpoint=endpoint,
        parameters=asked,
        limit=limit,
        sample=sample,
        **others,
    )


def text_or_file(option: str, value: str) -> str:
    """The text of a file where there is one of this name, else the value. Raises UsageError."""
    if not os.path.isfile(value):
        return value
    try:
        return Path(value).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option} {value}: the file cannot be read as UTF-8 text: {error}") from error


def driver_section(
    choice: EndpointChoice, file: Path | None, *, qos: str | None = None, **given: str | None
) -> JobSpec:
    """What the driver's job gets: of the file, else what the deployment's router gets; and what options say.

    Args:
        choice: where requests go.
        file: TOML file of a single job; None: there is none.
        qos: QOS of the job.
        given: `partition`, `account`, `time`, `mem` as options.

    Raises UsageError, SpecError.
    """
    section = load_job(file) if file is not None else _as_router(choice)
    if section.nodes != 1 or section.gpus_per_node:
        raise UsageError(f"--job {file}: nodes = 1 and gpus_per_node = 0 expected, since a driver computes nothing")
    changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if qos is not None:
        changed["slurm"] = {**section.slurm, "qos": qos}
    found = msgspec.structs.replace(section, **changed)
    check_section("", found)
    return found


def _as_router(choice: EndpointChoice) -> JobSpec:
    spec = spec_of(choice)
    if spec is None:
        return JobSpec(time=DRIVER_TIME)
    router: JobSection = spec.router
    return JobSpec(
        partition=router.partition,
        account=router.account,
        setup=router.setup,
        slurm=router.slurm,
        time=_minutes(spec.router_time_s),
    )


def spec_of(choice: EndpointChoice) -> DeploymentSpec | None:
    """The spec of the deployment that a batch goes through; None for an endpoint of somebody else."""
    if choice.spec is not None:
        return parse_spec(choice.spec)
    return None if choice.run is None else RunDirectory.existing(choice.run).read_spec()


def _minutes(seconds: int) -> str:
    return str(max(1, seconds // 60))


def _template(value: str) -> str:
    text = text_or_file("--template", value)
    if "{{" not in text and "{%" not in text:
        raise UsageError(
            f"--template {value!r}: expected a file, or a text that names columns, such as 'Translate: {{{{ text }}}}'"
        )
    return text


def _schema(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        raise UsageError(f"--schema {path}: expected a file with a JSON schema: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--schema {path}: expected a file with a JSON schema, which is JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f'--schema {path}: expected a JSON schema, which is an object such as {{"type": "object"}}')
    return text


def _param(given: str) -> tuple[str, msgspec.Raw]:
    found = _PARAM.fullmatch(given)
    if found is None:
        raise UsageError(f"--param {given!r}: expected NAME=JSON, such as top_k=20 or 'stop=[\"\\n\"]'")
    name, text = found["name"], found["value"]
    if name in _OWN_FIELDS:
        raise UsageError(f"--param {given!r}: say it with {_OWN_FIELDS[name]}")
    if name in _UNUSABLE_FIELDS:
        raise UsageError(f"--param {given!r}: a batch takes whole answers; leave it out")
    try:
        return name, msgspec.Raw(msgspec.json.encode(msgspec.json.decode(text)))
    except (msgspec.MsgspecError, ValueError) as error:
        raise UsageError(
            f"--param {given!r}: {text!r} is not JSON ({error}); a string is written '\"text\"'"
        ) from error
