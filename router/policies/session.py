"""The policy `session`."""

from collections.abc import Sequence

from xxhash import xxh3_64_intdigest

from .load import least_loaded, load, mean_load, most_load
from .policy import Memoryless, Route, RoutedRequest, Worker


class Session(Memoryless):
    """The same worker for all requests of a session, unless it is overloaded.

    Rendezvous hashing: every session has an order of its own of all workers, so that only the sessions of a worker that
    goes move. With bounded loads (arXiv 1608.01350) the first worker in that order that is not overloaded is taken.
    """

    def choose(self, request: RoutedRequest, workers: Sequence[Worker]) -> Route | None:
        """The session's worker; without a session the one with the least load; None if there are none."""
        if not workers:
            return None
        if request.session is None:
            return Route(least_loaded(workers), "load")
        seed = xxh3_64_intdigest(request.session.encode(errors="surrogatepass"))
        ordered = sorted(workers, key=lambda worker: xxh3_64_intdigest(worker.id.encode(), seed))
        loads = [load(worker) for worker in ordered]
        bound = most_load(mean_load(workers), min(loads))
        chosen = next((worker for worker, its in zip(ordered, loads, strict=True) if its <= bound), ordered[0])
        return Route(chosen, "session" if chosen is ordered[0] else "spread")
