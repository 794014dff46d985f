"""One job of several workers (`workers_per_job`): a process that starts an agent for each, and outlives them.

Each agent has its share of the job's CPUs and GPUs, and a record, an address, a gate and a log folder of its own, under
an id of its own (core/workers/ids.py). So the router has that many workers. Slurm and the controller have one job: what
they tell it, signals and orders, holds for all of its workers.

A worker that fails after it has served is started again here, a few times. One that never served, or that fails again
and again, ends the job: the others drain, and the controller replaces all of them, perhaps on another node.
"""

import dataclasses
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from ...core.errors import EngineError, RunDirectoryError, SlurminferError
from ...core.machine.cpus import format_cpu_list
from ...core.machine.nvidia import VISIBLE
from ...core.processes.process import adopt_orphans, describe_exit, die_with_parent
from ...core.slurm_env import WALLTIME_SIGNAL, as_one_of
from ...core.trust import PRIVATE_FILE, PRIVATE_FOLDER
from ...core.workers.ids import id_of_several
from .guard import end_orphans
from .placement.shares import Share
from .task import Task

_TICK_S = 1.0
_ORDERS_EVERY_TICKS = 2
_MOST_RESTARTS = 3  # of one worker, in one run of the job

Work = Callable[[Task], None]  # runs the agent of one worker to its end


class SharedJob:
    """The workers of one job.

    Args:
        task: of the job; its worker_id is the job's role.
        shares: of each worker.
        work: runs one worker in a process of its own.
    """

    def __init__(self, task: Task, shares: Sequence[Share], work: Work) -> None:
        self._task, self._shares, self._work = task, shares, work
        self._signals = task.signals
        self._processes: dict[int, BaseProcess] = {}  # by number of the worker; those that have not ended
        self._restarts = [0] * len(shares)

    def run(self) -> None:
        """Run until all workers have ended. Raises EngineError where one has failed for good. For the main thread."""
        adopt_orphans()
        self._signals.listen()
        try:
            failure = self._live()
        finally:
            for process in self._processes.values():
                process.kill()
                process.join()
            end_orphans()
            self._signals.restore()
        if failure:
            raise EngineError(failure)

    def _live(self) -> str:
        """Why the job has failed; empty if it was ended."""
        for number in range(len(self._shares)):
            self._start(number)
        failure, ticks = "", 0
        while self._processes:
            self._signals.wait(_TICK_S)
            ticks += 1
            if ticks % _ORDERS_EVERY_TICKS == 0:
                self._task.obey()
            for number, process in list(self._processes.items()):
                if process.exitcode is not None:
                    del self._processes[number]
                    # What a killed agent could not end would keep its memory, and its GPUs, from the next one.
                    end_orphans(keep=[other.pid or 0 for other in self._processes.values()])
                    failure = failure or self._after(number, process.exitcode)
            self._pass_on(failure)
        return failure

    def _start(self, number: int) -> None:
        share = self._shares[number]
        gpus = "" if share.gpus is None else f", GPUs {share.gpus}"
        print(f"worker {self._id(number)}: CPUs {format_cpu_list(share.cpus)}{gpus}", flush=True)
        process = multiprocessing.get_context("fork").Process(target=self._be_worker, args=[number])
        process.start()
        self._processes[number] = process

    def _after(self, number: int, status: int) -> str:
        """Start an ended worker again, or say why the job must end; neither where it is ending."""
        self._task.obey()  # which may be why it has ended
        if self._signals.reason:
            return ""
        has_served, reason = self._last_word(number)
        said = f"worker {self._id(number)} has ended: {reason or describe_exit(status)}"
        if has_served and self._restarts[number] < _MOST_RESTARTS:
            self._restarts[number] += 1
            print(f"{said}; it is started again ({self._restarts[number]} of {_MOST_RESTARTS} times)", flush=True)
            self._start(number)
            return ""
        return said

    def _last_word(self, number: int) -> tuple[bool, str]:
        """Whether a worker has served, and why it has ended, as far as its record says."""
        with suppress(RunDirectoryError):
            record = self._task.run.read_worker(self._id(number))
            if record is not None and record.epoch == self._task.place.epoch:
                return record.load_s is not None, record.reason
        return False, ""

    def _pass_on(self, failure: str) -> None:
        """Tell the agents what the scheduler has told this process; again and again, as one may just be starting."""
        if self._signals.terminated or failure:
            self._signal(signal.SIGTERM)
        elif self._signals.reason and not self._signals.is_retired:
            self._signal(WALLTIME_SIGNAL)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                os.kill(process.pid or 0, number)

    def _be_worker(self, number: int) -> None:
        """In a process of its own."""
        os.setsid()
        die_with_parent()
        self._signals.restore()
        signal.signal(WALLTIME_SIGNAL, signal.SIG_IGN)  # not submitit's: only the parent requeues the job
        share, task = self._shares[number], self._task
        _print_to(task.run.logs_of(self._id(number)) / task.log_name)
        os.sched_setaffinity(0, share.cpus)
        os.environ.update(as_one_of(len(self._shares)))
        if share.gpus is not None:
            os.environ[VISIBLE] = share.gpus
        hooks = task.hooks if number == 0 else dataclasses.replace(task.hooks, controller=())  # one standby for all
        try:
            self._work(Task(task.run, self._id(number), task.slot, hooks, share.pool, task.place))
        except SlurminferError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            sys.exit(1)

    def _id(self, number: int) -> str:
        return id_of_several(self._task.worker_id, number)


def _print_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, PRIVATE_FILE)
    for stream in (1, 2):
        os.dup2(sink, stream)
    os.close(sink)
