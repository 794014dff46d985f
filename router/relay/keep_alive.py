"""Comments in streams that have no event yet: proxies and clients give silent connections up, often after a minute."""

from ..http.waiting import Waiting
from .call import Call
from .stream.envelope import CHAT, COMPLETIONS


class KeepAlive:
    """Sends a comment into each stream that has been silent for some time since its request came, again and again.

    Wherever the request is: it may wait for a worker that is started, or for a long prompt. With the first comment the
    answer has begun, with status 200.
    """

    def __init__(self, after_ticks: int) -> None:
        self._waiting: Waiting[Call] = Waiting(after_ticks)

    def put(self, call: Call) -> None:
        """Look after a request from now on, if it asks for a stream of a known form."""
        if call.envelope.streams and call.envelope.kind in (CHAT, COMPLETIONS):
            self._waiting.put(call)

    def drop(self, call: Call) -> None:
        """The request is over."""
        self._waiting.drop(call)

    def tick(self) -> None:
        """Let a tick pass."""
        for call in self._waiting.tick():
            if call.outlet.comment_of_ours():
                self._waiting.put(call)
