"""`python -m slurminfer.nodes.gate`: lets in whoever has the worker's identity, until its agent kills it."""

import argparse
import asyncio
import gc
import logging
import signal
import socket
import sys
from pathlib import Path

import uvloop

from ...core.errors import SlurminferError
from ...core.net.acceptor import Acceptor
from ...core.net.byte_relay import Front, own_unix_socket
from ...core.net.identity import server_context
from ...core.net.sockets import allow_many_sockets


def main() -> int:
    """Serve until told to end; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m slurminfer.nodes.gate", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="descriptor of a TCP socket that listens")
    parser.add_argument("--identity", type=Path, required=True, help="file of the worker's identity")
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket of the engine")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    allow_many_sockets()
    try:
        uvloop.run(_serve(socket.socket(fileno=given.fd), given.identity, given.socket))
    except SlurminferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(listener: socket.socket, identity: Path, engine: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):  # sent to the whole job: what is in flight goes through here
        signal.signal(number, signal.SIG_IGN)
    acceptor = Acceptor(listener, server_context(identity), lambda: Front(own_unix_socket(engine)))
    acceptor.start()
    print("listening on {}:{}".format(*listener.getsockname()), flush=True)
    gc.freeze()
    await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
