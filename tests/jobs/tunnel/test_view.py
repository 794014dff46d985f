"""What a run directory says of the router."""

import socket
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from slurminfer.core.errors import SlurmError, TunnelError
from slurminfer.core.net.certificates import new_key, self_signed
from slurminfer.core.records import RouterRecord
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.tunnel.view import EndpointReader, EndpointView, address_of, connection_fault, parse_view

from ...support.waiting import eventually

SPEC = "name = 'cpu'\n[model]\npath = 'm'\n[[pool]]\nname = 'w'\n[router]\ntls = 'self_signed'\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    run = RunDirectory.named("cpu")
    run.create()
    run.write_spec(parse_spec(SPEC))
    return run


def record(url: str | None, *, host: str = "n1", fingerprint: str = "", reason: str = "") -> RouterRecord:
    return RouterRecord(
        url=url, host=host, fingerprint=fingerprint, reason=reason, job="1", pid=1, epoch=0, started_at=0.0
    )


def reader(run: RunDirectory, **options) -> EndpointReader:
    return EndpointReader(run, **{"fault": lambda host, port: "", "explain": lambda run: "", **options})


def test_a_router_that_accepts(run):
    run.write_router(record("http://10.1.2.3:30000"))
    view = reader(run).read()
    assert (view.url, view.host, view.reachable, view.reason) == ("http://10.1.2.3:30000", "n1", True, "")
    assert view.key == "" and view.run_directory == str(run.path)
    assert reader(run, with_key=True).read().key == run.key()


def test_a_router_that_does_not_accept_is_told_with_the_reason(run):
    run.write_router(record("http://10.1.2.3:30000"))
    view = reader(run, fault=lambda host, port: f"{host}:{port} is deaf").read()
    assert view.url is not None and not view.reachable and view.reason == "10.1.2.3:30000 is deaf"


def test_a_router_that_could_not_start_says_why(run):
    run.write_router(record(None, reason="port 30000 is taken"))
    view = reader(run).read()
    assert view.url is None and view.reason == "port 30000 is taken"


def test_who_looks_once_gets_what_the_scheduler_says_of_this_moment(run):
    view = reader(run, explain=lambda run: "it is stopped").read_once()
    assert view.url is None and view.reason == "it is stopped"


def test_a_local_deployment_of_another_machine_is_not_looked_for_here(run):
    run.write_router(record("http://127.0.0.1:30000", host="login2"))
    view = reader(run).read()
    assert view.url is None and "--local on login2" in view.reason
    run.write_router(record("http://127.0.0.1:30000", host=socket.gethostname()))
    assert reader(run).read().reachable


def test_a_line_is_a_view_or_something_else():
    view = EndpointView(name="cpu", url="http://10.1.2.3:30000", run_directory="/r")
    line = msgspec.json.encode(view)
    assert parse_view(line) == view
    for other in (b"", b"\n", b"Welcome", b"{}", b'{"name": 1}', b"[" * 100_000, b"\xff"):
        assert parse_view(other) is None
    for changed in (line.replace(b'"version":1', b'"version":2'), line.replace(b'"name":"cpu"', b'"name":1')):
        with pytest.raises(TunnelError, match="another version"):
            parse_view(changed)
    with pytest.raises(TunnelError, match="the router's URL"):
        parse_view(line.replace(b"http:", b"$(x):"))


@pytest.mark.parametrize(
    "url", ["http://-oProxyCommand=x:1", "http://n1", "http://[::1", "", "ftp://n1:1", "http://n 1:2", "x"]
)
def test_a_url_that_no_router_has_is_refused(run, url):
    with pytest.raises(TunnelError, match="the router's URL"):
        address_of(url)
    run.write_router(record(url or "http://"))
    assert reader(run).read().url is None


def test_damaged_files_are_part_of_the_answer(run):
    run.router_path.write_text("{", encoding="utf-8")
    run.router_path.chmod(0o600)
    assert "router.json is not JSON" in reader(run).read().reason
    run.key_path.unlink()
    assert "no API key" in reader(run, with_key=True).read().reason


def test_only_the_certificate_leaves_the_file_with_the_key(run):
    pem = self_signed(new_key(), "cpu", ["127.0.0.1"], datetime.now(UTC))
    run.router_authority_path.write_text(pem, encoding="utf-8")
    run.router_authority_path.chmod(0o600)
    run.write_router(record("https://10.1.2.3:30000", fingerprint="AB"))
    view = reader(run).read()
    assert view.certificate.startswith("-----BEGIN CERTIFICATE-----") and "PRIVATE" not in view.certificate
    assert view.certificate_path == str(run.path / "router-ca.crt")
    run.write_spec(parse_spec(SPEC.replace("self_signed", "files") + "tls_certificate = '/c'\ntls_key = '/k'\n"))
    assert reader(run).read().certificate == ""


def test_why_there_is_no_router_is_asked_now_and_then(run):
    now, asked = [0.0], []

    def explain(run: RunDirectory) -> str:
        asked.append(now[0])
        if len(asked) == 2:
            raise SlurmError("squeue: no answer")
        return f"reason {len(asked)}"

    here = reader(run, explain=explain, clock=lambda: now[0])
    assert eventually(lambda: here.read().reason == "reason 1")
    now[0] = 14.0
    assert here.read().reason == "reason 1"
    now[0] = 16.0
    assert eventually(lambda: here.read().reason == "squeue: no answer")
    assert asked == [0.0, 16.0]


def test_whether_a_port_accepts():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert connection_fault("127.0.0.1", port) == ""
    assert "Connection refused" in connection_fault("127.0.0.1", port)
