"""The connection to the login node, by a program that stands in for ssh and does what the test has written down."""

import asyncio
import os
import shlex
from pathlib import Path

import pytest

from slurminfer.core.errors import TunnelError
from slurminfer.jobs.tunnel.announce import as_line
from slurminfer.jobs.tunnel.login import Login
from slurminfer.jobs.tunnel.printer import Printer
from slurminfer.jobs.tunnel.relay import Target
from slurminfer.jobs.tunnel.remote import follow_over_ssh
from slurminfer.jobs.tunnel.ssh import LinkLost, connect, end_fault
from slurminfer.jobs.tunnel.view import EndpointView

WAITING = EndpointView(name="cpu", reason="it is pending", run_directory="/r")
HERE = EndpointView(name="cpu", url="http://10.1.2.3:30000", host="n1", reachable=True, run_directory="/r")
# The first argument says what it is asked for; sessions run the next of the written scripts, and the last one again.
SSH = """#!/bin/sh
echo "$*" >> {folder}/asked
for word in "$@"; do case $word in
  -G) echo "controlpath none"; exit 0;;
  forward) echo "$*" | sed 's/.*-L \\([^:]*\\):.*/\\1/' | xargs touch; exit 0;;
  cancel) exit 0;;
esac; done
n=$(($(cat {folder}/count 2>/dev/null || echo 0) + 1)); echo $n > {folder}/count
[ -e {folder}/session-$n ] || exit 255
exec sh {folder}/session-$n
"""


class Paused(Exception):
    """The test has seen enough."""


class FakeSsh:
    """Sessions of a login node that never was."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sockets = folder / "sockets"
        self.sockets.mkdir()
        program = folder / "ssh"
        program.write_text(SSH.format(folder=folder), encoding="utf-8")
        program.chmod(0o755)
        self.pauses: list[float] = []
        self.target: Target | None = None

    def write(self, *scripts: str) -> None:
        """What the sessions do, one after the other."""
        for number, script in enumerate(scripts, 1):
            (self.folder / f"session-{number}").write_text(script, encoding="utf-8")

    def asked(self, word: str) -> list[str]:
        """The command lines that have a word."""
        return [line for line in (self.folder / "asked").read_text(encoding="utf-8").splitlines() if word in line]

    def follow(self, most_pauses: int) -> None:
        """Follow deployment cpu until it would pause for one time too many."""

        async def sleep(seconds: float) -> None:
            self.pauses.append(seconds)
            if len(self.pauses) == most_pauses:
                raise Paused

        async def follow() -> None:
            self.target = Target()
            printer = Printer(24000, self.sockets)
            await follow_over_ssh(Login("login"), "cpu", self.target, printer, self.sockets, sleep=sleep)

        asyncio.run(follow())


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSsh:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return FakeSsh(tmp_path)


def says(*views: EndpointView, then: str = "exit 255") -> str:
    """A session in which slurminfer says this."""
    return "".join(f"echo {shlex.quote(as_line(view))}\n" for view in views) + then


def test_it_connects_again_with_growing_pauses_that_begin_anew_after_success(ssh, capsys):
    lost = "echo 'ssh: connect to host login: Connection refused' >&2; exit 255"
    ssh.write(says(WAITING), lost, lost, lost, lost, lost, lost, says(WAITING), lost)
    with pytest.raises(Paused):
        ssh.follow(most_pauses=9)
    assert ssh.pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 1.0, 2.0]
    said = capsys.readouterr().err
    assert "tunnel: ssh login: connect to host login: Connection refused; connecting again in 2 s" in said


def test_each_address_is_forwarded_and_the_one_before_closed(ssh):
    moved = EndpointView(name="cpu", url="http://10.1.2.4:31000", host="n2", reachable=True, run_directory="/r")
    ssh.write(says(HERE, HERE, WAITING, HERE, moved))
    with pytest.raises(Paused):
        ssh.follow(most_pauses=1)
    opened = [line.split()[-2].partition(":")[2] for line in ssh.asked("forward -L")]
    closed = [line.split()[-2].partition(":")[2] for line in ssh.asked("cancel -L")]
    assert opened == ["10.1.2.3:30000", "10.1.2.4:31000"] and closed == ["10.1.2.3:30000"]
    assert ssh.target is not None and ssh.target.route is None  # connections wait until ssh is there again


def test_what_login_scripts_print_is_passed_over(ssh):
    ssh.write("echo Welcome to the cluster; echo '{\"name\": 1}'; echo\n" + says(WAITING))
    with pytest.raises(Paused):
        ssh.follow(most_pauses=1)


@pytest.mark.parametrize(
    ("session", "message"),
    [
        ("echo 'me@login: Permission denied (publickey).' >&2; exit 255", "ssh login: me@login: Permission denied"),
        ("exit 255", "ssh login: it ended without a word"),
        ("echo 'sh: slurminfer: not found' >&2; exit 127", "login has no 'slurminfer'.*--remote"),
        ("echo 'slurminfer: Command not found.' >&2; exit 1", "login has no 'slurminfer'.*--remote"),
        ("echo \"No such command 'endpoint'.\" >&2; exit 2", "slurminfer on login is older"),
        ("echo 'error: no deployment named cpu (there are: gpu)' >&2; exit 1", "^login: no deployment named cpu .*gpu"),
        ("exit 3", "login: the command there ended with exit code 3"),
        (says(WAITING).replace('"version":1', '"version":2'), "another version"),
    ],
)
def test_what_is_wrong_at_the_first_connection_ends_it(ssh, session, message):
    ssh.write(session)
    with pytest.raises(TunnelError, match=message):
        ssh.follow(most_pauses=1)


def test_what_cannot_be_made_good_ends_it_later_too(ssh):
    ssh.write(says(WAITING), "echo 'me@login: Permission denied (publickey).' >&2; exit 255")
    with pytest.raises(TunnelError, match="Permission denied"):
        ssh.follow(most_pauses=5)
    assert ssh.pauses == [1.0]


def test_a_connection_without_a_word_is_given_up(ssh):
    ssh.write(says(WAITING, then="exec sleep 600"))

    async def listen() -> list[str]:
        async with connect(Login("login"), "cpu", ssh.sockets, Printer(24000, ssh.sockets)) as link:
            return [view.reason async for view in link.views(silence_s=0.01)]

    with pytest.raises(LinkLost, match=r"no word from login for 0\.01 s"):
        asyncio.run(listen())


def test_without_ssh_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    async def follow() -> None:
        await follow_over_ssh(Login("login"), "cpu", Target(), Printer(24000, tmp_path), tmp_path)

    with pytest.raises(TunnelError, match="ssh: command not found"):
        asyncio.run(follow())


def test_only_the_last_error_of_slurminfer_is_told():
    said = ["Warning: something", "error: no deployment named 'cpu'", "Connection closed."]
    assert end_fault(Login("login"), 1, said) == "login: no deployment named 'cpu'"
