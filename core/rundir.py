"""The run directory: the only place where the parts of a deployment meet. DESIGN: docs/reference/run-directory.md."""

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from . import files
from .errors import RunDirectoryError, RunNotFoundError
from .paths import runs_root
from .records import VERSION, DeploymentRecord, NodeRecord, RouterRecord, WorkerRecord
from .spec import DeploymentSpec, dump_spec, load_spec

Record = TypeVar("Record", WorkerRecord, NodeRecord, RouterRecord, DeploymentRecord)


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
    def deployment_path(self) -> Path:
        """The record of the deployment's jobs, JSON; who links it first holds the deployment's name."""
        return self.path / "deployment.json"

    @property
    def key_path(self) -> Path:
        """The API key as a text file that only the user can read."""
        return self.path / "key"

    @property
    def metrics_key_path(self) -> Path:
        """The key that opens the router's /metrics and nothing else; made by the router."""
        return self.path / "metrics.key"

    @property
    def workers_path(self) -> Path:
        """The folder of the workers' records, one JSON file for each."""
        return self.path / "workers"

    @property
    def rendezvous_path(self) -> Path:
        """The folder in which the nodes of multi-node workers find each other."""
        return self.path / "rendezvous"

    @property
    def router_identity_path(self) -> Path:
        """The identity (core/identity.py) of the router's port for our own commands."""
        return self.path / "router.pem"

    def worker_identity_path(self, worker_id: str, epoch: int) -> Path:
        """The identity (core/identity.py) of one life of a worker, made by its agent."""
        return self.workers_path / f"{worker_id}.{epoch}.pem"

    def logs_of(self, role: str) -> Path:
        """Log folder of the router ("router") or of a worker (its id)."""
        return self.path / "logs" / role

    def create(self) -> None:
        """Make the directory, its folders and its API key; keeps what is there."""
        for folder in (self.path, self.workers_path, self.rendezvous_path):
            files.make_directory(folder)
        if files.read_text(self.key_path) is None:
            files.write_atomic(self.key_path, secrets.token_urlsafe(32) + "\n", mode=0o600)

    def key(self) -> str:
        """The deployment's API key. Raises RunDirectoryError if it is missing."""
        text = files.read_text(self.key_path)
        if not text or not text.strip():
            raise RunDirectoryError(f"no API key in {self.key_path}")
        return text.strip()

    def read_spec(self) -> DeploymentSpec:
        """The deployment's spec. Raises SpecError where the file is missing or invalid; engines are not checked."""
        return load_spec(self.spec_path)

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
        return _read(self.router_path, RouterRecord)

    def write_router(self, record: RouterRecord) -> None:
        """Replace the router's record. For the router only."""
        _write(self.router_path, record)

    def read_worker(self, worker_id: str) -> WorkerRecord | None:
        """A worker's record, None where there is none yet. Raises RunDirectoryError for an unreadable one."""
        return _read(self._worker_path(worker_id), WorkerRecord)

    def write_worker(self, record: WorkerRecord) -> None:
        """Replace a worker's record. For the agent of the worker's first node only."""
        _write(self._worker_path(record.id), record)

    def read_workers(self) -> list[WorkerRecord]:
        """All worker records, by id. A file that vanishes meanwhile is not listed."""
        try:
            names = sorted(name for name in os.listdir(self.workers_path) if _is_record(name))
        except FileNotFoundError:
            return []
        found = (_read(self.workers_path / name, WorkerRecord) for name in names)
        return [record for record in found if record is not None]

    def read_rendezvous(self, worker_id: str, epoch: int) -> str | None:
        """HOST:PORT at which the ranks of a multi-node worker meet, once its head has published it."""
        text = files.read_text(self._rendezvous_file(worker_id, epoch))
        return text.strip() if text else None

    def write_rendezvous(self, worker_id: str, epoch: int, address: str) -> None:
        """Publish HOST:PORT at which the ranks of a multi-node worker meet. For the worker's head only."""
        files.write_atomic(self._rendezvous_file(worker_id, epoch), address + "\n")

    def read_nodes(self, worker_id: str, epoch: int, nodes: int) -> list[NodeRecord]:
        """What the agents of a worker's further nodes have said so far, by node rank."""
        # By name: the NFS client trusts a listing for half a minute, but asks for a file that it knows at every open.
        found = (_read(self._node_file(worker_id, epoch, rank), NodeRecord) for rank in range(1, nodes))
        return [record for record in found if record is not None]

    def write_node(self, worker_id: str, epoch: int, record: NodeRecord) -> None:
        """Replace the record of one further node of a worker. For the agent of that node only."""
        _write(self._node_file(worker_id, epoch, record.node_rank), record)

    def claim(self, record: DeploymentRecord) -> bool:
        """Become the one `serve` of this name; False if another holds it."""
        return files.claim(self.deployment_path, files.encode_json(record))

    def read_deployment(self) -> DeploymentRecord | None:
        """The record of the deployment's jobs, None if there is none. Raises RunDirectoryError if it is unreadable."""
        return _read(self.deployment_path, DeploymentRecord)

    def write_deployment(self, record: DeploymentRecord) -> None:
        """Replace the record of the deployment's jobs. For the process that has claimed the deployment only."""
        _write(self.deployment_path, record)

    def clear(self) -> None:
        """Forget the deployment's processes: records go, spec, key and logs stay. `deployment.json` goes last.

        Raises RunDirectoryError where something cannot be removed; `deployment.json` is then still there.
        """
        try:
            records = [path for folder in (self.workers_path, self.rendezvous_path) for path in folder.glob("*")]
            for path in (*records, self.router_path, self.router_identity_path, self.deployment_path):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise RunDirectoryError(f"cannot remove {error.filename}: {error.strerror}") from error

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


def _is_record(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _write(path: Path, record: Record) -> None:
    files.write_atomic(path, files.encode_json(record))


def _read(path: Path, kind: type[Record]) -> Record | None:
    value = files.read_json(path)
    if value is None:
        return None
    try:
        record = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise RunDirectoryError(f"{path} is not a {kind.__name__}: {error}") from error
    if record.version != VERSION:
        raise RunDirectoryError(f"{path} has version {record.version}; this slurminfer reads {VERSION}")
    return record
