"""The loop's one step: schedule, compute, sample, hand out. No threads, no clients; see engine.py for these."""

from dataclasses import dataclass

from .block_manager import BlockManager
from .metrics import EngineStats
from .options import EngineOptions
from .request import FinishReason, Limits, Request, Sample
from .sampler import sample
from .scheduler import Scheduler
from .step import Chunk, Model


@dataclass(frozen=True, slots=True)
class Output:
    """One new token of a request, the last one if `finish` says why."""

    request: Request
    sample: Sample
    finish: FinishReason | None


class EngineCore:
    """A model and the requests that it is computing."""

    def __init__(self, model: Model, options: EngineOptions) -> None:
        self._model = model
        self._blocks = BlockManager(model.num_blocks, model.block_size)
        self._scheduler = Scheduler(
            self._blocks,
            max_running_requests=options.max_running_requests,
            max_batch_tokens=options.max_batch_tokens,
        )
        self.limits = Limits(model.context_length, model.num_blocks * model.block_size, model.vocab_size)
        self._prompt_tokens = self._generation_tokens = self._hit_tokens = 0

    @property
    def busy(self) -> bool:
        return bool(self._scheduler.num_running or self._scheduler.num_waiting)

    def add(self, request: Request) -> None:
        """Take a request. Raises RequestTooLongError, for it would wait forever."""
        self.limits.check(request.prompt_length, request.params.max_tokens)
        self._scheduler.add(request)

    def abort(self, id: str) -> None:
        """Forget a request and free its blocks; nothing happens if it is over."""
        self._scheduler.remove(id)

    def step(self) -> list[Output]:
        """Compute one step; the tokens that came out of it."""
        slices = self._scheduler.schedule()
        sampled = [slice.request for slice in slices if slice.reaches_end]
        for request in sampled:
            if not request.generated:
                self._prompt_tokens += request.prompt_length
                self._hit_tokens += request.cached or 0
        logits = self._model.forward([
            Chunk(
                request.tokens[request.computed : request.computed + slice.count],
                request.computed,
                request.blocks,
                int(slice.reaches_end),
            )
            for slice in slices
            for request in [slice.request]
        ])  # fmt: skip
        self._scheduler.complete(slices)
        if not sampled:
            return []
        return [self._extend(*pair) for pair in zip(sampled, sample(logits, sampled), strict=True)]

    def stats(self) -> EngineStats:
        return EngineStats(
            running_requests=self._scheduler.num_running,
            waiting_requests=self._scheduler.num_waiting,
            kv_blocks_used=self._blocks.num_used,
            kv_blocks_total=self._blocks.num_blocks,
            prefix_cache_hit_tokens=self._hit_tokens,
            prompt_tokens=self._prompt_tokens,
            generation_tokens=self._generation_tokens,
            preemptions=self._scheduler.preemptions,
        )

    def _extend(self, request: Request, sample: Sample) -> Output:
        self._generation_tokens += 1
        finish = request.extend(sample.token)
        if finish:
            self._scheduler.remove(request.id)
        return Output(request, sample, finish)
