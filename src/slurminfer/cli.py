"""The command line. It reads arguments and prints; what the commands do is in jobs/. Heavy imports stay inside."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .core.errors import SlurminferError, UsageError
from .core.machine.libraries import prepare

app = typer.Typer(
    help="LLM inference on Slurm clusters, GPU and pure CPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="Models in the cache.", no_args_is_help=True)
sandbox_app = typer.Typer(help="A real Slurm of several nodes on this Debian machine (root).", no_args_is_help=True)
bench_app = typer.Typer(help="How fast things are on this machine.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")
app.add_typer(models_app, name="models")
app.add_typer(sandbox_app, name="sandbox")

Name = Annotated[str, typer.Argument(help="name of the deployment")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Local = Annotated[bool, typer.Option("--local", help="as processes of this machine, without Slurm")]
SandboxDirectory = Annotated[Path | None, typer.Option("--dir", help="where the sandbox lives")]


@app.command()
def serve(
    spec_path: Annotated[Path, typer.Argument(metavar="SPEC", help="deployment spec, a TOML file")],
    local: Local = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print exactly what would be submitted")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="return when the endpoint answers")] = False,
    name: Annotated[str | None, typer.Option(help="another name than the spec's")] = None,
) -> None:
    """Start an endpoint: a router job and the worker jobs of a spec."""
    from .jobs.launch.launchers import launcher_here
    from .jobs.serve.deployment import start
    from .jobs.serve.requests import dry_run as shown
    from .jobs.serve.spec import read_spec
    from .jobs.serve.views import print_submitted, wait_until_ready

    spec = read_spec(spec_path, name)
    launcher = launcher_here(local)
    if dry_run:
        typer.echo(shown(spec, launcher), nl=False)
        return
    run = start(spec, launcher)
    print_submitted(run)
    if wait:
        wait_until_ready(run)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="name of the deployment; all if not given")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what is true of a deployment now."""
    from .core.rundir import RunDirectory, known_names
    from .jobs.serve.status import look
    from .jobs.serve.views import print_views

    names = [name] if name else known_names()
    print_views([look(RunDirectory.existing(each)) for each in names], as_json)


@app.command()
def logs(
    name: Name,
    role: Annotated[str | None, typer.Argument(help="'router' or the id of a worker; all if not given")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="of each file, from its end")] = 20,
) -> None:
    """Show the logs of a deployment's jobs."""
    from .core.rundir import RunDirectory
    from .jobs.serve.logs import last_lines, log_files

    for path in log_files(RunDirectory.existing(name), role):
        typer.secho(f"==> {path} <==", bold=True)
        for line in last_lines(path, lines):
            typer.echo(line)


@app.command()
def stop(name: Name) -> None:
    """End all jobs of a deployment."""
    from .core.rundir import RunDirectory
    from .jobs.serve import deployment

    count = deployment.stop(RunDirectory.existing(name))
    typer.echo(f"'{name}' stopped: {count} jobs ended" if count else f"'{name}' was stopped already")


@app.command()
def batch(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="JSONL: prompts, messages or OpenAI batch lines")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="JSONL: one line a result, appended")],
    spec_path: Annotated[Path | None, typer.Option("--spec", help="serve this spec meanwhile, then stop it")] = None,
    run_name: Annotated[str | None, typer.Option("--run", help="use this running deployment")] = None,
    endpoint: Annotated[str | None, typer.Option(help="use this OpenAI endpoint, such as http://HOST:PORT/v1")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="key of --endpoint")] = None,
    local: Local = False,
    model: Annotated[str | None, typer.Option(help="which model, where the endpoint serves several")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="where the line does not say")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="where the line does not say")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="requests at once; by default fitted")] = None,
) -> None:
    """Generate for every line of INPUT, each exactly once. Started again, it goes on where it was."""
    from .jobs.batch import command as batch_command

    where = batch_command.EndpointChoice(spec=spec_path, run=run_name, endpoint=endpoint, key=api_key, local=local)
    failed = batch_command.run(
        source, output, where, model=model, max_tokens=max_tokens, temperature=temperature, concurrency=concurrency
    )
    if failed:
        raise typer.Exit(1)


@app.command()
def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="what to quantize: as in a spec's model.path")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="directory to make; unfinished work is gone on with")],
    spec_path: Annotated[
        Path | None, typer.Option("--spec", help="do it as a Slurm job that this file describes")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print exactly what would be submitted")] = False,
    backend: Annotated[str, typer.Option(help="native, or autoawq (after 'make legacy')")] = "native",
    group_size: Annotated[int | None, typer.Option(help="32, 64 or 128; by default the largest that fits")] = None,
    calibration: Annotated[str | None, typer.Option(help="c4, wiki, tiny, or a .txt or .jsonl file")] = None,
    samples: Annotated[int | None, typer.Option(help="sequences to calibrate on")] = None,
    sample_length: Annotated[int | None, typer.Option(help="tokens in each")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda")] = None,
    threads: Annotated[int | None, typer.Option(help="by default the CPUs that the job has")] = None,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="measure the result beside the original")] = False,
    text: Annotated[str, typer.Option(help="to evaluate on: wiki, c4, tiny, or a file")] = "wiki",
) -> None:
    """Quantize MODEL to 4 bits with AWQ. Interrupted or killed, the same command goes on where it was."""
    from .jobs.quantize import command as quantize_command

    options = {
        "group_size": group_size,
        "calibration": calibration,
        "samples": samples,
        "sample_length": sample_length,
        "device": device,
        "threads": threads,
    }
    given = {name: value for name, value in options.items() if value is not None}
    quantize_command.quantize(model, out, backend, given, spec_path, dry_run, text if evaluate else None)


@app.command()
def evaluate(
    quantized: Annotated[str, typer.Argument(metavar="QUANTIZED", help="directory of a quantized model")],
    against: Annotated[str, typer.Option(help="the model that it was made of")],
    text: Annotated[str | None, typer.Option(help="wiki (default), c4, tiny, or a .txt or .jsonl file")] = None,
    windows: Annotated[int | None, typer.Option(min=1, help="pieces of the text to measure perplexity on")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a quantized model beside its original: perplexity, speed, memory. Writes QUANTIZED/evaluation.png."""
    from .jobs.evaluate import command

    command.run(quantized, against, text, windows, as_json)


@bench_app.command("engine")
def bench_engine(
    model: Annotated[str, typer.Argument(help="'demo', a directory, a GGUF file or a hub id")],
    batches: Annotated[str, typer.Option(help="sequences decoded at once")] = "1,8,64",
    contexts: Annotated[str, typer.Option(help="their tokens")] = "128,1024",
    prefills: Annotated[str, typer.Option(help="tokens of prompts")] = "512,2048",
    rate: Annotated[float | None, typer.Option(help="requests/s; by default half of what can be answered")] = None,
    requests: Annotated[int, typer.Option(min=1, help="requests that arrive at that rate")] = 32,
    threads: Annotated[int | None, typer.Option(min=1, help="by default the CPUs that the job has")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, bfloat16, float16 or float32")] = None,
    kernels: Annotated[str | None, typer.Option(help="auto, compiled, torch or exact")] = None,
    speculative: Annotated[str | None, typer.Option(help="none, ngram or draft")] = None,
    draft_model: Annotated[str | None, typer.Option(help="of --speculative draft")] = None,
    page: Annotated[Path | None, typer.Option(help="write a picture, FILE.png")] = None,
    out: Annotated[Path | None, typer.Option(help="write JSON, FILE.json")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the native engine: decode and prefill, latency under load, memory, share of the memory bandwidth."""
    from .jobs.bench.engine import command

    options = {
        "threads": threads, "dtype": dtype, "kernels": kernels, "speculative": speculative, "draft_model": draft_model,
    }  # fmt: skip
    command.run(
        model, options, batches=batches, contexts=contexts, prefills=prefills, rate=rate, requests=requests,
        page=page, out=out, as_json=as_json,
    )  # fmt: skip


@bench_app.command("comm")
def bench_comm(
    nodes: Annotated[
        int | None, typer.Option(min=1, help="submit a job of so many; inside a job: of its nodes")
    ] = None,
    ranks_per_node: Annotated[int | None, typer.Option(min=1, help="by default one for each GPU, else one")] = None,
    partition: Annotated[str | None, typer.Option(help="of the job")] = None,
    account: Annotated[str | None, typer.Option(help="of the job")] = None,
    gpus_per_node: Annotated[int | None, typer.Option(min=0, help="of the job")] = None,
    mem: Annotated[str | None, typer.Option(help="of the job, per node")] = None,
    time: Annotated[str | None, typer.Option(help="walltime limit of the job; by default 10 minutes")] = None,
    local: Local = False,
    ranks: Annotated[int | None, typer.Option(min=2, help="of --local; by default 2")] = None,
    backend: Annotated[str, typer.Option(help="auto (nccl where every rank has a GPU), gloo or nccl")] = "auto",
    sizes: Annotated[str | None, typer.Option(help="bytes of messages; by default 1K to 64M")] = None,
    seconds: Annotated[float, typer.Option(help="that each operation may take, about")] = 5.0,
    timeout: Annotated[float, typer.Option(help="seconds that ranks wait for one another")] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Measure all-reduce, all-gather and send/recv between nodes, and keep it in the site profile.

    Inside an allocation (salloc, sbatch) between its nodes; with --nodes as a job of its own.
    """
    from .jobs.bench.comm import command
    from .jobs.bench.comm.where import Asked

    asked = Asked(
        local=local, ranks=ranks, nodes=nodes, ranks_per_node=ranks_per_node, partition=partition,
        account=account, gpus_per_node=gpus_per_node, mem=mem, time=time,
    )  # fmt: skip
    command.run(asked, sizes, backend, seconds, timeout, as_json)


@models_app.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="'demo', a hub id or a GGUF file")],
    keep_quantized: Annotated[
        bool, typer.Option("--keep-quantized", help="of a GGUF file: as model.quantization = 'gguf' wants it")
    ] = False,
) -> None:
    """Fetch (and convert) a model into the cache, so that jobs find it there."""
    from .jobs.terminal.progress import model_progress
    from .quant.models import resolve

    with model_progress() as progress:
        directory = resolve(name, progress, "gguf" if keep_quantized else None)
    typer.echo(directory)


@sandbox_app.command("start")
def sandbox_start(
    directory: SandboxDirectory = None,
    nodes: Annotated[int, typer.Option(min=1, max=64)] = 4,
    real_gpus: Annotated[
        bool, typer.Option("--real-gpus", help="nodes share out this machine's GPUs; else each pretends to have 8")
    ] = False,
    install: Annotated[bool, typer.Option("--install", help="apt-get install what is missing")] = False,
) -> None:
    """Bring up munge, slurmctld, slurmdbd and the slurmds in a private directory."""
    from .jobs import sandbox

    sandbox.start(directory, nodes, real_gpus, install)


@sandbox_app.command("install")
def sandbox_install() -> None:
    """apt-get install what the sandbox needs; no service is started."""
    from .slurm.sandbox import install

    install()


@sandbox_app.command("stop")
def sandbox_stop(directory: SandboxDirectory = None) -> None:
    """End all its jobs and daemons."""
    from .jobs import sandbox

    sandbox.stop(directory)


@sandbox_app.command("status")
def sandbox_status(directory: SandboxDirectory = None, as_json: AsJson = False) -> None:
    """Show its daemons and nodes."""
    from .jobs import sandbox

    sandbox.status(directory, as_json)


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failed, 2 usage."""
    prepare()
    try:
        app()
    except SlurminferError as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        sys.exit(2 if isinstance(error, UsageError) else 1)
