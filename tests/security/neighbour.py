"""Another user of the same machine: what that user can read of a deployment, and what its ports answer."""

import encodings.idna  # noqa: F401  # for connections: the neighbour may not be able to read it any more
import http.client
import json
import os
import pickle
import socket
import ssl
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from slurminfer.core.rundir import RunDirectory

NOBODY = 65534
# What an endpoint answers without a key: whether it is well, and files that say nothing of this deployment.
OPEN = {"GET /": 200, "GET /docs": 200, "GET /health": 200, "GET /openapi.json": 200, "OPTIONS /v1/completions": 204}
_TIMEOUT_S = 2.0
_REQUESTS = [
    *(
        ("GET", path)
        for path in ("/", "/health", "/metrics", "/workers", "/v1/models", "/server_info", "/get_server_info")
    ),
    *(("GET", path) for path in ("/health_generate", "/model_info", "/docs", "/openapi.json", "/version", "/load")),
    *(("POST", path) for path in ("/v1/completions", "/v1/chat/completions", "/generate", "/flush_cache", "/tokenize")),
    ("OPTIONS", "/v1/completions"),
]
_BODY = json.dumps({"model": "m", "prompt": "A", "max_tokens": 1, "text": "A", "messages": []})


@dataclass
class Deployment:
    """What the processes of a deployment have open, as its owner and root see it."""

    processes: list[psutil.Process]
    ports: set[tuple[str, int]] = field(default_factory=set)
    sockets: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)  # of commands, as `ps` shows them

    @classmethod
    def of(cls, processes: Iterable[psutil.Process]) -> "Deployment":
        found = cls(list(processes))
        for process in found.processes:
            found._look(process)
        found.sockets.discard("")  # of a client
        return found

    def _look(self, process: psutil.Process) -> None:
        with suppress(
            psutil.NoSuchProcess
        ):  # it has ended meanwhile, as those do that render one large prompt, or ask Slurm
            for connection in process.net_connections(kind="all"):
                if connection.family == socket.AF_UNIX:
                    self.sockets.add(str(connection.laddr))
                elif connection.status == psutil.CONN_LISTEN:
                    self.ports.add((connection.laddr.ip, connection.laddr.port))
            self.files.update(entry.path for entry in process.open_files())
            self.lines.append(" ".join(process.cmdline()))


def as_neighbour(ask: Callable[[], Any], uid: int = NOBODY) -> Any:
    """The result of `ask` in a process of another user. For root; raises what it raises."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            said: tuple[bool, Any] = True, ask()
        except BaseException as error:
            said = False, repr(error)
        os.write(writing, pickle.dumps(said)[: 1 << 16])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        succeeded, result = pickle.loads(pipe.read())
    os.waitpid(pid, 0)
    assert succeeded, result
    return result


def readable(roots: Iterable[str], files: Iterable[str]) -> list[str]:
    """What the calling process can list or read: below `roots`, and of single `files`."""
    found = [path for path in files if _opens(path)]
    for root in roots:
        for folder, _, names in os.walk(root):
            found += [folder] if os.access(folder, os.R_OK | os.X_OK) else []
            found += [path for path in (str(Path(folder) / name) for name in names) if _opens(path)]
    return sorted(found)


def reachable(sockets: Iterable[str]) -> list[str]:
    """The Unix sockets that take a connection of the calling process."""
    found = []
    for path in sockets:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(path)
            except OSError:
                continue
            found.append(path)
    return sorted(found)


def answers(ports: Iterable[tuple[str, int]]) -> dict[tuple[str, int], dict[str, int]]:
    """What each port answers to requests without a secret, over TLS too: the statuses by request, without 401s."""
    ports = list(ports)
    with ThreadPoolExecutor(len(ports)) as pool:
        plain, tls = pool.map(_statuses, ports), pool.map(partial(_statuses, tls=_anyone()), ports)
        return {port: {**one, **other} for port, one, other in zip(ports, plain, tls, strict=True)}


def answering(deployment: Deployment) -> dict[tuple[str, int], dict[str, int]]:
    """The ports that answer another user anything but 401, and what."""
    said: dict[tuple[str, int], dict[str, int]] = as_neighbour(lambda: answers(deployment.ports))
    return {port: statuses for port, statuses in said.items() if statuses}


def endpoint_of(run: RunDirectory) -> tuple[str, int]:
    """Where the deployment's clients are served."""
    router = run.read_router()
    assert router is not None and router.url is not None
    host, _, port = router.url.removeprefix("http://").rpartition(":")
    return host, int(port)


def processes_of(home: Path) -> list[psutil.Process]:
    """The processes whose environment names this home of slurminfer's."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURMINFER_HOME") == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _statuses(port: tuple[str, int], tls: ssl.SSLContext | None = None) -> dict[str, int]:
    found = {}
    for method, path in _REQUESTS:
        connection = (
            http.client.HTTPConnection(*port[:2], timeout=_TIMEOUT_S)
            if tls is None
            else http.client.HTTPSConnection(*port[:2], timeout=_TIMEOUT_S, context=tls)
        )
        try:
            connection.request(method, path, _BODY if method == "POST" else None, {"Content-Type": "application/json"})
            status = connection.getresponse().status
        except TimeoutError:
            break  # what says nothing to the first request is no HTTP server
        except (OSError, http.client.HTTPException):
            continue  # refused
        finally:
            connection.close()
        if status != 401:
            found[f"{method} {path}"] = status
    return found


def _anyone() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
