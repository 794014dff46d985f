"""The controller on a deployment whose jobs end, as the scheduler and the agents tell it."""

import msgspec
import pytest

from slurminfer.core.errors import SlurmError
from slurminfer.core.job import JobPhase
from slurminfer.core.records import IntendedJob, ScaleRecord, WorkerState

from .conftest import Cluster


def test_a_fleet_that_is_as_it_should_be_is_left_alone(cluster):
    assert cluster.tick() and cluster.tick(10)
    assert cluster.workers() == ["cpu-0", "cpu-1"]


def test_a_worker_that_was_cancelled_is_replaced_at_once(cluster):
    cluster.tick()
    cluster.end("cpu-0", state="CANCELLED")
    cluster.tick(10)
    assert cluster.workers() == ["cpu-1", "cpu-2"]
    assert cluster.run.read_worker("cpu-0") is None
    assert any("cpu-0" in text and "has ended" in text for text in cluster.decisions())


def test_a_worker_that_fails_is_replaced_after_a_pause_that_grows(cluster):
    cluster.tick()
    pauses = []
    for number in range(3):
        cluster.end(cluster.workers()[-1])
        waited = 0
        while len(cluster.workers()) < 2 or waited == 0:
            cluster.tick(5)
            waited += 5
        pauses.append(waited)
        cluster.become(f"cpu-{number + 2}", WorkerState.STARTING)
        cluster.tick()
    assert pauses == sorted(pauses) and pauses[0] < pauses[-1]


def test_a_pool_whose_workers_never_serve_gives_up_and_says_why(cluster):
    cluster.tick()
    for worker in cluster.workers():
        cluster.end(worker)
    for _ in range(60):
        cluster.tick(60)
        for worker in cluster.workers():
            cluster.become(worker, WorkerState.GONE, reason="the weights are not there")
            cluster.end(worker)
    fleet = cluster.run.read_fleet()
    assert fleet is not None and fleet.pools["cpu"].gave_up
    assert "the weights are not there" in fleet.pools["cpu"].waits
    assert not fleet.pools["cpu"].may_come
    tried = len(cluster.table.requests)
    cluster.run.write_scale(ScaleRecord(pinned={}, asked_at={"cpu": cluster.now}))
    cluster.tick(10)
    assert len(cluster.table.requests) > tried


FLAG = "argument error: unrecognized arguments: --fast"


def test_what_no_other_try_can_help_is_tried_once_where_no_worker_has_ever_served(tmp_path):
    cluster = Cluster(tmp_path)
    for worker in ("cpu-0", "cpu-1"):
        cluster.become(worker, WorkerState.STARTING)
    cluster.tick()
    for worker in ("cpu-0", "cpu-1"):
        cluster.become(worker, WorkerState.GONE, reason=FLAG)
        cluster.end(worker)
    tried = len(cluster.table.requests)
    cluster.tick(10)
    cluster.tick(1000)
    pool = cluster.pool()
    assert pool.gave_up and len(cluster.table.requests) == tried
    assert "cpu-1 ended: the engine does not know one of its options: --fast" in pool.waits
    assert pool.ended[-1].is_final and "extra_args" in pool.ended[-1].advice


def test_what_no_other_try_can_help_may_be_one_nodes_fault_where_workers_have_served(cluster):
    for _ in range(9):
        cluster.tick(50)
    for worker in ("cpu-0", "cpu-1"):
        cluster.end(worker)
    cluster.tick(10)
    tried = len(cluster.table.requests)
    for worker in cluster.workers():
        cluster.become(worker, WorkerState.GONE, reason=FLAG)
        cluster.end(worker)
    cluster.tick(10)
    cluster.tick(100)
    pool = cluster.pool()
    assert pool.ended[-1].is_final and not pool.gave_up and len(cluster.table.requests) > tried


def test_before_its_time_ends_a_worker_gets_a_successor_and_goes_when_that_serves(cluster):
    cluster.tick()
    while len(cluster.workers()) == 2:
        cluster.tick(30)
    cluster.tick(10)
    successor = cluster.workers()[-1]
    (job,) = [job for job in cluster.deployment().jobs if job.role == successor]
    order = cluster.run.read_order(job.replaces)
    assert order is not None and order.stays_away and not order.drain
    cluster.tick(60)
    assert cluster.workers().count(successor) == 1 and len(cluster.workers()) == 3
    cluster.become(successor, WorkerState.READY)
    cluster.tick(10)
    cluster.tick(10)
    order = cluster.run.read_order(job.replaces)
    assert order is not None and order.drain
    cluster.end(job.replaces, JobPhase.DONE, "COMPLETED")
    cluster.tick(10)
    assert job.replaces not in cluster.workers() and successor in cluster.workers()
    fleet = cluster.run.read_fleet()
    assert fleet is not None and fleet.pools["cpu"].ended[-1].is_wanted


def test_the_two_workers_of_a_pool_are_not_replaced_at_the_same_time(cluster):
    cluster.tick()
    while len(cluster.workers()) == 2:
        cluster.tick(60)
    at = cluster.now
    cluster.become(cluster.workers()[-1], WorkerState.READY)
    while len(cluster.table.requests) == 4:
        cluster.tick(20)
    assert cluster.now - at > 100


def test_a_worker_that_goes_back_to_the_queue_is_not_replaced(cluster):
    cluster.tick()
    cluster.become("cpu-0", WorkerState.DRAINING, reason="walltime or preemption")
    cluster.tick(10)
    cluster.table.set(cluster.job("cpu-0"), JobPhase.PENDING, "REQUEUED")
    cluster.tick(10)
    assert cluster.workers() == ["cpu-0", "cpu-1"]


def test_nothing_is_done_while_slurm_does_not_answer(cluster):
    cluster.tick()
    cluster.end("cpu-0")
    cluster.table.is_away = True
    cluster.tick(1000)
    fleet = cluster.run.read_fleet()
    assert fleet is not None and fleet.trouble == "squeue: no answer"
    assert len(cluster.table.requests) == 3 and not cluster.table.cancelled


def test_a_job_that_slurm_does_not_know_for_a_moment_is_no_loss(cluster):
    cluster.tick()
    job = cluster.job("cpu-0")
    before = cluster.table.jobs.pop(job)
    cluster.tick(10)
    cluster.table.jobs[job] = before
    cluster.tick(10)
    assert cluster.workers() == ["cpu-0", "cpu-1"]


def test_what_slurm_refuses_is_tried_again_later_and_explained(cluster):
    cluster.tick()
    cluster.end("cpu-0", state="CANCELLED")
    cluster.table.refusal = SlurmError("Slurm refused job 'd-cpu-2': QOSMaxSubmitJobPerUserLimit")
    cluster.tick(10)
    cluster.tick(1)
    fleet = cluster.run.read_fleet()
    assert fleet is not None and "QOSMaxSubmitJobPerUserLimit" in fleet.pools["cpu"].waits
    assert cluster.deployment().intended == {}
    cluster.table.refusal = None
    cluster.tick(30)
    assert len(cluster.workers()) == 2


def test_a_controller_that_is_killed_while_it_submits_leaves_no_job_behind(cluster):
    cluster.tick()
    cluster.end("cpu-0", state="CANCELLED")
    cluster.table.dies = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        cluster.tick(10)
    assert cluster.workers() == ["cpu-1"] and list(cluster.deployment().intended) == ["cpu-2"]
    cluster.controller.close()
    cluster.controller = cluster.new_controller()
    cluster.tick(10)
    assert cluster.workers() == ["cpu-1", "cpu-2"] and cluster.deployment().intended == {}
    assert len(cluster.table.requests) == 4


def test_what_was_intended_and_never_submitted_is_submitted(cluster):
    cluster.tick()
    cluster.end("cpu-0", state="CANCELLED")
    deployment = cluster.deployment()
    intended = {"cpu-7": IntendedJob(at=cluster.now)}
    cluster.run.claims.update(msgspec.structs.replace(deployment, intended=intended))
    cluster.tick(10)
    assert cluster.workers() == ["cpu-1", "cpu-2"]
    for _ in range(4):
        cluster.tick(50)
    assert cluster.deployment().intended == {} and not cluster.table.cancelled


def test_of_two_controllers_one_acts(cluster):
    cluster.tick()
    other = cluster.new_controller()
    cluster.end("cpu-0", state="CANCELLED")
    assert other.tick()
    assert cluster.workers() == ["cpu-0", "cpu-1"]
    cluster.tick(10)
    assert cluster.workers() == ["cpu-1", "cpu-2"]


def test_a_new_controller_knows_what_the_one_before_it_knew(cluster):
    cluster.tick()
    for _ in range(2):
        cluster.end(cluster.workers()[-1])
        cluster.tick(60)
        cluster.tick(60)
    known = cluster.run.read_fleet()
    cluster.controller.close()
    cluster.controller = cluster.new_controller()
    cluster.tick()
    fleet = cluster.run.read_fleet()
    assert known is not None and fleet is not None and fleet.pools["cpu"].ended == known.pools["cpu"].ended


def test_after_a_stop_the_controller_ends_and_leaves_no_job(cluster):
    cluster.tick()
    cluster.end("cpu-0", state="CANCELLED")
    deployment = cluster.deployment()
    cluster.run.claims.announce_stop(deployment)
    assert not cluster.tick(10)
    assert len(cluster.table.requests) == 3 or cluster.table.cancelled == ["4"]
    cluster.run.clear()
    assert not cluster.controller.tick()


def test_a_number_that_a_user_asks_for_is_kept(cluster):
    cluster.tick()
    cluster.run.write_scale(ScaleRecord(pinned={"cpu": 4}, asked_at={"cpu": cluster.now}))
    cluster.tick(10)
    assert cluster.workers() == ["cpu-0", "cpu-1", "cpu-2", "cpu-3"]
    cluster.run.write_scale(ScaleRecord(pinned={"cpu": 1}, asked_at={"cpu": cluster.now}))
    cluster.tick(10)
    assert sorted(cluster.table.cancelled) == ["4", "5"]
    drained = [worker for worker in ("cpu-0", "cpu-1") if (order := cluster.run.read_order(worker)) and order.drain]
    assert len(drained) == 1


def test_while_serve_is_submitting_nothing_is_done(tmp_path):
    cluster = Cluster(tmp_path, claimed_by="1@2-00000000 on elsewhere", is_complete=False)
    cluster.end("cpu-0", state="CANCELLED")
    cluster.tick(10)
    assert cluster.workers() == ["cpu-0", "cpu-1"]
    cluster.tick(1000)
    assert cluster.workers() == ["cpu-1", "cpu-2"]


def test_the_router_gets_a_successor_before_its_time_ends(tmp_path):
    cluster = Cluster(tmp_path)
    cluster.table.set(cluster.job("router"), JobPhase.RUNNING, ends_at=cluster.now + 300)
    cluster.tick()
    cluster.tick(200)
    routers = [job for job in cluster.deployment().jobs if job.role == "router"]
    assert len(routers) == 2 and routers[1].replaces == f"router-{routers[0].id}"
    cluster.tick(10)
    assert len([job for job in cluster.deployment().jobs if job.role == "router"]) == 2


def test_a_router_that_nobody_asked_any_more_has_ended_because_another_one_took_over(tmp_path):
    cluster = Cluster(tmp_path)
    first = cluster.job("router")
    cluster.table.set(first, JobPhase.RUNNING, ends_at=cluster.now + 300)
    for _ in range(10):
        cluster.tick(10)
    cluster.table.set(first, JobPhase.DONE, "COMPLETED")
    cluster.tick(10)
    assert cluster.decisions()[-1] == f"router (job {first}) has ended: another router has taken over"


def test_decisions_are_in_plain_words_and_the_router_is_no_pool(cluster):
    cluster.tick()
    cluster.run.write_scale(ScaleRecord(pinned={}, asked_at={}))
    cluster.end("cpu-0", state="CANCELLED")
    cluster.tick(10)
    texts = cluster.decisions()
    assert "cpu: 2 workers are wanted: as the spec says" in texts
    assert "cpu-2 is submitted: 1 worker missing" in texts
    assert not any("None" in text or text.startswith("router: ") for text in texts)


def test_one_worker_is_wanted_instead_of_two(tmp_path):
    cluster = Cluster(tmp_path, "min_workers = 1\nmax_workers = 4\n")
    cluster.tick()
    spec = cluster.run.read_spec()
    pool = msgspec.structs.replace(spec.pool[0], workers=1, min_workers=None, max_workers=None)
    cluster.run.write_spec(msgspec.structs.replace(spec, pool=(pool,)))
    cluster.tick(10)
    assert "cpu: 1 worker is wanted instead of 2: as the spec says" in cluster.decisions()


@pytest.mark.parametrize(("patience_s", "may_come"), [(600.0, True), (5.0, False)])
def test_requests_wait_only_for_a_worker_that_may_come_in_their_time(cluster, patience_s, may_come):
    spec = cluster.run.read_spec()
    router = msgspec.structs.replace(spec.router, queue_timeout=patience_s)
    cluster.run.write_spec(msgspec.structs.replace(spec, router=router))
    cluster.tick()
    for worker in cluster.workers():
        cluster.end(worker, state="CANCELLED")
    cluster.table.refusal = SlurmError("QOSMaxSubmitJobPerUserLimit")
    cluster.tick(10)
    fleet = cluster.run.read_fleet()
    assert fleet is not None and fleet.pools["cpu"].waits_until == cluster.now + 10
    assert fleet.pools["cpu"].may_come is may_come


def test_requests_wait_for_no_job_that_never_starts(cluster):
    cluster.tick()
    for worker in cluster.workers():
        cluster.table.set(cluster.job(worker), JobPhase.PENDING, obstacle="PartitionTimeLimit")
        cluster.run.forget_workers({worker})
    cluster.run.write_scale(ScaleRecord(pinned={"cpu": 3}, asked_at={}))
    cluster.tick(10)
    fleet = cluster.run.read_fleet()
    assert fleet is not None and "PartitionTimeLimit" in fleet.pools["cpu"].waits
    assert not fleet.pools["cpu"].may_come


def test_a_worker_that_never_served_in_all_of_its_time_has_failed(cluster):
    cluster.tick()
    cluster.become("cpu-0", WorkerState.STARTING, epoch=1)
    cluster.controller.close()
    cluster.controller = cluster.new_controller()
    cluster.tick()
    cluster.end("cpu-0", state="TIMEOUT")
    cluster.end("cpu-1", state="TIMEOUT")
    cluster.tick(10)
    fleet = cluster.run.read_fleet()
    assert fleet is not None
    assert {one.id: one.by_scheduler for one in fleet.pools["cpu"].ended} == {"cpu-0": False, "cpu-1": True}


def test_a_cancellation_is_said_once(cluster):
    cluster.tick()
    cluster.run.write_scale(ScaleRecord(pinned={"cpu": 3}, asked_at={}))
    cluster.tick(10)
    cluster.run.write_scale(ScaleRecord(pinned={"cpu": 2}, asked_at={}))
    cluster.tick(10)
    cluster.tick(300)
    cluster.tick(10)
    assert sum("cpu-2 is cancelled" in text for text in cluster.decisions()) == 1


def test_what_one_worker_can_do_is_remembered(cluster):
    cluster.tick()
    fleet = cluster.run.read_fleet()
    assert fleet is not None and fleet.pools["cpu"].capacity == 8


def test_what_a_log_says_of_a_workers_start_is_no_reason_of_its_end(cluster):
    cluster.tick()
    logs = cluster.run.logs_of("cpu-0")
    logs.mkdir(parents=True)
    said = "slurminfer: a setup line failed with exit status 1: module load nothing\n12:00:00 ready\n"
    (logs / f"{cluster.job('cpu-0')}_0_log.out").write_text(said)
    cluster.end("cpu-0", state="ENDED")
    cluster.tick(10)
    ended = next(text for text in cluster.decisions() if "has ended" in text)
    assert "its agent was killed" in ended and "setup" not in ended


def test_a_worker_that_failed_is_explained_and_the_advice_stays_when_its_files_are_gone(cluster):
    cluster.tick()
    reason = "engine exited with 1: error: model /models/m: no such directory"
    cluster.become("cpu-0", WorkerState.GONE, reason=reason)
    cluster.end("cpu-0")
    cluster.tick(10)
    fleet = cluster.run.read_fleet()
    assert fleet is not None and cluster.run.read_worker("cpu-0") is None
    ended = fleet.pools["cpu"].ended[-1]
    assert ended.cause == f"there is no model at that path on the node: {reason}"
    assert ended.advice.startswith("[model] path: an absolute path")
