"""One step of the engine: schedule, compute, sample, return tokens. Threads and clients are in thread.py."""

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import torch

from ..model.logits_budget import LogitsBudget, logits_budget
from ..model.process import describe
from ..model.step import Model, cumulative
from ..options import EngineOptions
from .begun import BegunStep, Part
from .block_manager import BlockManager
from .failures import Failure, FailureLog, StepError
from .late_masks import LateMasks
from .mask import prepare
from .pooling import add, embedding_of
from .prompt_scoring import score_prompts
from .request import Embedding, FinishReason, Limits, Output, Request, Sample
from .sampler import sample
from .scheduler import Scheduler, Slice
from .speculative.speculation import Speculation
from .stats import EngineStats


class EngineCore:
    """A model and the requests that it is computing."""

    def __init__(
        self,
        model: Model,
        options: EngineOptions,
        draft: Model | None = None,
        *,
        logits: LogitsBudget | None = None,
    ) -> None:
        """`draft` is the model of `draft_model`, in the same number of blocks.

        `logits`: how many rows of them a step may have; by default what a CPU has memory for.
        """
        self._model = model
        self._blocks = BlockManager(model.num_blocks, model.block_size)
        self._scheduler = Scheduler(
            self._blocks,
            self._fail,
            max_running_requests=options.max_running_requests,
            max_batch_tokens=options.max_batch_tokens,
            logits=logits or logits_budget(options, model.vocab_size),
            age_weight=options.age_weight,
            target_s=options.target_itl_ms / 1000 or math.inf,
        )
        self.limits = Limits(model.context_length, model.num_blocks * model.block_size, model.vocab_size)
        self._speculation = None
        if options.speculative != "none":
            self._speculation = Speculation(options, self._scheduler, self.limits, draft)
        self._compiled = model.compiled
        self._process = describe()
        self._prompt_tokens = self._generation_tokens = self._hit_tokens = self._steps = 0
        self._step_s = self._finished_at = 0.0
        self._begun: deque[BegunStep] = deque()
        self._embeddings: list[Embedding] = []
        self._failures: list[Failure] = []
        self._failed = 0
        self._log = FailureLog()
        self._late_masks = LateMasks()

    @property
    def busy(self) -> bool:
        """Whether any request is waiting or running, or a step has begun and not finished. Paused ones do not count."""
        return bool(self._scheduler.num_running or self._scheduler.num_waiting or self._begun)

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises RequestTooLongError for one that can never fit into the KV cache or the context, WrongTokensError.
        """
        self.limits.check(request.prompt_length, request.params.max_tokens)
        self.limits.check_tokens(request.tokens)
        self._scheduler.add(request)

    def submit(self, requests: Iterable[Request]) -> None:
        """Queue requests that came together; those that cannot be queued fail."""
        flow = None
        for request in requests:
            flow = request.flow = flow or request.id
            try:
                self.add(request)
            except Exception as error:
                self._fail(request, error)

    def abort(self, id: str) -> None:
        """Forget a request and free its blocks; nothing happens if it is over."""
        self._scheduler.remove(id)
        if self._speculation:
            self._speculation.forget(id)

    def abort_all(self, ids: Iterable[str]) -> None:
        """Forget requests and free their blocks; nothing happens to those that are over."""
        for id in ids:
            self.abort(id)

    def pause(self, ids: Iterable[str]) -> None:
        """Compute no more of these requests until they are resumed."""
        for id in ids:
            self._scheduler.pause(id)

    def resume(self, ids: Iterable[str]) -> None:
        """Let paused requests go on."""
        for id in ids:
            self._scheduler.resume(id)

    def take_failures(self) -> list[Failure]:
        """The requests that have failed since the last call. They are forgotten already."""
        failures, self._failures = self._failures, []
        return failures

    def take_embeddings(self) -> list[Embedding]:
        """The embeddings that were finished since the last call. Their requests are over."""
        embeddings, self._embeddings = self._embeddings, []
        return embeddings

    def step(self) -> list[Output]:
        """Begin as many steps as the model computes at once, finish one; its tokens, those of a request in order."""
        self._late_masks.settle()
        while len(self._begun) < self._model.depth and self._begin():
            pass
        if not self._begun:
            self._late_masks.wait()
            return []
        outputs = self._finish(self._begun.popleft())
        self._late_masks.begin(output.request for output in outputs if not output.finish)
        return outputs

    def _begin(self) -> bool:
        """Whether there was anything to begin with."""
        if self._model.compiled != self._compiled:  # it rounds otherwise: answers would depend on what is cached
            self._compiled = self._model.compiled
            self._blocks.forget()
        slices = self._scheduler.schedule(self._model.depth)
        guesses = self._guess(slices)
        parts = [part for slice in slices if (part := self._part(slice, guesses.get(slice.request.id, [])))]
        if not parts:
            return bool(slices)
        step = BegunStep(parts, guesses, time.perf_counter())
        for request in (*step.sampled, *step.embedded):
            if not request.generated:
                self._prompt_tokens += request.prompt_length
                self._hit_tokens += request.cached or 0
        self._begun.append(step)
        self._model.begin([part.chunk for part in parts])
        prepare(step.sampled)
        return True

    def _finish(self, step: BegunStep) -> list[Output]:
        output = self._model.finish()
        seconds = time.perf_counter() - step.at
        self._steps += 1
        self._step_s += seconds
        self._scheduler.complete(step.slices)
        if output.pooled is not None:
            for chunk, row in zip(step.pooled, output.pooled, strict=True):
                add(chunk, row)
        for request in step.embedded:
            self._embed(request)
        logits = score_prompts(output.rows, step.rows, self._fail)
        outputs = self._sample(logits, step.sampled, step.guesses)
        if self._speculation:
            self._speculation.learn(step.slices, step.guesses, outputs, seconds)
        self._scheduler.observe(step.work, time.perf_counter() - max(step.at, self._finished_at))
        self._finished_at = time.perf_counter()
        return outputs

    def _embed(self, request: Request) -> None:
        """End a request with its embedding."""
        if request.failed:
            return
        try:
            self._embeddings.append(embedding_of(request))
        except Exception as error:
            self._fail(request, error)
        else:
            self._scheduler.remove(request.id)

    def _guess(self, slices: Sequence[Slice]) -> dict[str, list[int]]:
        """Draft tokens; none for any request in a step in which one fails."""
        if self._speculation is None:
            return {}
        try:
            return self._speculation.guess(slices)
        except StepError:
            raise
        except Exception:
            for slice in slices:
                self._speculation.forget(slice.request.id)
        for slice in slices:  # one by one, to find the request that fails
            self._guess_alone(self._speculation, slice)
        return {}

    def _guess_alone(self, speculation: Speculation, slice: Slice) -> None:
        try:
            speculation.guess([slice])
        except StepError:
            raise
        except Exception as error:
            self._fail(slice.request, error)

    def _part(self, slice: Slice, guesses: list[int]) -> Part | None:
        """What a request computes in a step; None if it fails."""
        if slice.request.failed:
            return None
        try:
            return Part.of(slice, guesses)
        except Exception as error:
            self._fail(slice.request, error)
            return None

    def _sample(
        self, logits: torch.Tensor, requests: Sequence[Request], guesses: Mapping[str, list[int]]
    ) -> list[Output]:
        """Draw each request's next token, and the ones behind it for as long as they are what was guessed."""
        if not requests:
            return []
        if not guesses:
            return [output for output in self._draw(logits, requests) if output]
        outputs: list[Output] = []
        starts = cumulative([0] + [1 + len(guesses.get(request.id, [])) for request in requests])
        going, place = list(zip(requests, starts, strict=False)), 0
        while going:
            drawn = self._draw(logits[[start + place for _, start in going]], [request for request, _ in going])
            outputs.extend(output for output in drawn if output)
            going = [
                pair
                for pair, output in zip(going, drawn, strict=True)
                if output is not None
                and output.finish is None
                and guesses.get(output.request.id, [])[place : place + 1] == [output.token]
            ]
            for request, _ in going:
                self._scheduler.advance(request, 1)
            place += 1
        return outputs

    def _draw(self, logits: torch.Tensor, requests: Sequence[Request]) -> list[Output | None]:
        """A token for each request; None for those that fail."""
        try:
            samples = sample(logits, requests)
        except Exception as error:
            if len(requests) == 1:
                self._fail(requests[0], error)
                return [None]
        else:
            return [self._extend(*pair) for pair in zip(requests, samples, strict=True)]
        # Row by row, to find the request that fails. The others get the same tokens.
        return [self._draw(logits[row : row + 1], [request])[0] for row, request in enumerate(requests)]

    def _fail(self, request: Request, error: Exception) -> None:
        if request.failed:
            return
        request.failed = True
        self._failed += 1
        self._failures.append(failure := Failure(request, error))
        self._log.write(failure)
        self.abort(request.id)

    def close(self) -> None:
        """End the processes that compute with this one. No step may follow."""
        self._model.close()

    def stats(self) -> EngineStats:
        """Figures of the engine at this moment, for its metrics."""
        return EngineStats(
            running_requests=self._scheduler.num_running,
            waiting_requests=self._scheduler.num_waiting,
            paused_requests=self._scheduler.num_paused,
            kv_blocks_used=self._blocks.num_used,
            kv_blocks_total=self._blocks.num_blocks,
            kv_block_tokens=self._blocks.block_size,
            prefix_cache_hit_tokens=self._hit_tokens,
            prompt_tokens=self._prompt_tokens,
            generation_tokens=self._generation_tokens,
            preemptions=self._scheduler.preemptions,
            failed_requests=self._failed,
            speculative_draft_tokens=self._speculation.guessed if self._speculation else 0,
            speculative_accepted_tokens=self._speculation.accepted if self._speculation else 0,
            steps=self._steps,
            step_seconds=self._step_s,
            communication_seconds=self._model.communication_s,
            compiled_kernels=self._model.compiled,
            process=self._process,
        )

    def _extend(self, request: Request, sample: Sample) -> Output | None:
        if request.failed:
            return None
        if request.params.max_tokens == 0:
            self._scheduler.remove(request.id)
            return Output(request, None, FinishReason.LENGTH)
        try:
            finish = request.extend(sample.token)
        except Exception as error:
            self._fail(request, error)
            return None
        self._generation_tokens += 1
        if finish:
            self._scheduler.remove(request.id)
        return Output(request, sample, finish)
