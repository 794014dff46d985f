"""`slurminfer tunnel` through a real sshd, and on the login node itself; the router behind it is a small server."""

import asyncio
import os
import shlex
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest
from aiohttp import web

from slurminfer.core.net.certificates import context_for_clients, new_key, self_signed
from slurminfer.core.records import RouterRecord
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec

from ..support.loop import Loop
from ..support.sshd import Sshd, require_sshd
from ..support.tunnel_program import SLURMINFER, Asking, Tunnel
from ..support.waiting import eventually, has_ended

pytestmark = pytest.mark.process

HOUSE = Path(__file__).parents[2]
SPEC = "name = 'cpu'\n[model]\npath = 'm'\n[[pool]]\nname = 'w'\n[router]\ntls = '{tls}'\n"


class Router:
    """Answers /who with its name, and /stream with the lines that the test tells it, as a router would."""

    def __init__(self, name: str, host: str = "127.0.0.1", port: int = 0, pem: str | None = None) -> None:
        self.name, self._loop = name, Loop()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._runner: web.AppRunner | None = None
        self.port = self._loop.run(self._start(host, port, pem))
        scheme = "http" if pem is None else "https"
        self.url = f"{scheme}://{host}:{self.port}"

    def say(self, line: str | None) -> None:
        """The next line of the stream; None: its end."""
        self._loop.soon(lambda: self._lines.put_nowait(line))

    def close(self) -> None:
        if self._runner is not None:
            self._loop.run(self._runner.cleanup())
            self._loop.close()
            self._runner = None

    async def _start(self, host: str, port: int, pem: str | None) -> int:
        app = web.Application()
        app.router.add_get("/v1/who", self._who)
        app.router.add_get("/v1/stream", self._stream)
        self._runner = runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, host, port, ssl_context=None if pem is None else context_for_clients(pem))
        await site.start()
        found: int = runner.addresses[0][1]
        return found

    async def _who(self, request: web.Request) -> web.Response:
        return web.Response(text=self.name)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while (line := await self._lines.get()) is not None:
            await response.write(f"{line}\n".encode())
        return response


@pytest.fixture
def sshd(tmp_path) -> Iterator[Sshd]:
    require_sshd()
    sshd = Sshd(tmp_path / "sshd")
    sshd.start()
    yield sshd
    sshd.kill()


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDirectory:
    """The run directory, on the login node."""
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "cluster"))
    directory = RunDirectory.named("cpu")
    directory.create()
    directory.write_spec(parse_spec(SPEC.format(tls="off")))
    return directory


@pytest.fixture
def start_router() -> Iterator[Callable[..., Router]]:
    started: list[Router] = []

    def start(*words, **options) -> Router:
        started.append(Router(*words, **options))
        return started[-1]

    yield start
    for router in started:
        router.close()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: those of Unix sockets are bounded."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def start(tmp_path, short, start_router) -> Iterator[Callable[..., Tunnel]]:
    """Starts tunnels of somebody whose own home knows of no deployment; they end before the routers do."""
    started: list[Tunnel] = []

    def start(*words: str, **env: str) -> Tunnel:
        everything = {"SLURMINFER_HOME": str(tmp_path / "laptop"), "TMPDIR": str(short), **env}
        started.append(Tunnel(list(words), everything))
        return started[-1]

    yield start
    for tunnel in started:
        tunnel.process.kill()
        tunnel.ended()


@pytest.fixture
def far(sshd, run, start) -> Callable[..., Tunnel]:
    """Starts tunnels through the login node."""
    remote = f"env SLURMINFER_HOME={run.path.parents[1]} PYTHONPATH={HOUSE / 'src'} {shlex.join(SLURMINFER)}"

    def far(*words: str, remote: str = remote) -> Tunnel:
        return start("cpu", "--to", "login", "--remote", remote, *words, **sshd.env())

    return far


def announce(run: RunDirectory, router: Router, *, host: str = "", fingerprint: str = "") -> None:
    run.write_router(
        RouterRecord(
            url=router.url, fingerprint=fingerprint, host=host or socket.gethostname(), job="1", pid=1, epoch=0,
            started_at=0.0,
        )
    )  # fmt: skip


def test_a_laptop_reaches_the_router_and_ctrl_c_leaves_nothing(far, sshd, run, start_router, short):
    router = start_router("first")
    announce(run, router)
    tunnel = far()
    assert tunnel.who() == "first"
    assert tunnel.key == run.key()
    everywhere = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not any(run.key() in each for each in [*everywhere, *tunnel.out, *tunnel.err])
    children = psutil.Process(tunnel.process.pid).children(recursive=True)
    assert [each.name() for each in children] == ["ssh"]
    assert any("endpoint cpu --follow" in line for line in sshd.sessions())
    assert tunnel.interrupt() == 0
    assert all(has_ended(each.pid) for each in children)
    eventually(lambda: not sshd.sessions(), "the command on the login node has ended")
    assert not list(short.iterdir())


@pytest.mark.parametrize("through", ["ssh", "here"])
def test_clients_and_streams_outlive_a_move_of_the_router(through, far, start, run, start_router):
    old, new = start_router("old"), start_router("new", host="127.0.0.2")
    announce(run, old)
    tunnel = far() if through == "ssh" else start("cpu", SLURMINFER_HOME=str(run.path.parents[1]))
    url = tunnel.url
    with httpx.stream("GET", f"{url}/stream", timeout=60, trust_env=False) as stream:
        lines = stream.iter_lines()
        old.say("before")
        assert next(lines) == "before"
        asking = Asking(f"{url}/who")
        eventually(lambda: "old" in asking.answers, "the old router answers")
        announce(run, new)
        eventually(lambda: "new" in asking.answers, "the new router answers")
        assert set(asking.end()) == {"old", "new"}
        old.say("after")
        old.say(None)
        assert list(lines) == ["after"]
    tunnel.says(rf"is {new.url} on .* now")
    assert tunnel.url == url and tunnel.who() == "new"
    assert sum("OPENAI_BASE_URL" in line for line in tunnel.out) == 1


def test_it_comes_back_when_sshd_does(far, sshd, run, start_router):
    announce(run, start_router("first"))
    tunnel = far()
    assert tunnel.who() == "first"
    sshd.kill()
    tunnel.says("connecting again in")
    asking = Asking(f"{tunnel.url}/who")  # waits until the tunnel is there again
    sshd.start()
    eventually(lambda: asking.answers, "an answer")
    assert set(asking.end()) == {"first"}
    assert sum("OPENAI_BASE_URL" in line for line in tunnel.out) == 1


def test_it_waits_for_a_router_and_says_why(far, run, start_router):
    tunnel = far()
    tunnel.says("waiting for the router of 'cpu': it is stopped")
    announce(run, start_router("late"))
    assert tunnel.who() == "late"


def test_a_router_that_does_not_accept_is_waited_for(start, run, start_router):
    gone = start_router("gone")
    announce(run, gone)
    gone.close()
    tunnel = start("cpu", SLURMINFER_HOME=str(run.path.parents[1]))
    tunnel.says("waiting for the router of 'cpu': .* cannot connect to .*: Connection refused")
    asking = Asking(f"{tunnel.url}/who")
    start_router("back", port=gone.port)
    eventually(lambda: asking.answers, "an answer")
    assert set(asking.end()) == {"back"}
    tunnel.says("answers again|leads to 'cpu'")


def test_requests_wait_while_the_router_is_away_behind_ssh(far, run, start_router):
    gone = start_router("gone")
    announce(run, gone)
    tunnel = far()
    assert tunnel.who() == "gone"
    gone.close()
    asking = Asking(f"{tunnel.url}/who")
    tunnel.says("waiting for the router of 'cpu': .*Connection refused")
    announce(run, start_router("back"))
    eventually(lambda: asking.answers, "an answer")
    assert set(asking.end()) == {"back"}


def test_the_connection_that_the_user_keeps_open_is_used_and_left(far, sshd, run, start_router, short):
    sshd.configure(f"  ControlPath {short}/kept-%C\n")
    ssh = str(sshd.bin / "ssh")
    subprocess.run([ssh, "-f", "-N", "-o", "ControlMaster=yes", "login"], check=True)
    (sshd.folder / "authorized_keys").write_text("")  # who connects anew is refused
    try:
        announce(run, start_router("first"))
        tunnel = far()
        assert tunnel.who() == "first"
        announce(run, start_router("second"))
        eventually(lambda: tunnel.who() == "second", "the new router answers")
        assert tunnel.interrupt() == 0
        assert subprocess.run([ssh, "-O", "check", "login"]).returncode == 0
        eventually(lambda: not sshd.sessions(), "the command on the login node has ended")
    finally:
        subprocess.run([ssh, "-O", "exit", "login"], capture_output=True)


def test_what_is_wrong_is_said_in_one_line(far, sshd, run):
    def fault(tunnel: Tunnel) -> str:
        assert tunnel.ended() == 1
        assert not any("Traceback" in line for line in tunnel.err)
        return "".join(tunnel.err)

    assert "login has no '/nowhere/slurminfer'" in (said := fault(far(remote="/nowhere/slurminfer")))
    assert "--remote says where it is" in said
    run.spec_path.unlink()
    assert "error: login: no deployment named 'cpu' in" in fault(far())
    (sshd.folder / "authorized_keys").write_text("")
    assert "Permission denied (publickey" in fault(far())
    sshd.kill()
    assert "Connection refused" in fault(far())


def test_an_https_router_with_its_certificate(far, run, start_router):
    pem = self_signed(new_key(), "cpu", ["localhost", "127.0.0.1"], datetime.now(UTC))
    run.router_authority_path.write_text(pem)
    run.router_authority_path.chmod(0o600)
    run.write_spec(parse_spec(SPEC.format(tls="self_signed")))
    announce(run, start_router("safe", pem=pem), fingerprint="AB:CD")
    tunnel = far()
    assert tunnel.url.startswith("https://127.0.0.1:")
    tunnel.says("# SHA-256 of its certificate: AB:CD")
    certificate = tunnel.says("export SSL_CERT_FILE=").partition("=")[2]
    assert "PRIVATE" not in Path(certificate).read_text(encoding="utf-8")
    trust = ssl.create_default_context(cafile=certificate)
    assert httpx.get(f"{tunnel.url}/who", verify=trust, trust_env=False).text == "safe"


def test_what_print_says_works_by_hand(far, sshd, run, start_router):
    announce(run, start_router("first"))
    printing = far("--print")
    assert printing.ended() == 0
    command, url, key = (line.strip() for line in printing.out)
    environment = {**os.environ, **sshd.env()}
    by_hand = subprocess.Popen(["sh", "-c", f"exec {command}"], env=environment)
    try:
        said = subprocess.run(
            ["sh", "-c", f'{url}; {key}; echo "$OPENAI_BASE_URL $OPENAI_API_KEY"'],
            env=environment, capture_output=True, encoding="utf-8", check=True,
        ).stdout.split()  # fmt: skip
        assert said[1] == run.key()

        def ask() -> str:
            try:
                return httpx.get(f"{said[0]}/who", trust_env=False).text
            except httpx.HTTPError:
                return ""

        assert eventually(ask, "the forwarded port answers") == "first"
    finally:
        by_hand.kill()
        by_hand.wait()


def test_the_port_stays_the_same_and_one_that_is_taken_is_named(start, run, start_router):
    announce(run, start_router("first"))
    home = {"SLURMINFER_HOME": str(run.path.parents[1])}
    first = start("cpu", **home)
    url = first.url
    second = start("cpu", **home)
    assert second.ended() == 1
    assert f"is taken by pid {first.process.pid}" in second.err[-1] and "--port" in second.err[-1]
    assert first.interrupt() == 0
    assert start("cpu", **home).url == url


def test_an_sshd_that_forwards_nothing_is_named(far, sshd, run, start_router):
    sshd.kill()
    sshd.serve("AllowTcpForwarding no")
    sshd.start()
    announce(run, start_router("first"))
    tunnel = far()
    assert tunnel.ended() == 1
    assert "error: sshd on login forwards no connection to it (" in tunnel.err[-1]
    assert "AllowTcpForwarding" in tunnel.err[-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_other_users_of_the_machine_are_refused(start, run, start_router):
    announce(run, start_router("first"))
    tunnel = start("cpu", SLURMINFER_HOME=str(run.path.parents[1]))
    assert tunnel.who() == "first"
    host, port = tunnel.url.removeprefix("http://").removesuffix("/v1").split(":")
    script = f"exec 3<>/dev/tcp/{host}/{port}; printf 'GET /v1/who HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    said = subprocess.run([*become, "bash", "-c", script], capture_output=True, encoding="utf-8")
    assert said.stdout == ""
    tunnel.says("another user of this machine has tried this port")
    assert tunnel.who() == "first"
