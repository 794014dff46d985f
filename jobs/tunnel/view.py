"""What is known of a deployment's endpoint on the machine that sees its run directory."""

import re
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from ...core.errors import RunDirectoryError, SlurminferError, SpecError, TunnelError
from ...core.files import read_private
from ...core.records import RouterRecord
from ...core.rundir import RunDirectory

VERSION = 1
_CONNECT_S = 3.0
_EXPLAIN_EVERY_S = 15.0
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")  # becomes a part of an argument of ssh
_LOCAL = "127.0.0.1"  # the address of routers that are served with --local
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """One look at an endpoint, as `slurminfer endpoint` prints it: a JSON object on one line."""

    version: int = VERSION
    name: str
    url: str | None = None  # http(s)://HOST:PORT of the router, as nodes of the cluster reach it; None without a router
    host: str = ""  # the router's node
    reachable: bool = False  # a connection to `url` could be opened from the machine that says this
    reason: str = ""  # why there is no URL, or why it cannot be reached
    fingerprint: str = ""  # SHA-256 of the certificate, where the endpoint speaks HTTPS
    certificate: str = ""  # PEM, where clients have to be given it: that of the deployment's own authority
    certificate_path: str = ""  # of a file with it, for SSL_CERT_FILE
    run_directory: str
    key: str = ""  # the API key, where it was asked for


def address_of(url: str) -> tuple[str, int]:
    """Host and port of http(s)://HOST:PORT. Raises TunnelError for anything else."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not url.startswith(("http://", "https://")) or not host or not port or not _HOST.fullmatch(host):
        raise TunnelError(f"the router's URL is {url!r}: expected http://HOST:PORT")
    return host, port


class _Version(msgspec.Struct):
    version: int
    run_directory: str


def parse_view(line: bytes) -> EndpointView | None:
    """The view on a line of `slurminfer endpoint`; None for other lines, such as what a login script prints.

    Raises TunnelError for a view of another version, or with a URL that no router has.
    """
    try:
        version = msgspec.json.decode(line, type=_Version).version
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    try:
        view = msgspec.json.decode(line, type=EndpointView) if version == VERSION else None
    except msgspec.MsgspecError:
        view = None
    if view is None:
        raise TunnelError("slurminfer on the other machine is of another version: install the same on both")
    if view.url is not None:
        address_of(view.url)
    return view


class EndpointReader:
    """Looks at a run directory again and again; each look is cheap while the router answers.

    Args:
        run: the deployment's.
        with_key: whether views have the API key.
        fault: why no connection to a host and port can be opened, or "".
        explain: why there is no router. It may take long, and is asked for in a thread.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        run: RunDirectory,
        *,
        with_key: bool = False,
        fault: Callable[[str, int], str] | None = None,
        explain: Callable[[RunDirectory], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._with_key = run, with_key
        self._fault = fault or connection_fault
        self._explanation = _Explanation(run, explain or why_no_router, clock)

    def read_once(self) -> EndpointView:
        """As `read`; where there is no router, it waits for what the scheduler says of that."""
        return self._read(self._explanation.asked)

    def read(self) -> EndpointView:
        """What is true now. What is wrong with the deployment's files is part of the answer."""
        return self._read(self._explanation.now)

    def _read(self, explain: Callable[[], str]) -> EndpointView:
        view = EndpointView(name=self._run.path.name, run_directory=str(self._run.path))
        try:
            key = self._run.key() if self._with_key else ""
            record = self._run.read_router()
        except RunDirectoryError as error:
            return msgspec.structs.replace(view, reason=str(error))
        view = msgspec.structs.replace(view, key=key)
        if record is None or record.url is None:
            reason = record.reason if record is not None else ""
            return msgspec.structs.replace(view, reason=reason or explain())
        return self._of_record(view, record, record.url)

    def _of_record(self, view: EndpointView, record: RouterRecord, url: str) -> EndpointView:
        try:
            host, port = address_of(url)
        except TunnelError as error:
            return msgspec.structs.replace(view, reason=str(error))
        if host == _LOCAL and record.host != socket.gethostname():
            reason = f"it was served with --local on {record.host}, and can be reached from there only"
            return msgspec.structs.replace(view, reason=reason)
        fault = self._fault(host, port)
        certificate = self._certificate() if record.fingerprint else ""
        return msgspec.structs.replace(
            view,
            url=url,
            host=record.host,
            reachable=not fault,
            reason=fault,
            fingerprint=record.fingerprint,
            certificate=certificate,
            certificate_path=str(self._run.router_authority_certificate_path) if certificate else "",
        )

    def _certificate(self) -> str:
        """The certificate of the authority that the router has made itself; empty where it has a user's own."""
        try:
            pem = read_private(self._run.router_authority_path) or ""
            is_ours = self._run.read_spec().router.tls == "self_signed"
        except (RunDirectoryError, SpecError):
            return ""
        begin, end = pem.find(_BEGIN), pem.find(_END)
        return pem[begin : end + len(_END)] + "\n" if is_ours and 0 <= begin < end else ""


class _Explanation:
    """Why there is no router, asked for in a thread now and then: the scheduler may take a minute to answer."""

    def __init__(self, run: RunDirectory, explain: Callable[[RunDirectory], str], clock: Callable[[], float]) -> None:
        self._run, self._explain, self._clock = run, explain, clock
        self._said = "it has no router yet"
        self._is_asking = False
        self._again_at = float("-inf")

    def asked(self) -> str:
        """An answer of this moment; it may take long."""
        self._ask()
        return self._said

    def now(self) -> str:
        """The newest answer."""
        if not self._is_asking and self._clock() >= self._again_at:
            self._is_asking = True
            threading.Thread(target=self._ask, daemon=True).start()
        return self._said

    def _ask(self) -> None:
        try:
            self._said = self._explain(self._run)
        except SlurminferError as error:
            self._said = str(error)
        finally:
            self._again_at = self._clock() + _EXPLAIN_EVERY_S
            self._is_asking = False


def why_no_router(run: RunDirectory) -> str:
    """What the scheduler says of a deployment without a router. Raises SlurmError."""
    from ..serve.status.status import look

    view = look(run)
    if view.state == "stopped":
        return "it is stopped; 'slurminfer serve' starts it"
    return f"it is {view.state}: {view.reason}" if view.reason else "its router is starting"


def connection_fault(host: str, port: int) -> str:
    """Why no TCP connection can be opened from this machine; empty if one can."""
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError as error:
        return f"{socket.gethostname()} cannot connect to {host}:{port}: {error.strerror or error}"
    return ""
