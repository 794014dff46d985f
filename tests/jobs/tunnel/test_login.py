"""How `--to` is read, and the command lines of ssh."""

import shlex
from pathlib import Path

import pytest

from slurminfer.core.errors import UsageError
from slurminfer.jobs.tunnel.login import Login, parse_login


@pytest.mark.parametrize(
    ("text", "login", "destination"),
    [
        ("me@login.example", Login("login.example", "me"), ["me@login.example"]),
        ("cluster", Login("cluster"), ["cluster"]),
        ("me@login:2222", Login("login", "me", 2222), ["-p", "2222", "me@login"]),
        ("me@site.org@login", Login("login", "me@site.org"), ["me@site.org@login"]),
        ("me@[fe80::1]:22", Login("fe80::1", "me", 22), ["-p", "22", "me@fe80::1"]),
        ("fe80::1", Login("fe80::1"), ["fe80::1"]),
    ],
)
def test_a_login_node_is_read(text, login, destination):
    assert parse_login(text, "slurminfer") == login
    assert login.destination == destination


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-oProxyCommand=x",
        "me@",
        "me@-x",
        "@login",
        "a b",
        "me@login:0",
        "me@login:ssh",
        "me@login:65536",
        "x;y",
        "a\n",
    ],
)
def test_what_is_no_login_node_is_refused(text):
    with pytest.raises(UsageError, match="--to"):
        parse_login(text, "slurminfer")


def test_a_remote_command_must_say_something():
    with pytest.raises(UsageError, match="--remote"):
        parse_login("login", " ")


def test_a_session_takes_over_nothing_but_the_way_there():
    argv = Login("login", "me", 2222).session("slurminfer endpoint cpu", Path("/p/ssh"))
    assert argv[0] == "ssh" and argv[-1] == "slurminfer endpoint cpu" and argv[-4:-1] == ["-p", "2222", "me@login"]
    assert "ClearAllForwardings=yes" in argv and "RemoteCommand=none" in argv
    assert argv[argv.index("-S") + 1] == "/p/ssh"
    assert "-S" not in Login("login").session("x")  # the configuration says which connection is shared


def test_forwardings_name_a_socket_and_an_address():
    argv = Login("login").forwarding("forward", Path("/p/r"), ("10.1.2.3", 30000), Path("/p/ssh"))
    assert argv[-3:] == ["-L", "/p/r:10.1.2.3:30000", "login"]
    argv = Login("login").forwarding("cancel", Path("/p/r"), ("fd00::1", 30000), Path("/p/ssh"))
    assert argv[-2] == "/p/r:[fd00::1]:30000"


def test_the_command_there_may_be_several_words():
    login = parse_login("login", "module load python && ~/venv/bin/slurminfer")
    assert (
        login.endpoint_command("cpu", "--follow") == "module load python && ~/venv/bin/slurminfer endpoint cpu --follow"
    )
    by_hand = login.plain_tunnel("127.0.0.1", 8000, ("10.1.2.3", 30000))
    assert shlex.split(by_hand) == ["ssh", "-N", "-L", "127.0.0.1:8000:10.1.2.3:30000", "login"]
