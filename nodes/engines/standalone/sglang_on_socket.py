"""`python sglang_on_socket.py SOCKET --port PORT ...`: sglang.launch_server, with its HTTP server on a Unix socket.

SGLang 0.5.16 has no option for that. Its server is uvicorn, which has one: the configuration for PORT, which SGLang
makes for its HTTP server (on further nodes, for the server that only says that they live), gets the socket's path
instead. Nothing listens at PORT then.
"""

import functools
import os
import runpy
import socket
import sys

import uvicorn


def main() -> None:
    """Run SGLang with the words that follow SOCKET, as `python -m sglang.launch_server` would."""
    path = sys.argv.pop(1)
    port = int(sys.argv[sys.argv.index("--port") + 1])
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry != folder]  # what Python puts there for a script
    _listen_on_socket(path, port)
    # As __main__, so that the processes which SGLang spawns import what they expect.
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)


def _listen_on_socket(path: str, port: int) -> None:
    made = uvicorn.Config.__init__

    @functools.wraps(made)
    def make(config: uvicorn.Config, *args: object, **options: object) -> None:
        if options.get("port") == port:
            options = {**options, "uds": path}
            _leave_socket(path)
        made(config, *args, **options)

    uvicorn.Config.__init__ = make


def _leave_socket(path: str) -> None:
    """Leave a socket of mode 0600 at `path`: uvicorn replaces it by its own, and takes its mode, else 0666."""
    if os.path.exists(path):
        return
    with socket.socket(socket.AF_UNIX) as holder:
        holder.bind(path)
    os.chmod(path, 0o600)


if __name__ == "__main__":
    main()
