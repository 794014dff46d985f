"""Files and batches, made as the router makes them."""

from slurminfer.router.batches.ids import FILE, new_id
from slurminfer.router.batches.records import BatchRecord, FileRecord
from slurminfer.router.batches.store import BatchStore


def make_file(store: BatchStore, tenant: str = "owner", *, now: float = 1000.0, **fields) -> FileRecord:
    draft = store.files.draft()
    draft.write(b"{}\n")
    record = FileRecord(
        id=new_id(FILE, tenant, now), tenant=tenant, filename="a", bytes=3, created_at=int(now),
        **{"purpose": "batch", **fields},
    )  # fmt: skip
    draft.keep(record)
    return record


def make_batch(store: BatchStore, tenant: str = "owner") -> BatchRecord:
    return store.create(tenant, "/v1/completions", make_file(store, tenant).id, None, None)
