"""What a tunnel tells its user: the environment lines on standard output, all else on standard error."""

import shlex
import time
from collections.abc import Callable
from pathlib import Path

from ...core.files import write_atomic
from ..terminal.console import stderr, stdout
from .port import ADDRESS
from .view import EndpointView

_SAME_AGAIN_S = 60.0
_REMOTE_ERROR = "error: "  # is said again, in the tunnel's own error


class Printer:
    """Tells what has changed, in one line each.

    Args:
        port: the local one.
        folder: for the key and the certificate, which the printed lines refer to. Only this user can enter it.
        clock: seconds that never go back.
    """

    def __init__(self, port: int, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._port, self._folder, self._clock = port, folder, clock
        self._last: EndpointView | None = None
        self._url: str | None = None  # where the router was last
        self._printed: list[str] = []
        self._told: dict[str, float] = {}  # when

    def view(self, view: EndpointView, key_path: Path | None = None) -> None:
        """Tell what is new in a view. `key_path`: of the API key, where this machine has it in a file already."""
        last, self._last = self._last, view
        if last is None or (view.url, view.reachable, view.reason) != (last.url, last.reachable, last.reason):
            self._tell(view, was_away=last is not None and not last.reachable)
        if view.url is not None:
            self._print_environment(view, key_path)

    def lost(self, reason: str, again_s: float) -> None:
        """Tell that the connection to the login node has ended."""
        self.note(f"{reason}; connecting again in {again_s:g} s")

    def note(self, text: str) -> None:
        """Tell something else."""
        stderr.print(f"tunnel: {text}", soft_wrap=True)

    def refused(self) -> None:
        """Tell, once a minute, that another user has tried the port."""
        if self._is_news("refused"):
            self.note("another user of this machine has tried this port, and was refused")

    def ssh_said(self, line: str) -> None:
        """Pass on what ssh says: banners and questions for a second factor too. The same is told once a minute."""
        what = line.partition(": ")[2] if line.startswith("channel ") else line
        if not line.startswith(_REMOTE_ERROR) and self._is_news(what):
            stderr.print(f"ssh: {line.removeprefix('ssh: ')}", soft_wrap=True)

    def _is_news(self, what: str) -> bool:
        now = self._clock()
        if now - self._told.get(what, float("-inf")) < _SAME_AGAIN_S:
            return False
        self._told[what] = now
        return True

    def _tell(self, view: EndpointView, was_away: bool) -> None:
        if not view.reachable:
            self.note(f"waiting for the router of '{view.name}': {view.reason}; new connections wait too")
        elif self._url is None:
            self.note(f"127.0.0.1:{self._port} leads to '{view.name}', {view.url} on {view.host}, until Ctrl-C")
        elif self._url != view.url:
            self.note(f"the router of '{view.name}' is {view.url} on {view.host} now; new connections go there")
        elif was_away:
            self.note(f"the router of '{view.name}' answers again")
        if view.reachable:
            self._url = view.url

    def _print_environment(self, view: EndpointView, key_path: Path | None) -> None:
        if key_path is None:
            key_path = self._folder / "key"
            write_atomic(key_path, view.key + "\n")
        certificate = None
        if view.certificate:
            certificate = self._folder / "certificate.pem"
            write_atomic(certificate, view.certificate)
        lines = [
            *environment_lines(view, self._port, f"cat {shlex.quote(str(key_path))}"),
            *https_lines(view, certificate),
        ]
        if lines != self._printed:
            self._printed = lines
            for line in lines:
                stdout.print(line)


def environment_lines(view: EndpointView, port: int, key_command: str) -> list[str]:
    """The two lines for a shell that clients run in. The key is read from a file: a terminal's log may be kept."""
    scheme = (view.url or "http:").partition(":")[0]
    return [
        f"export OPENAI_BASE_URL={scheme}://{ADDRESS}:{port}/v1",
        f"export OPENAI_API_KEY=$({key_command})",
    ]


def https_lines(view: EndpointView, certificate: Path | None) -> list[str]:
    """What clients of an HTTPS endpoint need besides, as lines of a shell. None of them without HTTPS.

    Args:
        view: of the endpoint.
        certificate: where its self-signed one is on this machine, if it has one.
    """
    if not view.fingerprint:
        return []
    said = f"# SHA-256 of its certificate: {' '.join(view.fingerprint.split())}"
    if certificate is not None:
        return [said, f"export SSL_CERT_FILE={shlex.quote(str(certificate))}"]
    return [said, f"# Clients must expect the names that it is for; {ADDRESS} is none of them."]
