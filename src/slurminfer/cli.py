"""The command line. It reads arguments and prints; what the commands do is in jobs/. Heavy imports stay inside."""

import platform
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__
from .core.errors import SlurminferError, UsageError
from .core.machine.libraries import prepare
from .core.processes.process import accept_any_text
from .jobs.batch.commands.cli import batch_app

# The panels of `slurminfer --help`, in their order.
_ENDPOINTS, _BATCHES, _MODELS, _CLUSTER = "Endpoints", "Batches", "Models", "The cluster"
_PANELS = (_ENDPOINTS, _BATCHES, _MODELS, _CLUSTER)


class _Commands(TyperGroup):
    """All commands, in the order of their panels."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: _PANELS.index(self._panel(name)))

    def _panel(self, name: str) -> str:
        panel: str = self.commands[name].rich_help_panel  # type: ignore[attr-defined]
        return panel


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="Manage the models in the cache.", no_args_is_help=True)
texts_app = typer.Typer(
    help="Manage the texts that quantized models are calibrated and evaluated on.", no_args_is_help=True
)
sandbox_app = typer.Typer(
    help="Run a real Slurm of several nodes on this Debian machine, as root.", no_args_is_help=True
)
keys_app = typer.Typer(no_args_is_help=True)
bench_app = typer.Typer(help="Measure the native engine and the network between nodes.", no_args_is_help=True)
app.add_typer(keys_app, name="keys", rich_help_panel=_ENDPOINTS)
app.add_typer(batch_app, name="batch", rich_help_panel=_BATCHES)
app.add_typer(models_app, name="models", rich_help_panel=_MODELS)
app.add_typer(texts_app, name="texts", rich_help_panel=_MODELS)
app.add_typer(bench_app, name="bench", rich_help_panel=_CLUSTER)
app.add_typer(sandbox_app, name="sandbox", rich_help_panel=_CLUSTER)

Name = Annotated[str, typer.Argument(metavar="NAME", help="name of the deployment")]
Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="name of the tenant")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Local = Annotated[bool, typer.Option("--local", help="start processes of this machine instead of Slurm jobs")]
SandboxDirectory = Annotated[
    Path | None, typer.Option("--dir", help="directory of the sandbox; default: /var/tmp/slurminfer-sandbox")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        where = Path(__file__).parent
        typer.echo(f"slurminfer {__version__} from {where} (Python {platform.python_version()})")
        raise typer.Exit


@app.callback()
def slurminfer(
    version: Annotated[
        bool, typer.Option("--version", "-V", is_eager=True, callback=_print_version, help="print the version")
    ] = False,
) -> None:
    """LLM inference on Slurm clusters, GPU and pure CPU.

    An endpoint: slurminfer serve SPEC --wait

    A dataset: slurminfer batch INPUT OUTPUT --spec SPEC

    Without Slurm, add --local. How to begin is in docs/guide/quickstart.md.
    """


@app.command(rich_help_panel=_ENDPOINTS)
def serve(
    spec_path: Annotated[Path, typer.Argument(metavar="SPEC", help="deployment spec, a TOML file")],
    local: Local = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print exactly what would be submitted, and submit nothing")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="wait until the endpoint answers, then return")] = False,
    name: Annotated[str | None, typer.Option(help="name of the deployment; default: the name in the spec")] = None,
) -> None:
    """Start an endpoint: a router job and the worker jobs of a spec."""
    from .core.errors import EngineError
    from .jobs.launch.launchers import launcher_here
    from .jobs.serve.deployment import start
    from .jobs.serve.requests import dry_run as rendered
    from .jobs.serve.spec import read_spec
    from .jobs.serve.status.views import print_site_remarks, print_submitted, wait_until_ready

    spec = read_spec(spec_path, name)
    launcher = launcher_here(local, submits=not dry_run)
    if launcher.name == "slurm":
        print_site_remarks(spec)
    if dry_run:
        for text in rendered(spec, launcher):
            typer.echo(text, nl=False)
        return
    run = start(spec, launcher)
    print_submitted(run)
    if wait:
        try:
            wait_until_ready(run)
        except EngineError as error:
            raise EngineError(f"{error}; 'slurminfer stop {run.path.name}' ends what still runs") from error


@app.command(rich_help_panel=_ENDPOINTS)
def status(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="name of the deployment; default: all deployments")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the current state of deployments, their jobs and their workers."""
    from .core.rundir import RunDirectory, known_names
    from .jobs.serve.status.status import look
    from .jobs.serve.status.views import print_views

    names = [name] if name else known_names()
    print_views([look(RunDirectory.existing(each)) for each in names], as_json)


@app.command(rich_help_panel=_ENDPOINTS)
def logs(
    name: Name,
    role: Annotated[
        str | None, typer.Argument(metavar="WHO", help="'router' or the name of a worker; default: all of them")
    ] = None,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, help="lines to show from the end of each log file")
    ] = 20,
) -> None:
    """Show the logs of a deployment's jobs; last, why those have failed that have, and what to change."""
    from .core.rundir import RunDirectory
    from .jobs.serve.logs import last_lines, log_files
    from .jobs.serve.status.views import print_failures
    from .jobs.terminal.text import shown

    run = RunDirectory.existing(name)
    for path in log_files(run, role):
        typer.secho(shown(f"==> {path} <=="), bold=True)
        for line in last_lines(path, lines):
            typer.echo(shown(line))
    print_failures(run, role)


@app.command(rich_help_panel=_ENDPOINTS)
def stop(
    name: Name,
    force: Annotated[
        bool, typer.Option("--force", help="if its files are damaged: end the jobs that are found, forget the rest")
    ] = False,
) -> None:
    """End all jobs of a deployment."""
    from .core.rundir import RunDirectory
    from .jobs.serve import deployment

    count = deployment.stop(RunDirectory.existing(name), force)
    jobs = "1 job" if count == 1 else f"{count} jobs"
    typer.echo(f"'{name}' was stopped already" if count is None else f"'{name}' stopped: {jobs} ended")


@app.command(rich_help_panel=_ENDPOINTS)
def scale(
    name: Name,
    pool: Annotated[str, typer.Argument(metavar="POOL", help="name of the pool")],
    number: Annotated[str, typer.Argument(metavar="N", help="workers that it shall have, or 'auto': as the spec says")],
) -> None:
    """Change the number of a pool's workers while the deployment runs."""
    from .core.rundir import RunDirectory
    from .jobs.fleet import scale as fleet_scale

    typer.echo(fleet_scale.scale(RunDirectory.existing(name), pool, number))


@app.command(rich_help_panel=_ENDPOINTS)
def receipt(name: Name, as_json: AsJson = False) -> None:
    """Show what a deployment has used, running or stopped: hours, tokens, cost, energy."""
    from .core.rundir import RunDirectory
    from .jobs.receipt.page import print_receipt

    print_receipt(RunDirectory.existing(name), as_json)


@app.command(rich_help_panel=_ENDPOINTS)
def tunnel(
    name: Name,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="USER@LOGIN[:PORT]",
            help="login node to go through, by your own ssh; default: connect from this machine",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="local port; default: one that this tunnel always has"),
    ] = None,
    remote: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="how slurminfer is called on the login node; default: slurminfer"),
    ] = None,
    as_text: Annotated[
        bool, typer.Option("--print", help="only print a plain ssh command for the router of now, and the variables")
    ] = False,
) -> None:
    """Open a local port that leads to a deployment's router, wherever that moves, until Ctrl-C."""
    from .jobs.tunnel import command

    command.run(name, to, remote, port, as_text)


@app.command(rich_help_panel=_ENDPOINTS)
def endpoint(
    name: Name,
    follow: Annotated[
        bool, typer.Option("--follow", help="print it again when it changes, until standard input ends")
    ] = False,
    with_key: Annotated[bool, typer.Option("--with-key", help="print the API key too")] = False,
) -> None:
    """Print as JSON where a deployment's router is. For programs, such as the tunnel of another machine."""
    from .core.rundir import RunDirectory
    from .jobs.tunnel import announce
    from .jobs.tunnel.view import EndpointReader

    reader = EndpointReader(RunDirectory.existing(name), with_key=with_key)
    if follow:
        announce.follow(reader)
    else:
        announce.print_once(reader)


@keys_app.callback()
def keys(context: typer.Context, name: Name) -> None:
    """Manage the API keys of a deployment's tenants, whether it runs or not."""
    context.obj = name


@keys_app.command("add")
def keys_add(
    context: typer.Context,
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="name of the tenant, such as a person or a project")],
    priority: Annotated[
        str, typer.Option(help="most urgent class that its requests may have: interactive, default or batch")
    ] = "default",
    requests_per_minute: Annotated[int | None, typer.Option(help="requests in any minute; default: no limit")] = None,
    tokens_per_day: Annotated[
        int | None, typer.Option(help="prompt and generated tokens in a day (UTC); default: no limit")
    ] = None,
    weight: Annotated[
        float, typer.Option(help="its share of the workers, relative to the others of its priority")
    ] = 1.0,
    account: Annotated[str | None, typer.Option(help="Slurm account that it belongs to; shown in reports")] = None,
) -> None:
    """Make a key for a new tenant and print it. It is not shown again."""
    from .core.rundir import RunDirectory
    from .jobs.serve.keys import print_new_key, require_tenants
    from .router.tenants.key_store import KeyStore

    run = RunDirectory.existing(context.obj)
    require_tenants(run)
    key = KeyStore(run).add(
        tenant, priority=priority, requests_per_minute=requests_per_minute, tokens_per_day=tokens_per_day,
        weight=weight, account=account,
    )  # fmt: skip
    print_new_key(run, key)


@keys_app.command("set")
def keys_set(
    context: typer.Context,
    tenant: Tenant,
    priority: Annotated[
        str | None, typer.Option(help="most urgent class that its requests may have: interactive, default or batch")
    ] = None,
    requests_per_minute: Annotated[
        str | None, typer.Option(metavar="N", help="requests in any minute; 'none': no limit")
    ] = None,
    tokens_per_day: Annotated[
        str | None, typer.Option(metavar="N", help="prompt and generated tokens in a day (UTC); 'none': no limit")
    ] = None,
    weight: Annotated[
        float | None, typer.Option(help="its share of the workers, relative to the others of its priority")
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="Slurm account that it belongs to; shown in reports; 'none': no account")
    ] = None,
) -> None:
    """Change what a tenant's key may do. What is not given stays as it is, and so does the key."""
    from .core.rundir import RunDirectory
    from .jobs.serve.keys import change_key, require_tenants

    run = RunDirectory.existing(context.obj)
    require_tenants(run)
    given = {
        "priority": priority, "weight": weight, "requests_per_minute": requests_per_minute,
        "tokens_per_day": tokens_per_day, "account": account,
    }  # fmt: skip
    change_key(run, tenant, given)


@keys_app.command("list")
def keys_list(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the tenants, their limits, and what they have used."""
    from .core.rundir import RunDirectory
    from .jobs.serve.keys import print_tenants

    print_tenants(RunDirectory.existing(context.obj), as_json)


@keys_app.command("revoke")
def keys_revoke(context: typer.Context, tenant: Tenant) -> None:
    """Make a tenant's key useless. What the tenant has used stays in the list."""
    from .core.rundir import RunDirectory
    from .router.tenants.key_store import KeyStore

    KeyStore(RunDirectory.existing(context.obj)).revoke(tenant)
    typer.echo(f"key of '{tenant}' revoked")


@app.command(rich_help_panel=_MODELS)
def quantize(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="model to quantize: 'demo', a directory, a GGUF file or a hub id")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="directory to create; unfinished work on it is resumed")],
    spec_path: Annotated[
        Path | None,
        typer.Option("--spec", help="TOML file of a Slurm job to run it in; default: run it in this process"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print exactly what would be submitted, and submit nothing")
    ] = False,
    backend: Annotated[
        str, typer.Option(help="implementation of AWQ: native, or autoawq (after 'make legacy')")
    ] = "native",
    group_size: Annotated[
        int | None, typer.Option(help="weights that share a scale: 32, 64 or 128; default: the largest that fits")
    ] = None,
    calibration: Annotated[
        str | None, typer.Option(help="text to calibrate on: c4, wiki, tiny, or a .txt or .jsonl file; default: c4")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="sequences to calibrate on; default: 128")] = None,
    sample_length: Annotated[int | None, typer.Option(help="tokens in each calibration sequence; default: 512")] = None,
    device: Annotated[str | None, typer.Option(help="device to compute on: auto, cpu or cuda; default: auto")] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; default: one for each core that the job has")
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="compare the result with the original afterwards")
    ] = False,
    text: Annotated[
        str | None, typer.Option(help="text for --evaluate: wiki, c4, tiny, or a .txt or .jsonl file; default: wiki")
    ] = None,
    windows: Annotated[
        int | None,
        typer.Option(min=1, help="windows of 256 tokens for --evaluate; default: 12, on fewer than 8 CPUs 4"),
    ] = None,
) -> None:
    """Quantize MODEL to 4 bits with AWQ. Run the same command again to resume interrupted work."""
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
    if not evaluate and (text or windows):
        raise UsageError("--text and --windows say how to --evaluate: give that too, or leave them out")
    evaluate_on = (text or "wiki") if evaluate else None
    quantize_command.quantize(model, out, backend, given, spec_path, dry_run, evaluate_on, windows)


@app.command(rich_help_panel=_MODELS)
def evaluate(
    quantized: Annotated[str, typer.Argument(metavar="QUANTIZED", help="directory of a quantized model")],
    against: Annotated[str, typer.Option(help="original model: 'demo', a directory, a GGUF file or a hub id")],
    text: Annotated[
        str | None, typer.Option(help="text to evaluate on: wiki, c4, tiny, or a .txt or .jsonl file; default: wiki")
    ] = None,
    windows: Annotated[
        int | None,
        typer.Option(min=1, help="windows of 256 tokens to measure perplexity on; default: 12, on fewer than 8 CPUs 4"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a quantized model with its original: perplexity, speed, memory. Writes QUANTIZED/evaluation.png."""
    from .jobs.evaluate import command

    command.run(quantized, against, text, windows, as_json)


@app.command(rich_help_panel=_CLUSTER)
def doctor(
    partition: Annotated[
        list[str] | None, typer.Option(help="partition to look at; may be given several times; default: all")
    ] = None,
    account: Annotated[str | None, typer.Option(help="account of the jobs")] = None,
    patience: Annotated[float, typer.Option(min=1.0, help="seconds that a job may wait for its start")] = 120.0,
    local: Annotated[bool, typer.Option("--local", help="look at this machine only, without Slurm jobs")] = False,
    as_json: AsJson = False,
) -> None:
    """Learn what the cluster gives to jobs, keep it in the site profile, and say what will not work.

    One small job of a few seconds runs in each partition. Ctrl-C cancels them. Without Slurm it looks at this machine.
    """
    from .jobs.doctor import command
    from .jobs.doctor.examine import Wish

    command.run(Wish(partitions=tuple(partition or ()), account=account, patience_s=patience), local, as_json)


@bench_app.command("engine")
def bench_engine(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="model to measure: 'demo', a directory, a GGUF file or a hub id")
    ],
    batches: Annotated[str, typer.Option(help="batch sizes to decode with, separated by commas")] = "1,8,64",
    contexts: Annotated[
        str, typer.Option(help="context lengths to decode at, in tokens, separated by commas")
    ] = "128,1024",
    prefills: Annotated[
        str, typer.Option(help="prompt lengths to prefill, in tokens, separated by commas")
    ] = "512,2048",
    rate: Annotated[
        float | None, typer.Option(help="requests/s for the latency under load; default: half of what can be answered")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="number of requests for the latency under load")] = 32,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: one for each core that the job has")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="compute dtype: auto, bfloat16, float16 or float32")] = None,
    kernels: Annotated[str | None, typer.Option(help="kernels to use: auto, compiled, torch or exact")] = None,
    speculative: Annotated[str | None, typer.Option(help="speculative decoding: none, ngram or draft")] = None,
    draft_model: Annotated[str | None, typer.Option(help="the smaller model for --speculative draft")] = None,
    page: Annotated[Path | None, typer.Option(help="write the result as a picture to this .png file")] = None,
    out: Annotated[Path | None, typer.Option(help="write the result as JSON to this file")] = None,
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
        int | None, typer.Option(min=1, help="nodes of the job to submit; inside a job: nodes of it to use")
    ] = None,
    ranks_per_node: Annotated[
        int | None, typer.Option(min=1, help="ranks on each node; default: one for each GPU, or one without GPUs")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="partition of the job")] = None,
    account: Annotated[str | None, typer.Option(help="account of the job")] = None,
    gpus_per_node: Annotated[int | None, typer.Option(min=0, help="GPUs of the job on each node")] = None,
    mem: Annotated[str | None, typer.Option(help="memory of the job on each node, such as 4G")] = None,
    time: Annotated[str | None, typer.Option(help="walltime limit of the job; default: 10 minutes")] = None,
    local: Local = False,
    ranks: Annotated[int | None, typer.Option(min=2, help="processes to start with --local; default: 2")] = None,
    backend: Annotated[str, typer.Option(help="gloo, nccl, or auto: nccl if every rank has a GPU")] = "auto",
    sizes: Annotated[
        str | None, typer.Option(help="message sizes in bytes, such as 1K,64K,4M; default: 1K to 64M")
    ] = None,
    seconds: Annotated[float, typer.Option(help="seconds for each operation, roughly")] = 5.0,
    timeout: Annotated[float, typer.Option(help="seconds that the ranks wait for each other")] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Measure all-reduce, all-gather and send/recv between nodes, and save the times in the site profile.

    Inside an allocation (salloc, sbatch) it measures between the nodes of that job. Outside, --nodes submits a job.
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
    name: Annotated[str, typer.Argument(metavar="MODEL", help="model to fetch: 'demo', a hub id or a GGUF file")],
    keep_quantized: Annotated[
        bool,
        typer.Option("--keep-quantized", help="keep the quantized blocks of a GGUF file, for quantization = 'gguf'"),
    ] = False,
) -> None:
    """Fetch a model into the cache, so that jobs find it there. A GGUF file is converted."""
    from .jobs.terminal.progress import model_progress
    from .quant.models import remark_on, resolve

    with model_progress() as progress:
        directory = resolve(name, progress, "gguf" if keep_quantized else None)
    if remark := remark_on(directory):
        typer.echo(remark, err=True)
    typer.echo(directory)


@texts_app.command("fetch")
def texts_fetch(
    names: Annotated[list[str], typer.Argument(metavar="TEXT", help="texts to fetch: c4, wiki, tiny")],
) -> None:
    """Fetch texts into the cache, so that jobs without internet find them there."""
    from .jobs.terminal.progress import model_progress
    from .quant import texts

    with model_progress() as progress:
        for name in names:
            texts.fetch(name, progress)


@sandbox_app.command("start")
def sandbox_start(
    directory: SandboxDirectory = None,
    nodes: Annotated[int, typer.Option(min=1, max=48, help="number of nodes")] = 4,
    real_gpus: Annotated[
        bool,
        typer.Option(
            "--real-gpus", help="divide this machine's GPUs among the nodes; default: each node pretends to have 8"
        ),
    ] = False,
    install: Annotated[bool, typer.Option("--install", help="install missing packages with apt-get first")] = False,
) -> None:
    """Start munge, slurmctld, slurmdbd and the slurmds in a private directory."""
    from .jobs import sandbox

    sandbox.start(directory, nodes, real_gpus, install)


@sandbox_app.command("install")
def sandbox_install() -> None:
    """Install the packages that the sandbox needs with apt-get. No service is started."""
    from .slurm.sandbox import install

    install()


@sandbox_app.command("stop")
def sandbox_stop(directory: SandboxDirectory = None) -> None:
    """Stop all jobs and daemons of the sandbox."""
    from .jobs import sandbox

    sandbox.stop(directory)


@sandbox_app.command("status")
def sandbox_status(directory: SandboxDirectory = None, as_json: AsJson = False) -> None:
    """Show the daemons and nodes of the sandbox."""
    from .jobs import sandbox

    sandbox.status(directory, as_json)


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failed, 2 usage."""
    prepare()
    accept_any_text()
    try:
        code = app(prog_name="slurminfer", standalone_mode=False)
    except typer.TyperException as error:
        sys.exit(_refused(error))
    except SlurminferError as error:
        from .jobs.terminal.text import shown

        typer.secho(f"error: {shown(str(error))}", err=True, fg="red")
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except ModuleNotFoundError as error:  # of an environment that is only for tunnels, or that is broken
        if (error.name or "slurminfer").startswith("slurminfer"):
            raise
        missing = f"the Python package '{error.name}' is not installed for {sys.executable}"
        typer.secho(f"error: {missing}; 'pip install .' in slurminfer's folder installs all", err=True, fg="red")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _refused(error: typer.TyperException) -> int:
    """Say what is wrong with the command line; the exit code."""
    from .jobs.terminal.usage import explanation

    if said := explanation(error):
        first, _, rest = said.partition("\n")
        typer.secho(first, err=True, fg="red")
        typer.echo(rest, err=True)
    return error.exit_code
