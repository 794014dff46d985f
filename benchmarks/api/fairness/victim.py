"""One client that streams chat completions, one after the other, and notes when each token comes.

python -m benchmarks.api.fairness.victim URL SECONDS: prints JSON.
"""

import json
import sys
import time
from itertools import pairwise

import httpx

from .tenants import MODEL

_TOKENS = 100
_MOST_S = 60.0  # that is waited for one token; longer waits count as so long


def stream(client: httpx.Client, number: int, until: float) -> tuple[float, list[float]]:
    """Seconds to the first token, and between tokens, of one answer; cut off at `until`."""
    body = {
        "model": MODEL, "stream": True, "max_tokens": _TOKENS, "ignore_eos": True, "temperature": 0,
        "messages": [{"role": "user", "content": f"{number}. Tell me a story about a lighthouse."}],
    }  # fmt: skip
    times = [time.perf_counter()]
    try:
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                    times.append(time.perf_counter())
                if times[-1] > until:
                    break
    except httpx.ReadTimeout:
        times.append(time.perf_counter())
    gaps = [after - before for before, after in pairwise(times)]
    return gaps[0], gaps[1:]


def main() -> None:
    """Stream until the time is over; what has begun by then goes on to its next token."""
    url, seconds = sys.argv[1], float(sys.argv[2])
    first: list[float] = []
    gaps: list[float] = []
    until = time.perf_counter() + seconds
    with httpx.Client(base_url=url, timeout=_MOST_S) as client:
        while time.perf_counter() < until:
            began, between = stream(client, len(first), until)
            first.append(began)
            gaps += between
    print(json.dumps({"first_s": first, "gaps_s": gaps}))


if __name__ == "__main__":
    main()
