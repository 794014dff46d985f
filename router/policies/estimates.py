"""What answers teach about the next ones: lengths of answers, bytes of a token, and how fast each worker is."""

from collections import OrderedDict

USUAL_OUTPUT_TOKENS = 256.0
USUAL_BYTES_PER_TOKEN = 4.0
USUAL_PREFILL_RATE = 5_000.0  # tokens/s
USUAL_DECODE_RATE = 30.0  # tokens/s of one stream

# The share of a new value in an average, once there are many.
_STEP = 1 / 32
# Values further from the average than so many of the usual deviations count as if they were so far.
_OUTLIER = 4.0
_MOST_TENANTS = 4096
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
        step = max(_STEP, 1 / self.count)
        if self.count > 8:
            furthest = _OUTLIER * max(self.spread, 0.05 * self.value)
            value = min(max(value, self.value - furthest), self.value + furthest)
        self.spread += (abs(value - self.value) - self.spread) * max(_STEP, 1 / (self.count + 1))
        self.value += (value - self.value) * step


class Lengths:
    """Lengths of answers by model and tenant, and bytes of a prompt's token by model."""

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
            average = self._outputs.setdefault(key, Average(USUAL_OUTPUT_TOKENS))
            average.add(float(output_tokens))
            self._outputs.move_to_end(key)
        while len(self._outputs) > _MOST_TENANTS:
            self._outputs.popitem(last=False)

    def prompted(self, model: str, prompt_bytes: int, prompt_tokens: int) -> None:
        """Learn from the usage of an answer how many bytes a token has. `model`: one that a pool serves."""
        if prompt_bytes > 0 and prompt_tokens >= _LEAST_PROMPT_TOKENS:
            self._bytes.setdefault(model, Average(USUAL_BYTES_PER_TOKEN)).add(prompt_bytes / prompt_tokens)


class Rates:
    """How fast each worker computes, by its slot."""

    def __init__(self) -> None:
        self._prefill: dict[int, Average] = {}
        self._decode: dict[int, Average] = {}

    def prefill(self, slot: int) -> float:
        """Prompt tokens/s."""
        known = self._prefill.get(slot)
        return 1 / known.value if known is not None else USUAL_PREFILL_RATE

    def decode(self, slot: int) -> float:
        """Tokens/s of one stream."""
        known = self._decode.get(slot)
        return 1 / known.value if known is not None else USUAL_DECODE_RATE

    def began(self, slot: int, uncached_tokens: int, others_tokens: int, seconds: float) -> None:
        """Learn from a time to first token.

        uncached_tokens: of the prompt, that were computed; others_tokens: of other prompts that were pending when the
        request was sent, and computed before it. Where they were many, the request may have waited for other things.
        """
        if uncached_tokens >= _LEAST_PROMPT_TOKENS and others_tokens <= uncached_tokens and seconds > 0:
            computed = uncached_tokens + others_tokens
            self._prefill.setdefault(slot, Average(1 / USUAL_PREFILL_RATE)).add(seconds / computed)

    def streamed(self, slot: int, output_tokens: int, seconds: float) -> None:
        """Learn from an answer: its tokens, and the time from its first token to its last."""
        if output_tokens >= _LEAST_OUTPUT_TOKENS and seconds > 0:
            self._decode.setdefault(slot, Average(1 / USUAL_DECODE_RATE)).add(seconds / (output_tokens - 1))

    def forget(self, slot: int) -> None:
        """The life of a worker has ended."""
        self._prefill.pop(slot, None)
        self._decode.pop(slot, None)

    def report(self) -> dict[int, tuple[float, float]]:
        """Prefill and decode rate of each worker of which both were measured here."""
        return {slot: (self.prefill(slot), self.decode(slot)) for slot in self._prefill.keys() & self._decode.keys()}
