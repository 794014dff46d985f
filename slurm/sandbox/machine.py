"""The first process of one machine of the sandbox: PID 1 of its PID namespace, so that nothing on it outlives it.

Run by path with the services as JSON in argv[1]; uses the standard library only, so that it starts at once.
SIGTERM ends the services, the last first; SIGHUP starts those again that have ended.
"""

import json
import os
import signal
import subprocess
import sys
import time

SIGNALS = {signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0


def main() -> None:
    """Start the services in their order, and end them in the reverse order at SIGTERM."""
    services = json.loads(sys.argv[1])
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    pids = [start(service) for service in services]
    while (number := signal.sigwait(SIGNALS)) != signal.SIGTERM:
        reap()
        if number == signal.SIGHUP:
            pids = [pid if is_running(pid) else start(service) for pid, service in zip(pids, services, strict=True)]
    for pid in reversed(pids):
        stop(pid)


def start(service: dict[str, list[str]]) -> int:
    """Start a daemon and wait until it answers; the machine goes down with one that does not."""
    argv = service["argv"]
    pid = os.posix_spawnp(argv[0], argv, os.environ, setsigmask=())
    deadline = time.monotonic() + READY_TIMEOUT_S
    while subprocess.run(service["ready"], capture_output=True, preexec_fn=unblock).returncode != 0:
        if time.monotonic() > deadline or not is_running(pid):
            sys.exit(f"{argv[0]} does not answer")
        time.sleep(0.1)
    return pid


def stop(pid: int) -> None:
    """Ask a daemon to end, and wait for it."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    if is_running(pid):
        os.kill(pid, signal.SIGTERM)
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether this child has not ended yet."""
    reap()
    return os.path.exists(f"/proc/{pid}")


def reap() -> None:
    """Collect every ended process: PID 1 is the parent of all orphans."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def unblock() -> None:
    """Let a child process receive the signals that this one blocks; for the time between fork and exec."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


if __name__ == "__main__":
    main()
