"""Whose inputs are looked through first."""

from slurminfer.core.rundir import RunDirectory
from slurminfer.jobs.batch.openai.manager import VALIDATE, Manager
from slurminfer.router.batches.progress import entered
from slurminfer.router.batches.records import Status
from slurminfer.router.batches.store import BatchStore

from ....router.batches.made import make_batch


class Looking:
    """A process that looks through an input until it is told what it finds: nothing."""

    def __init__(self):
        self.code = None

    def poll(self):
        return self.code

    def last_words(self):
        return ""

    def share_with(self, count):
        pass

    def stop(self):
        pass

    def kill(self):
        pass


def test_nobody_waits_for_the_many_batches_of_another_tenant(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create()
    store, children = BatchStore(run), {}
    for _ in range(6):
        make_batch(store, "many")
    waiting = make_batch(store, "course")

    def start(id, step, reason):
        assert step == VALIDATE
        children[id] = Looking()
        return children[id]

    manager = Manager(run, start)
    manager.tick()
    assert len(children) == 2 and waiting.id in children
    for id in list(children):
        store.change(id, lambda state: entered(state, Status.FAILED, 1.0))
        children[id].code = 0
    manager.tick()
    assert len(children) == 4
    manager.close()
