"""The run directory: the only place where the parts of a deployment meet. DESIGN: docs/reference/run-directory.md."""

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from . import files
from .claims import Claims
from .errors import RunDirectoryError, RunNotFoundError, SpecError
from .keys import new_key
from .paths import make_home, runs_root
from .records import (
    DeploymentRecord,
    FleetRecord,
    NodeRecord,
    OrderRecord,
    QueueRecord,
    RendezvousRecord,
    RouterRecord,
    ScaleRecord,
    WorkerRecord,
    read_record,
    write_record,
)
from .spec.deployment import DeploymentSpec
from .spec.files import dump_spec, parse_spec

# The log of the newest job of a role without Slurm; those of earlier ones are process.1.log and so on.
PROCESS_LOG = "process.log"
# A file of one life of a worker: ID.EPOCH.pem, or ID.EPOCH and ID.EPOCH.NODE_RANK of a rendezvous; or one of several
# workers of a job: ID.NUMBER.json, ID.NUMBER.EPOCH.pem. Pools' names may have dots too.
_OF_A_LIFE = re.compile(r"(?P<worker>.+-\d+)\.\d+(\.\d+)?(\.pem|\.json)?", re.ASCII)


class RunDirectory:
    """One deployment's directory. Reading never locks; every file has one owner who replaces it whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def named(cls, name: str) -> "RunDirectory":
        """The directory of deployment `name`, which need not exist yet."""
        return cls(runs_root() / name)

    @classmethod
    def existing(cls, name: str) -> "RunDirectory":
        """The directory of deployment `name`. Raises RunNotFoundError that lists the names there are.

        Raises RunDirectoryError where the directory cannot be read.
        """
        run = cls.named(name)
        if not _exists(run.spec_path):
            names = ", ".join(known_names()) or "none"
            raise RunNotFoundError(f"no deployment named '{name}' in {runs_root()} (there are: {names})")
        return run

    @property
    def spec_path(self) -> Path:
        """The spec file, TOML, with models as directories of this filesystem."""
        return self.path / "spec.toml"

    @property
    def router_path(self) -> Path:
        """The router's record, JSON; missing until the router has started."""
        return self.path / "router.json"

    @property
    def endpoint_path(self) -> Path:
        """Where the endpoint is, as an environment file for scripts; there as long as `router.json` has a URL."""
        return self.path / "endpoint.env"

    @property
    def deployment_path(self) -> Path:
        """The record of the deployment's jobs, JSON; who links it first holds the deployment's name."""
        return self.path / "deployment.json"

    @property
    def queue_path(self) -> Path:
        """What the scheduler has said of the workers' jobs, JSON; missing until somebody has asked it."""
        return self.path / "queue.json"

    @property
    def key_path(self) -> Path:
        """The API key as a text file that only the user can read."""
        return self.path / "key"

    @property
    def metrics_key_path(self) -> Path:
        """The key that opens the router's /metrics and nothing else; made by the router."""
        return self.path / "metrics.key"

    @property
    def keys_path(self) -> Path:
        """The tenants' keys, hashed, and what each may do: router/tenants/key_store.py."""
        return self.path / "keys.json"

    @property
    def keys_lock_path(self) -> Path:
        """What is locked while `keys.json` is changed, because that file is replaced."""
        return self.path / "keys.lock"

    @property
    def usage_path(self) -> Path:
        """What each tenant has used, by routers that have ended: router/tenants/usage_files.py."""
        return self.path / "usage.json"

    @property
    def workers_path(self) -> Path:
        """The folder of the workers' records, one JSON file for each."""
        return self.path / "workers"

    @property
    def batches_path(self) -> Path:
        """The folder in which drivers of batches say how far they are: core/batches.py."""
        return self.path / "batches"

    @property
    def orders_path(self) -> Path:
        """The folder of what the controller tells workers, one JSON file for each that is told something."""
        return self.path / "orders"

    @property
    def fleet_path(self) -> Path:
        """What the controller remembers and tells, JSON; missing until it has looked once."""
        return self.path / "fleet.json"

    @property
    def scale_path(self) -> Path:
        """What `slurminfer scale` has asked for, JSON; missing until it was used."""
        return self.path / "scale.json"

    @property
    def lease_path(self) -> Path:
        """Which controller acts for the deployment: jobs/fleet/lease.py."""
        return self.path / "controller.json"

    @property
    def ended_jobs_path(self) -> Path:
        """What each job has used that is over, JSON Lines; it outlives the deployment: jobs/receipt/ledger.py."""
        return self.path / "ended-jobs.jsonl"

    @property
    def living_jobs_path(self) -> Path:
        """The same of the jobs that are not over, JSON."""
        return self.path / "living-jobs.json"

    @property
    def files_path(self) -> Path:
        """The folder of the files that tenants have uploaded or got back from batches: router/batches/files.py."""
        return self.path / "files"

    @property
    def openai_batches_path(self) -> Path:
        """The folder of the batches of OpenAI's API: router/batches/store.py."""
        return self.path / "openai-batches"

    @property
    def responses_path(self) -> Path:
        """The folder of the responses that the router keeps for a while: router/responses/store.py."""
        return self.path / "responses"

    @property
    def openai_batches_lease_path(self) -> Path:
        """Which process works on these batches: jobs/batch/openai/."""
        return self.path / "openai-batches.json"

    @property
    def rendezvous_path(self) -> Path:
        """The folder in which the nodes of multi-node workers find each other."""
        return self.path / "rendezvous"

    @property
    def router_identity_path(self) -> Path:
        """The identity (core/net/identity.py) of the router's port for our own commands."""
        return self.path / "router.pem"

    @property
    def router_authority_path(self) -> Path:
        """Private key and certificate of the authority that signs certificates of this deployment's routers, PEM."""
        return self.path / "router-ca.pem"

    @property
    def router_authority_certificate_path(self) -> Path:
        """The certificate alone, for clients."""
        return self.path / "router-ca.crt"

    @property
    def router_certificate_path(self) -> Path:
        """Private key and certificate of the router for `router.tls = "self_signed"`, PEM. It outlives the router."""
        return self.path / "router-tls.pem"

    def worker_identity_path(self, worker_id: str, epoch: int) -> Path:
        """The identity (core/net/identity.py) of one life of a worker, made by its agent."""
        return self.workers_path / f"{worker_id}.{epoch}.pem"

    def logs_of(self, role: str) -> Path:
        """Log folder of the router ("router") or of a worker (its id)."""
        return self.path / "logs" / role

    def create(self) -> None:
        """Make the directory, its folders and its API key, for this user alone; keeps what is there.

        Raises RunDirectoryError where it cannot, or where somebody else owns what is there.
        """
        make_home()
        for folder in (self.path, self.workers_path, self.rendezvous_path, self.orders_path, self.path / "logs"):
            files.make_directory(folder)
            files.close_to_others(folder)
        kept = (self.key_path, self.keys_path, self.usage_path, self.spec_path, self._serials_path)
        for path in (*kept, self.deployment_path):
            if path.exists():
                files.close_to_others(path)
        if files.read_private(self.key_path) is None:
            _make_key(self.key_path)

    def key(self) -> str:
        """The deployment's API key. Raises RunDirectoryError if it is missing."""
        key = _read_key(self.key_path)
        if not key:
            raise RunDirectoryError(f"no API key in {self.key_path}")
        return key

    def metrics_key(self) -> str:
        """The key that opens `/metrics` only, made if it is missing. For the router. Raises RunDirectoryError."""
        return _read_key(self.metrics_key_path) or _make_key(self.metrics_key_path)

    def read_spec(self) -> DeploymentSpec:
        """The deployment's spec; engines are not checked.

        Raises SpecError where the file is missing or invalid, RunDirectoryError where it is not ours to believe.
        """
        text = files.read_private(self.spec_path)
        if text is None:
            raise SpecError(str(self.spec_path), None, "cannot read the spec: no such file")
        return parse_spec(text)

    def served_at(self) -> int:
        """When the spec was written, in Unix seconds. Raises OSError."""
        return int(self.spec_path.stat().st_mtime)

    def write_spec(self, spec: DeploymentSpec) -> None:
        """Replace the deployment's spec."""
        files.write_atomic(self.spec_path, dump_spec(spec))

    def read_serials(self) -> dict[str, int]:
        """By pool the first serial that no worker has had; pools that never had a worker are missing."""
        serials = files.read_json(self._serials_path)
        if serials is None and not self._serials_path.exists():
            return {}
        try:
            return msgspec.convert(serials, dict[str, Annotated[int, msgspec.Meta(ge=0)]])
        except msgspec.ValidationError as error:
            raise RunDirectoryError(f"{self._serials_path} is not a table of serials: {error}") from error

    def take_serials(self, worker_ids: Iterable[str]) -> None:
        """Note that these POOL-SERIALs have been given to workers: no later worker gets one, whatever is stopped.

        For the process that holds the deployment's claim.
        """
        serials = self.read_serials()
        for worker_id in worker_ids:
            pool, _, serial = worker_id.rpartition("-")
            serials[pool] = max(serials.get(pool, 0), int(serial) + 1)
        files.write_atomic(self._serials_path, files.encode_json(serials))

    def read_router(self) -> RouterRecord | None:
        """The router's record, None where there is none yet. Raises RunDirectoryError for an unreadable one."""
        return read_record(self.router_path, RouterRecord)

    def write_router(self, record: RouterRecord) -> None:
        """Replace the router's record. For the router only."""
        write_record(self.router_path, record)

    def read_worker(self, worker_id: str) -> WorkerRecord | None:
        """A worker's record, None where there is none yet. Raises RunDirectoryError for an unreadable one."""
        record = read_record(self._worker_path(worker_id), WorkerRecord)
        if record is not None and record.id != worker_id:
            raise RunDirectoryError(f"{self._worker_path(worker_id)} is the record of another worker, {record.id!r}")
        return record

    def write_worker(self, record: WorkerRecord) -> None:
        """Replace a worker's record. For the agent of the worker's first node only."""
        write_record(self._worker_path(record.id), record)

    def look_at_workers(self) -> dict[str, WorkerRecord | RunDirectoryError]:
        """By worker's id its record, or why there is none that can be read. A file that vanishes is left out.

        Raises RunDirectoryError where the folder is there and cannot be read.
        """
        try:
            names = sorted(name for name in os.listdir(self.workers_path) if is_record(name))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise RunDirectoryError(f"cannot read {self.workers_path}: {error.strerror}") from error
        found = {name.removesuffix(".json"): self.look_at_worker(name.removesuffix(".json")) for name in names}
        return {worker_id: record for worker_id, record in found.items() if record is not None}

    def look_at_worker(self, worker_id: str) -> WorkerRecord | RunDirectoryError | None:
        """A worker's record, or why it cannot be read; None where there is none."""
        try:
            return self.read_worker(worker_id)
        except RunDirectoryError as error:
            return error

    def read_workers(self) -> list[WorkerRecord]:
        """All worker records, by id. Raises RunDirectoryError for the first that cannot be read."""
        found = list(self.look_at_workers().values())
        for record in found:
            if isinstance(record, RunDirectoryError):
                raise record
        return [record for record in found if isinstance(record, WorkerRecord)]

    def read_rendezvous(self, worker_id: str, epoch: int) -> RendezvousRecord | None:
        """Where the ranks of a multi-node worker meet, once its head has published it. Raises RunDirectoryError."""
        return read_record(self._rendezvous_file(worker_id, epoch), RendezvousRecord)

    def write_rendezvous(self, worker_id: str, epoch: int, record: RendezvousRecord) -> None:
        """Publish where the ranks of a multi-node worker meet. For the worker's head only."""
        write_record(self._rendezvous_file(worker_id, epoch), record)

    def read_nodes(self, worker_id: str, epoch: int, nodes: int) -> list[NodeRecord]:
        """What the agents of a worker's further nodes have said so far, by node rank."""
        # By name: the NFS client trusts a listing for half a minute, but asks for a file that it knows at every open.
        found = (read_record(self._node_file(worker_id, epoch, rank), NodeRecord) for rank in range(1, nodes))
        return [record for record in found if record is not None]

    def write_node(self, worker_id: str, epoch: int, record: NodeRecord) -> None:
        """Replace the record of one further node of a worker. For the agent of that node only."""
        write_record(self._node_file(worker_id, epoch, record.node_rank), record)

    @property
    def claims(self) -> Claims:
        """Who holds the deployment's name."""
        return Claims(self.deployment_path)

    def read_deployment(self) -> DeploymentRecord | None:
        """The record of the deployment's jobs, None if there is none. Raises RunDirectoryError if it is unreadable."""
        return read_record(self.deployment_path, DeploymentRecord)

    def read_queue(self) -> QueueRecord | None:
        """What the scheduler has said last, None if nobody has asked it. Raises RunDirectoryError."""
        return read_record(self.queue_path, QueueRecord)

    def write_queue(self, record: QueueRecord) -> None:
        """Replace what the scheduler has said. For whoever has just asked it. Raises RunDirectoryError."""
        write_record(self.queue_path, record)

    def read_order(self, worker_id: str) -> OrderRecord | None:
        """What the controller tells a worker, None if nothing. Raises RunDirectoryError."""
        return read_record(self.orders_path / f"{worker_id}.json", OrderRecord)

    def write_order(self, worker_id: str, record: OrderRecord) -> None:
        """Tell a worker something. For the controller."""
        write_record(self.orders_path / f"{worker_id}.json", record)

    def read_fleet(self) -> FleetRecord | None:
        """What the controller has written last, None before its first look. Raises RunDirectoryError."""
        return read_record(self.fleet_path, FleetRecord)

    def write_fleet(self, record: FleetRecord) -> None:
        """Replace it. For the controller."""
        write_record(self.fleet_path, record)

    def read_scale(self) -> ScaleRecord:
        """What users have asked for. Raises RunDirectoryError."""
        return read_record(self.scale_path, ScaleRecord) or ScaleRecord()

    def write_scale(self, record: ScaleRecord) -> None:
        """Replace it. For `slurminfer scale`."""
        write_record(self.scale_path, record)

    def forget_workers(self, worker_ids: Collection[str]) -> None:
        """Remove the records of workers whose jobs are over. For the controller. Raises RunDirectoryError."""
        if not worker_ids:
            return
        for worker_id in worker_ids:
            files.remove(self._worker_path(worker_id))
            files.remove(self.orders_path / f"{worker_id}.json")
        for folder in (self.workers_path, self.rendezvous_path):
            for path in folder.glob("*"):  # one listing, however many workers
                found = _OF_A_LIFE.fullmatch(path.name)
                if found and found["worker"] in worker_ids:
                    files.remove(path)

    def clear_records(self) -> None:
        """Remove what routers and workers of an earlier deployment have left, clients' responses too; spec, key, logs
        and claim stay.

        Raises RunDirectoryError where something cannot be removed.
        """
        folders = (self.workers_path, self.rendezvous_path, self.orders_path)
        try:
            records = [path for folder in folders for path in folder.glob("*")]
        except OSError as error:
            raise RunDirectoryError(f"cannot read {error.filename}: {error.strerror}") from error
        own = (self.router_path, self.router_identity_path, self.endpoint_path, self.queue_path)
        for path in (*records, *own, self.fleet_path, self.scale_path, self.lease_path, self.responses_path):
            files.remove(path)

    def clear(self) -> None:
        """Forget the deployment's processes: records go, spec, key and logs stay. `deployment.json` goes last.

        Raises RunDirectoryError where something cannot be removed; `deployment.json` is then still there.
        """
        self.clear_records()
        files.remove(self.deployment_path)

    @property
    def _serials_path(self) -> Path:
        return self.path / "serials.json"

    def _worker_path(self, worker_id: str) -> Path:
        return self.workers_path / f"{worker_id}.json"

    def _rendezvous_file(self, worker_id: str, epoch: int) -> Path:
        return self.rendezvous_path / f"{worker_id}.{epoch}"

    def _node_file(self, worker_id: str, epoch: int, node_rank: int) -> Path:
        return self.rendezvous_path / f"{worker_id}.{epoch}.{node_rank}"


def known_names() -> list[str]:
    """Names of all deployments of this user. Raises RunDirectoryError where they cannot be read."""
    try:
        entries = sorted(runs_root().iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunDirectoryError(f"cannot read {runs_root()}: {error.strerror}") from error
    return [entry.name for entry in entries if _exists(entry / "spec.toml")]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from error


def _read_key(path: Path) -> str:
    """The key in a file; empty if there is none."""
    return (files.read_private(path) or "").strip()


def _make_key(path: Path) -> str:
    """A new key in a file that has none, or the one that another process has just put there."""
    key = new_key()
    if not files.claim(path, key + "\n"):
        if found := _read_key(path):
            return found
        files.write_atomic(path, key + "\n")
    return key


def is_record(name: str) -> bool:
    """Whether a file of this name is a record, and not one that is being written."""
    return name.endswith(".json") and not name.startswith(".")
