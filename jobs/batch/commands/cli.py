"""`slurminfer batch` as typer reads it. Heavy imports stay inside of the commands."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

# Headings of the options.
_TO, _ASKED, _HOW = "Where requests go (one of --spec, --run and --endpoint)", "What is asked", "Which rows, and how"
_OUT, _JOB = "The output", "The driver as a job"
_Output = Annotated[Path, typer.Argument(metavar="OUTPUT", help="output of the batch")]


class BatchGroup(TyperGroup):
    """Commands of which `run` is the one that is meant where none is named: `slurminfer batch INPUT OUTPUT`.

    An input that has the name of a command is written as a path: `./status`.
    """

    default_command = "run"

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """What typer does, with `run` before what begins with no command."""
        if not args or args[0] not in self.commands:
            args = [self.default_command, *(args or ["--help"])]
        return super().make_context(info_name, args, *rest, **extra)


batch_app = typer.Typer(cls=BatchGroup, help="Generate an answer for every row of a dataset, each exactly once.")


@batch_app.command("run")
def batch_run(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="files, globs or directories: JSON Lines, Parquet, CSV, text, datasets"),
    ],
    output: Annotated[
        Path,
        typer.Argument(metavar="OUTPUT", help="file, whose name says its format, or directory; the name ends in /"),
    ],
    spec_path: Annotated[
        Path | None,
        typer.Option(
            "--spec", help="deployment spec to serve during the batch and stop afterwards", rich_help_panel=_TO
        ),
    ] = None,
    run_name: Annotated[
        str | None, typer.Option("--run", help="name of a running deployment to use", rich_help_panel=_TO)
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="URL of an OpenAI endpoint to use, such as http://HOST:PORT/v1", rich_help_panel=_TO),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="OPENAI_API_KEY", help="API key for --endpoint", rich_help_panel=_TO)
    ] = None,
    local: Annotated[
        bool,
        typer.Option("--local", help="serve --spec with processes of this machine, without Slurm", rich_help_panel=_TO),
    ] = False,
    prompt_column: Annotated[
        str | None, typer.Option(help="column whose text is a user's message", rich_help_panel=_ASKED)
    ] = None,
    messages_column: Annotated[
        str | None, typer.Option(help="column with a list of chat messages", rich_help_panel=_ASKED)
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT_OR_FILE",
            help="Jinja template that makes a user's message of a row's columns",
            rich_help_panel=_ASKED,
        ),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(metavar="TEXT_OR_FILE", help="system message before it; a Jinja template", rich_help_panel=_ASKED),
    ] = None,
    turn: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT_OR_FILE",
            help="a further user's message after the answer, a Jinja template; several times: in turn",
            rich_help_panel=_ASKED,
        ),
    ] = None,
    completions: Annotated[
        bool,
        typer.Option(
            "--completions", help="complete prompts as they are, without a chat template", rich_help_panel=_ASKED
        ),
    ] = False,
    schema: Annotated[
        Path | None, typer.Option(help="file with a JSON schema that answers must follow", rich_help_panel=_ASKED)
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="answers for each row", rich_help_panel=_ASKED)] = 1,
    model: Annotated[
        str | None,
        typer.Option(help="model to ask for; needed if the endpoint serves several", rich_help_panel=_ASKED),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="most tokens to generate, for rows that do not say", rich_help_panel=_ASKED),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0.0, help="sampling temperature, for rows that do not say", rich_help_panel=_ASKED),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="nucleus sampling, for rows that do not say", rich_help_panel=_ASKED),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="seed of the sampling, for rows that do not say", rich_help_panel=_ASKED)
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=JSON",
            help="another field of requests, for rows that do not say; may be given several times",
            rich_help_panel=_ASKED,
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="the first N rows only", rich_help_panel=_HOW)] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="N rows only, drawn from all of them", rich_help_panel=_HOW)
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="format of inputs whose names do not say: jsonl, text, csv, parquet, arrow", rich_help_panel=_HOW
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="requests in flight at a time; default: fitted to the workers", rich_help_panel=_HOW),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="show three prompts and predict the time; with --submit: print what would be submitted",
            rich_help_panel=_HOW,
        ),
    ] = False,
    output_format: Annotated[
        str | None,
        typer.Option(
            help="format of the output: jsonl, csv or parquet; default: as its name says", rich_help_panel=_OUT
        ),
    ] = None,
    rows_per_file: Annotated[
        int, typer.Option(min=1, help="least rows of each file in an output directory", rich_help_panel=_OUT)
    ] = 100_000,
    columns: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="columns of the input that are kept; default: all", rich_help_panel=_OUT),
    ] = None,
    answer_column: Annotated[
        str, typer.Option(help="column of the output with the answers", rich_help_panel=_OUT)
    ] = "generated_text",
    submit: Annotated[
        bool,
        typer.Option("--submit", help="work in a small Slurm job that is requeued, and return", rich_help_panel=_JOB),
    ] = False,
    array: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="with --submit: N such jobs that share the rows", rich_help_panel=_JOB),
    ] = None,
    job: Annotated[
        Path | None,
        typer.Option(help="TOML file of that job; default: what the deployment's router gets", rich_help_panel=_JOB),
    ] = None,
    partition: Annotated[str | None, typer.Option(help="partition of that job", rich_help_panel=_JOB)] = None,
    account: Annotated[str | None, typer.Option(help="account of that job", rich_help_panel=_JOB)] = None,
    qos: Annotated[str | None, typer.Option(help="QOS of that job", rich_help_panel=_JOB)] = None,
    time: Annotated[
        str | None, typer.Option(help="walltime limit of that job, after which it is requeued", rich_help_panel=_JOB)
    ] = None,
    mem: Annotated[str | None, typer.Option(help="memory of that job, such as 4G", rich_help_panel=_JOB)] = None,
) -> None:
    """Generate an answer for every row of the inputs, each exactly once. The same command again resumes a batch.

    OUTPUT has one row for each row of the inputs, in their order, with their columns.

    slurminfer batch status OUTPUT shows how far it is.

    slurminfer batch export OUTPUT writes what is done by now.

    slurminfer batch cancel OUTPUT ends it.
    """
    from . import options
    from .run import Job, run

    where = options.endpoint_choice(spec_path, run_name, endpoint, local)
    asked = options.parameters(
        prompt_column=prompt_column,
        messages_column=messages_column,
        template=template,
        system=system,
        turns=turn or (),
        schema=schema,
        sampling={"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed},
        params=param or (),
        completions=completions,
        samples=samples,
        model=model,
        answer_column=answer_column,
    )
    of_job = {"partition": partition, "account": account, "qos": qos, "time": time, "mem": mem}
    driver = Job(wanted=submit, drivers=array, file=job, options=of_job)
    batch = options.batch(
        inputs, output, where, asked,
        format=format, limit=limit, sample=sample, concurrency=concurrency,
        output_format=output_format, rows_per_file=rows_per_file, columns=columns,
    )  # fmt: skip
    if run(batch, driver, api_key, dry_run=dry_run):
        raise typer.Exit(1)


@batch_app.command("status")
def batch_status(
    output: _Output,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Show how far a batch is: rows, tokens, its drivers and their jobs. From any node, while it runs or afterwards."""
    from .status import print_status

    print_status(output, as_json)


@batch_app.command("export")
def batch_export(
    output: _Output,
    to: Annotated[
        Path | None, typer.Argument(metavar="TO", help="file or directory to write; default: OUTPUT with .partial")
    ] = None,
) -> None:
    """Write what is done by now as an output of its own, while the batch runs or afterwards."""
    from .export import export

    export(output, to)


@batch_app.command("cancel")
def batch_cancel(output: _Output) -> None:
    """End the jobs that --submit has started, and the deployment that the batch serves. What is done is kept."""
    from .cancel import cancel

    cancel(output)
