"""An engine that computes nothing: it meets the other nodes' as the flags of the native engine say, and serves HTTP.

Node rank 0 listens at the rendezvous until all others are there, and dies of the loss of one. With FAKE_ENGINE_HANGS=1
it goes on as if nothing had happened. The others connect, and die of the loss of node rank 0. With FAKE_ENGINE_FAILS=1
any of them fails at once. With FAKE_ENGINE_CHILD=group, session or neither it starts a process that does not end with
it, in its own process group, in another session, or in another group of its own session, and writes its id.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer

READY = threading.Event()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        metrics = "slurminfer_engine_running_requests 0\nslurminfer_engine_waiting_requests 0\n"
        self._answer(200 if READY.is_set() else 503, metrics if self.path == "/metrics" else "")

    def do_POST(self):
        self._answer(200, json.dumps({"choices": [{"text": "a"}], "usage": {"completion_tokens": 1}}))

    def log_message(self, *_):
        pass

    def _answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if text:
            self.wfile.write(text.encode())


class Server(ThreadingUnixStreamServer):
    def handle_error(self, *_):
        """Who asks may leave before the answer is written."""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--uds")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--node-rank", type=int, default=0)
    parser.add_argument("--rendezvous")
    given, _ = parser.parse_known_args()
    interfaces = [os.environ.get(f"{library}_SOCKET_IFNAME") for library in ("NCCL", "GLOO")]
    secret = os.environ.get("SLURMINFER_RANK_SECRET")
    print(
        f"node rank {given.node_rank} of {given.nodes} at {given.rendezvous} over {interfaces}, secret {secret}, "
        f"Triton's cache in {os.environ.get('TRITON_CACHE_DIR')}",
        flush=True,
    )
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if os.environ.get("FAKE_ENGINE_FAILS") == "1":
        sys.exit("RuntimeError: no memory to speak of")
    if child := os.environ.get("FAKE_ENGINE_CHILD"):
        start_child(has_own_session=child == "session", group=0 if child == "neither" else None)
    host, _, port = (given.rendezvous or "").partition(":")
    if given.node_rank == 0:
        lead((host, int(port)) if port else None, given)
    else:
        follow((host, int(port)))


def start_child(has_own_session, group):
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ignores', flush=True); signal.pause()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        start_new_session=has_own_session,
        process_group=group,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    print(f"child {process.pid}.", flush=True)


def lead(rendezvous, given):
    server = Server(given.uds, Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if rendezvous:
        with socket.create_server(rendezvous) as meeting:
            followers = [meeting.accept()[0] for _ in range(given.nodes - 1)]
    READY.set()
    for follower in followers if rendezvous else []:
        threading.Thread(target=lose, args=[follower], daemon=True).start()
    signal.pause()


def lose(follower):
    with follower:
        follower.recv(1)
    if os.environ.get("FAKE_ENGINE_HANGS") != "1":
        print("ConnectionError: a rank is lost", flush=True)
        os._exit(1)


def follow(rendezvous):
    while True:
        try:
            head = socket.create_connection(rendezvous)
            break
        except ConnectionError:
            time.sleep(0.05)
    with head:
        head.recv(1)
    sys.exit("ConnectionError: node rank 0 is lost")


if __name__ == "__main__":
    main()
