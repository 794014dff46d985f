"""A worker is ready when its engine computes: a token, or a vector where the engine is for embeddings."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer

import pytest

from slurminfer.nodes.agent.probe import EngineProbe

TOKEN = (200, {"usage": {"completion_tokens": 1}})
VECTOR = (200, {"data": [{"embedding": [0.5]}]})
REFUSED = (400, {"error": {"message": "generates no text"}})


@pytest.fixture
def probe_of(tmp_path):
    """Makes the probe of an engine that answers each path so."""
    ending: list[Callable[[], None]] = []

    def make(answers):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                status, body = answers.get(self.path, (404, {}))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        server = ThreadingUnixStreamServer(str(tmp_path / "engine.sock"), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        probe = EngineProbe(tmp_path / "engine.sock", "key", "m", [])
        ending.extend((probe.close, server.shutdown, server.server_close))
        return probe

    yield make
    for end in ending:
        end()


@pytest.mark.parametrize(
    ("answers", "computes"),
    [
        ({"/v1/completions": TOKEN}, True),
        ({"/v1/completions": (200, {"usage": {"completion_tokens": 0}})}, False),
        ({"/v1/completions": (200, [])}, False),
        ({"/v1/completions": (500, {}), "/v1/embeddings": VECTOR}, False),
        ({"/v1/completions": (503, {}), "/v1/embeddings": VECTOR}, False),
        ({"/v1/completions": REFUSED, "/v1/embeddings": VECTOR}, True),
        ({"/v1/embeddings": VECTOR}, True),
        ({"/v1/completions": REFUSED, "/v1/embeddings": (500, {})}, False),
        ({"/v1/completions": REFUSED, "/v1/embeddings": (200, {"data": []})}, False),
        ({"/v1/completions": REFUSED, "/v1/embeddings": (200, [])}, False),
        ({"/v1/completions": REFUSED}, False),
    ],
)
def test_an_engine_computes_if_a_token_or_a_vector_comes_out(probe_of, answers, computes):
    assert probe_of(answers).computes() is computes
