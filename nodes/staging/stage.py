"""Weights on the node's own disk while a worker runs: `stage_weights` of its pool.

A worker does not fail because its weights cannot be copied: its engine reads them where they are, and the record of the
worker says why.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from ...core.errors import EngineError, StagingError
from ...core.spec.model import ModelSpec, SpeculativeSpec
from ...core.spec.pool import PoolSpec
from .scratch import given_folder, is_of_job, node_scratch, own_folder
from .source import Source, source_of
from .store import Store, gigabytes

Pause = Callable[[float], bool]  # waits so many seconds at most; False: the worker is to end


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The models of a worker, by the paths that its engine reads."""

    model: ModelSpec
    speculative: SpeculativeSpec | None
    seconds: float | None = None  # that staging has taken; None: nothing was to be staged
    remark: str = ""  # why something is not staged that was to be


class _EndingError(Exception):
    """The worker is to end, and staging with it."""


@contextmanager
def staged(pool: PoolSpec, weights: Weights, pause: Pause) -> Iterator[Weights]:
    """The weights on the node's own disk, if the pool wants that. The last worker that leaves this removes them there.

    Raises EngineError where `stage_weights` names no folder, or there is no scratch of the node.
    """
    if not pool.stage_weights:
        yield weights
        return
    began = time.monotonic()
    with ExitStack() as leaving:
        staging = _Staging(pool, pause, leaving)
        try:
            found = staging.moved(weights)
        except _EndingError:
            found = weights
        yield Weights(
            model=found.model,
            speculative=found.speculative,
            seconds=round(time.monotonic() - began, 2),
            remark="; ".join(staging.remarks),
        )


class _Staging:
    """One time that the weights of a worker are staged."""

    def __init__(self, pool: PoolSpec, pause: Pause, leaving: ExitStack) -> None:
        self.remarks: list[str] = []
        self._pool, self._pause, self._leaving = pool, pause, leaving
        self._deadline = time.monotonic() + pool.start_timeout_s

    def moved(self, weights: Weights) -> Weights:
        """The weights by their paths on the node's disk, as far as they are there."""
        model, guesses = weights.model, weights.speculative
        draft = guesses.draft_model if guesses else None
        sources = dict(self._sources([model.path, *([draft] if draft else [])]))
        store = self._store(model.path, sources) if sources else None
        if store is None:
            return weights
        places = {path: self._place(store, path, source) for path, source in sources.items()}
        # Without a name the model would be called by its directory.
        model = replace(model, path=places.get(model.path, model.path), name=model.served_name)
        if guesses and draft:
            guesses = replace(guesses, draft_model=places.get(draft, draft))
        return Weights(model=model, speculative=guesses)

    def _sources(self, paths: list[str]) -> Iterator[tuple[str, Source]]:
        for path in paths:
            try:
                yield path, source_of(Path(path))
            except StagingError as error:
                self._give_up(path, error)

    def _store(self, path: str, sources: dict[str, Source]) -> Store | None:
        """Where copies are on this node, without those that nobody uses; None where there is no such place."""
        try:
            store = Store(own_folder(self._folder(), "weights"), self._wait, _say)
            store.sweep(frozenset(source.key for source in sources.values()))
            return store
        except (StagingError, OSError) as error:
            self._give_up(path, error)
            return None

    def _folder(self) -> Path:
        given = self._pool.stage_weights
        if isinstance(given, str):
            return given_folder(given)
        try:
            folder = node_scratch()
        except StagingError as error:
            expected = "name a folder of the nodes' own disks, such as stage_weights = '/local/scratch'"
            raise EngineError(f"stage_weights = true: {error}; {expected}") from error
        if is_of_job(folder):
            _say(f"{folder} is of this job: the other workers of the node make copies of their own")
        return folder

    def _place(self, store: Store, path: str, source: Source) -> str:
        """The path of the copy; the path of the source where there can be none."""
        began = time.monotonic()
        try:
            use = store.enter(source)
        except (StagingError, OSError) as error:
            self._give_up(path, error)
            return path
        self._leaving.callback(use.leave)
        took = time.monotonic() - began
        how = f"copied, {gigabytes(source.size / max(took, 1e-3))}/s" if use.has_copied else "were there already"
        _say(f"weights of {path} staged to {use.path}: {gigabytes(source.size)} in {took:.1f} s ({how})")
        return str(use.path)

    def _give_up(self, path: str, error: Exception) -> None:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        self.remarks.append(f"weights are not staged, but read from {path}: {why}")
        _say(self.remarks[-1])

    def _wait(self, seconds: float) -> None:
        if not self._pause(seconds):
            raise _EndingError
        if time.monotonic() > self._deadline:
            raise StagingError(f"not done within start_timeout = {self._pool.start_timeout!r}")


def _say(text: str) -> None:
    print(text, flush=True)
