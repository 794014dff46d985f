"""A request leaves nothing that only a collection of garbage could free, however it ends."""

import socket

import pytest

from ...support.garbage import garbage
from .relayed import hang

COUNT = 3
ASKED = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\nContent-Length: 30\r\n\r\n"
    b'{"model": "m", "messages": []}'
)


def ours(left):
    return {kind for kind in left if kind.__module__.startswith("slurminfer.router.")}


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_that_is_answered(one, stream):
    one.chat(stream=stream)
    with garbage() as left:
        for _ in range(COUNT):
            one.chat(stream=stream)
    assert not ours(left)


def test_a_request_whose_client_hangs_up(one, eventually):
    one.stubs[0].behaviour = hang
    with garbage() as left:
        for count in range(1, COUNT + 1):
            with socket.create_connection(one.address, timeout=20) as client:
                client.sendall(ASKED)
                eventually(lambda count=count: len(one.stubs[0].asked) == count)
        eventually(one.is_idle)
        eventually(lambda: not any(one.report().connections.values()))
    assert not ours(left)
