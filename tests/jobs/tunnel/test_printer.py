"""What a tunnel's user reads."""

import shlex
from pathlib import Path

import msgspec
import pytest

from slurminfer.jobs.tunnel.printer import Printer
from slurminfer.jobs.tunnel.view import EndpointView

AWAY = EndpointView(name="cpu", reason="it is pending: Priority", run_directory="/r", key="sk-secret")
HERE = EndpointView(
    name="cpu", url="http://10.1.2.3:30000", host="n1", reachable=True, run_directory="/r", key="sk-secret"
)


def told(printer: Printer, capsys: pytest.CaptureFixture[str], *views: EndpointView) -> tuple[list[str], list[str]]:
    for view in views:
        printer.view(view)
    said = capsys.readouterr()
    return said.out.splitlines(), said.err.splitlines()


def test_the_two_lines_come_with_the_first_router_and_only_once(tmp_path, capsys):
    printer = Printer(24000, tmp_path)
    out, err = told(printer, capsys, AWAY, AWAY)
    assert out == []
    assert err == ["tunnel: waiting for the router of 'cpu': it is pending: Priority; new connections wait too"]
    out, err = told(printer, capsys, HERE, HERE)
    assert out == [
        "export OPENAI_BASE_URL=http://127.0.0.1:24000/v1",
        f"export OPENAI_API_KEY=$(cat {shlex.quote(str(tmp_path / 'key'))})",
    ]
    assert err == ["tunnel: 127.0.0.1:24000 leads to 'cpu', http://10.1.2.3:30000 on n1, until Ctrl-C"]
    moved = msgspec.structs.replace(HERE, url="http://10.1.2.4:31000", host="n2")
    out, err = told(printer, capsys, moved, AWAY, moved)
    assert out == []
    assert err == [
        "tunnel: the router of 'cpu' is http://10.1.2.4:31000 on n2 now; new connections go there",
        "tunnel: waiting for the router of 'cpu': it is pending: Priority; new connections wait too",
        "tunnel: the router of 'cpu' answers again",
    ]


def test_the_key_is_in_a_file_of_this_user_alone(tmp_path, capsys):
    out, err = told(Printer(24000, tmp_path), capsys, HERE)
    assert "sk-secret" not in "".join([*out, *err])
    assert (tmp_path / "key").read_text(encoding="utf-8") == "sk-secret\n"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_on_the_login_node_the_key_stays_where_it_is(tmp_path, capsys):
    Printer(24000, tmp_path).view(HERE, Path("/home/me/.slurminfer/runs/cpu/key"))
    assert "export OPENAI_API_KEY=$(cat /home/me/.slurminfer/runs/cpu/key)" in capsys.readouterr().out
    assert not (tmp_path / "key").exists()


def test_https_is_told_with_fingerprint_and_certificate(tmp_path, capsys):
    secure = msgspec.structs.replace(HERE, url="https://10.1.2.3:30000", fingerprint="AB:CD", certificate="PEM\n")
    out, _ = told(Printer(24000, tmp_path), capsys, secure)
    assert out[0] == "export OPENAI_BASE_URL=https://127.0.0.1:24000/v1"
    assert out[2:] == [
        "# SHA-256 of its certificate: AB:CD",
        f"export SSL_CERT_FILE={shlex.quote(str(tmp_path / 'certificate.pem'))}",
    ]
    assert (tmp_path / "certificate.pem").read_text(encoding="utf-8") == "PEM\n"


def test_what_others_say_commands_no_terminal_and_does_not_repeat(tmp_path, capsys):
    now = [0.0]
    printer = Printer(24000, tmp_path, clock=lambda: now[0])
    printer.ssh_said("\x1b]0;owned\x07 Enter your token")
    for channel in range(3):
        printer.ssh_said(f"channel {channel}: open failed: connect failed: Connection refused")
    printer.ssh_said("error: no deployment named 'cpu'")
    now[0] = 61.0
    printer.ssh_said("channel 9: open failed: connect failed: Connection refused")
    assert capsys.readouterr().err.splitlines() == [
        r"ssh: \x1b]0;owned\x07 Enter your token",
        "ssh: channel 0: open failed: connect failed: Connection refused",
        "ssh: channel 9: open failed: connect failed: Connection refused",
    ]
