"""What answers teach about the next ones: lengths of answers, bytes of a token, and how fast each worker is."""

from collections import OrderedDict
from collections.abc import Iterable

USUAL_OUTPUT_TOKENS = 256.0
USUAL_BYTES_PER_TOKEN = 4.0
USUAL_PREFILL_RATE = 5_000.0  # tokens/s
USUAL_DECODE_RATE = 30.0  # tokens/s of one stream

# The share of a new value in an average, once there are many.
_STEP = 1 / 32
# Values further from the average than so many of the usual deviations count as if they were so far.
_OUTLIER = 4.0
_MOST_TENANTS = 4096
# A worker's speed is mixed with the mean of all, as if it were so many requests.
_FEW = 4
# Below these, what a request measures is overhead rather than speed.
_LEAST_PROMPT_TOKENS = 128
_LEAST_OUTPUT_TOKENS = 8


class Average:
    """An exponential average with its mean deviation, which a few outliers do not move far."""

    __slots__ = ("count", "spread", "value")

    def __init__(self, usual: float) -> None:
        self.value = usual  # until there is a first value
        self.spread = usual / 2
        self.count = 0

    def add(self, value: float) -> None:
        """Take one more value. The first ones count as much as all before them."""
        self.count += 1
        away = value - self.value
        if self.count > 8:
            furthest = _OUTLIER * max(self.spread, 0.05 * self.value)
            away = min(max(away, -furthest), furthest)
        self.spread += (abs(away) - self.spread) * max(_STEP, 1 / (self.count + 1))
        self.value += away * max(_STEP, 1 / self.count)


class Lengths:
    """Lengths of answers by model and tenant, and bytes of a prompt's token by model.

    Models are named as they are served: of names that clients make up there may be any number.
    """

    def __init__(self) -> None:
        self._outputs: OrderedDict[tuple[str, str], Average] = OrderedDict()
        self._bytes: dict[str, Average] = {}

    def output_tokens(self, model: str, tenant: str, max_tokens: int | None) -> int:
        """Tokens that an answer has on average, for this tenant or else for the model; max_tokens at most."""
        known = self._outputs.get((model, tenant)) or self._outputs.get((model, ""))
        expected = known.value if known is not None else USUAL_OUTPUT_TOKENS
        if max_tokens is not None and max_tokens < expected:
            expected = max_tokens
        return int(expected) if expected > 1 else 1

    def bytes_per_token(self, model: str) -> float:
        """Bytes of a prompt per token that the engine counted."""
        known = self._bytes.get(model)
        return known.value if known is not None else USUAL_BYTES_PER_TOKEN

    def answered(self, model: str, tenant: str, output_tokens: int) -> None:
        """Learn from an answer that ended by itself or by max_tokens."""
        for key in ((model, tenant), (model, "")):
            average = self._outputs.get(key)
            if average is None:
                average = self._outputs[key] = Average(USUAL_OUTPUT_TOKENS)
            average.add(float(output_tokens))
            self._outputs.move_to_end(key)
        while len(self._outputs) > _MOST_TENANTS:
            self._outputs.popitem(last=False)

    def prompted(self, model: str, prompt_bytes: int, prompt_tokens: int) -> None:
        """Learn from the usage of an answer how many bytes a token has. `model`: one that a pool serves."""
        if prompt_bytes > 0 and prompt_tokens >= _LEAST_PROMPT_TOKENS:
            self._bytes.setdefault(model, Average(USUAL_BYTES_PER_TOKEN)).add(prompt_bytes / prompt_tokens)


class _Speed:
    """Tokens and seconds of about the last 32 requests. Long ones count more: short ones measure overhead."""

    __slots__ = ("count", "seconds", "tokens")

    def __init__(self) -> None:
        self.tokens = self.seconds = 0.0
        self.count = 0

    def add(self, tokens: int, seconds: float) -> None:
        """Take one more request."""
        if self.count >= _FEW:
            seconds = min(seconds, _OUTLIER * tokens * self.seconds / self.tokens)
        self.count += 1
        self.tokens += tokens - self.tokens * _STEP
        self.seconds += seconds - self.seconds * _STEP


class _Speeds:
    """Tokens/s by the slots of workers. Where few requests were measured, a worker is taken to be as fast as others."""

    def __init__(self, usual: float) -> None:
        self._usual = usual
        self.known: dict[int, _Speed] = {}

    def add(self, slot: int, tokens: int, seconds: float) -> None:
        """Take one more request of a worker."""
        if slot not in self.known:
            self.known[slot] = _Speed()
        self.known[slot].add(tokens, seconds)

    def all(self) -> dict[int, float]:
        """The speed of each worker of which something was measured."""
        mean = self.mean()
        return {slot: _blend(speed, mean) for slot, speed in self.known.items()}

    def mean(self) -> float:
        """The speed of all workers together; a usual figure until there is one."""
        seconds = sum(one.seconds for one in self.known.values())
        return sum(one.tokens for one in self.known.values()) / seconds if seconds else self._usual


def _blend(speed: _Speed, mean: float) -> float:
    """The speed, as if some requests at the mean speed had been measured too."""
    prior = _FEW * speed.tokens / speed.count if speed.count < 1 / _STEP else _FEW * speed.tokens * _STEP
    return (speed.tokens + prior) / (speed.seconds + prior / mean)


class Rates:
    """How fast each worker computes, by its slot."""

    def __init__(self) -> None:
        self._prefill, self._decode = _Speeds(USUAL_PREFILL_RATE), _Speeds(USUAL_DECODE_RATE)

    def of(self, slots: Iterable[int]) -> dict[int, tuple[float, float]]:
        """Prompt tokens/s, and tokens/s of one stream, of each of these workers."""
        prefill, decode = self._prefill.all(), self._decode.all()
        usual = self._prefill.mean(), self._decode.mean()
        return {slot: (prefill.get(slot, usual[0]), decode.get(slot, usual[1])) for slot in slots}

    def began(self, slot: int, uncached_tokens: int, others_tokens: int, seconds: float) -> None:
        """Learn from a time to first token.

        uncached_tokens: of the prompt, that were computed; others_tokens: of other prompts that were pending when the
        request was sent, and computed before it. Where they were many, the request may have waited for other things.
        """
        if uncached_tokens >= _LEAST_PROMPT_TOKENS and others_tokens <= uncached_tokens and seconds > 0:
            self._prefill.add(slot, uncached_tokens + others_tokens, seconds)

    def streamed(self, slot: int, output_tokens: int, seconds: float) -> None:
        """Learn from an answer: its tokens, and the time from its first token to its last."""
        if output_tokens >= _LEAST_OUTPUT_TOKENS and seconds > 0:
            self._decode.add(slot, output_tokens - 1, seconds)

    def forget(self, slot: int) -> None:
        """The life of a worker has ended."""
        self._prefill.known.pop(slot, None)
        self._decode.known.pop(slot, None)

    def report(self) -> dict[int, tuple[float, float]]:
        """Prefill and decode rate of each worker of which both were measured here."""
        return self.of(self._prefill.known.keys() & self._decode.known.keys())
