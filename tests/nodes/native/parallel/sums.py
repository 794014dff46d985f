"""One rank that sums or exchanges what it is told to, over and over if need be: leaves what it has found.

python sums.py PLACE(json) SIZES(json) DTYPES OUT         sums, as tensors by dtype
python sums.py PLACE(json) rows ROWS(json) OUT            rows that it has got, of ROWS[from][to] to each
python sums.py PLACE(json) lost                           says "waiting", and the error that ends its wait
python sums.py PLACE(json) forever                        says "summing"
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from slurminfer.nodes.native.model.parallel.ranks import Ranks
from slurminfer.nodes.native.model.parallel.rendezvous.failure_detector import FailureDetector
from slurminfer.nodes.native.model.parallel.rendezvous.inherited import rank_secret
from slurminfer.nodes.native.model.parallel.rendezvous.key_table import Ask
from slurminfer.nodes.native.model.parallel.rendezvous.lifeline import Lifeline
from slurminfer.nodes.native.options import ParallelOptions


def share_of(rank: int, size: int) -> torch.Tensor:
    """What a rank adds: sums of these depend on their order."""
    numbers = torch.randn(size, generator=torch.Generator().manual_seed(1000 * rank + size))
    return numbers * 10 ** (rank % 3)


def main(argv: Sequence[str]) -> None:
    torch.set_num_threads(1)
    place, what, *rest = json.loads(argv[0]), *argv[1:]
    where = ParallelOptions(**place)
    ranks = Ranks(where, torch.device("cpu"), 1, table_of(where))
    if what == "lost":
        lose(ranks, where.rank)
    elif what == "forever":
        print("summing", flush=True)
        while True:
            ranks.all_reduce(torch.ones(1000))
    elif what == "rows":
        sent, folder = json.loads(rest[0]), Path(rest[1])
        own, size = where.sequence_rank, 9  # numbers of a row
        x = torch.cat([torch.full((count, size), 10.0 * own + to) for to, count in enumerate(sent[own])])
        received = [line[own] for line in sent]
        found = torch.empty(sum(received), size)
        for _ in range(3):
            ranks.all_to_all(x, found, sent[own], received)
        torch.save(found, folder / f"{where.rank}.pt")
        ranks.all_reduce_min(0)
        os._exit(0)
    else:
        dtypes, out = rest
        by_dtype = {}
        for dtype in dtypes.split(","):
            shares = [share_of(where.rank, size).to(getattr(torch, dtype)) for size in json.loads(what)]
            by_dtype[dtype] = [ranks.all_reduce(share) for share in shares]
        torch.save(by_dtype, Path(out) / f"{where.rank}.pt")
        ranks.all_reduce_min(0)  # rank 0 has what the others meet at
        os._exit(0)  # gloo's threads may not end well


def table_of(place: ParallelOptions) -> Ask:
    """Where ranks meet; it goes with rank 0."""
    if place.rank:
        return Lifeline(str(place.rendezvous), place.rank, rank_secret(), queue.SimpleQueue()).ask
    others, ignore = place.ranks - 1, queue.SimpleQueue[object]()
    return FailureDetector(str(place.rendezvous), others, rank_secret(), queue.SimpleQueue(), ignore.put).ask


def lose(ranks: Ranks, rank: int) -> None:
    """Rank 1 never comes to the second sum."""
    ranks.all_reduce(torch.ones(1))
    if rank == 1:
        sys.stdin.read()
    print("waiting", flush=True)
    threading.Timer(0.5, ranks.abort).start()
    try:
        ranks.all_reduce(torch.ones(1))
    except RuntimeError as error:
        print(error, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
