"""What a terminal is told of jobs that wait or have ended."""

import msgspec

from slurminfer.core.records import EndedWorker
from slurminfer.jobs.serve.status.reasons import News, ended_lines, worker_lines
from slurminfer.jobs.serve.status.state import DeploymentView, PoolView, WorkerView


def view(*workers: WorkerView, **fields) -> DeploymentView:
    return DeploymentView(name="demo", state=fields.pop("state", "starting"), workers=workers, **fields)


def waiting(number: int, reason: str = "Priority", **fields) -> WorkerView:
    return WorkerView(id=f"cpu-{number}", job="1", state="pending", scheduler="PENDING", reason=reason, **fields)


def test_what_is_said_of_many_workers_is_said_once():
    lines = list(worker_lines(view(*(waiting(number, advice="wait") for number in range(5)))))
    assert lines == ["cpu-0, cpu-1, cpu-2 and 2 more: Priority\n    what to change: wait"]


def test_a_start_is_news_again_where_it_has_moved_by_much():
    news = News()
    told = []
    for starts_at in (9_000.0, 9_060.0, 20_000.0):
        worker = waiting(0, f"Priority: start expected at {starts_at:g}", starts_at=starts_at)
        told += list(news.lines(view(worker)))
    assert told == [
        "cpu-0: pending: Priority: start expected at 9000",
        "cpu-0: pending: Priority: start expected at 20000",
    ]


def test_a_worker_that_comes_to_wait_again_is_news():
    news, runs = News(), msgspec.structs.replace(waiting(0, ""), state="starting")
    told = [list(news.lines(view(worker))) for worker in (waiting(0), runs, waiting(0))]
    assert told == [["cpu-0: pending: Priority"], [], ["cpu-0: pending: Priority"]]


def test_the_routers_own_waiting_is_told():
    assert list(News().lines(view(state="pending", reason="Resources"))) == ["router: Resources"]


def test_workers_that_have_ended_for_the_same_reason_are_named_together():
    ended = [
        EndedWorker(
            id=f"cpu-{number}", pool="cpu", job="1", at=60.0 * number, submitted_at=0.0,
            cause=f"no memory (log: logs/cpu-{number}/engine.0.0.log)", advice="more `mem`",
        )
        for number in (1, 2)
    ]  # fmt: skip
    ended.append(EndedWorker(id="cpu-3", pool="cpu", job="1", at=180.0, submitted_at=0.0, cause="its node was lost"))
    first, second = ended_lines(PoolView(name="cpu", ended=tuple(ended)))
    assert first.startswith("cpu-1, cpu-2 ended, the last at ")
    assert first.endswith(": no memory (log: logs/cpu-2/engine.0.0.log)\n    what to change: more `mem`")
    assert second.startswith("cpu-3 ended at ") and second.endswith(": its node was lost")
