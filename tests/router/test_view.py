"""A router whose run directory cannot be written for a while."""

from slurminfer.core.errors import RunDirectoryError


def test_a_router_whose_record_cannot_be_written_serves_and_writes_it_later(empty, monkeypatch, eventually, caplog):
    empty.add("cpu-0")
    written, full = type(empty.run).write_router, [True]

    def write(run, record):
        if full[0]:
            full[0] = False
            raise RunDirectoryError("cannot write router.json: No space left on device")
        written(run, record)

    monkeypatch.setattr(type(empty.run), "write_router", write)
    empty.start_router()
    assert "No space left on device" in caplog.text
    assert empty.chat().status_code == 200
