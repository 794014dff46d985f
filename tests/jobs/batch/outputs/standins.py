"""In-memory stand-ins."""

from pathlib import Path
from slurminfer.jobs.batch.outputs.json_values import python_rows
import msgspec, pyarrow as pa, pyarrow.parquet as pq, pyarrow.csv as pc
from slurminfer.jobs.batch.inputs.plan import Plan, Shard, InputFile
from slurminfer.jobs.batch.inputs.row import Row


def _open(file):
    return pa.input_stream(str(file.path), compression={"gz": "gzip", "zst": "zstd"}.get(file.compression))


class Reader:
    def __init__(self, plan):
        self.plan = plan

    def rows(self, shard):
        table = self.table(shard)
        if table is not None:
            for i, v in enumerate(python_rows(table)):
                yield Row(shard.number, i, shard.first + i + 1, v)
            return
        file = self.plan.files[shard.file]
        lines = file.path.read_bytes().split(b"\n")
        for i, line in enumerate(lines[shard.first : shard.first + shard.rows]):
            n = shard.first + i + 1
            if not line.strip():
                yield Row(shard.number, i, n, None)
            elif file.format == "text":
                yield Row(shard.number, i, n, {"text": line.decode()})
            else:
                try:
                    yield Row(shard.number, i, n, msgspec.json.decode(line, type=dict))
                except Exception as e:
                    yield Row(shard.number, i, n, None, str(e))

    def table(self, shard):
        file = self.plan.files[shard.file]
        if file.format in ("jsonl", "text"):
            return None
        t = pq.read_table(file.path) if file.format == "parquet" else pc.read_csv(file.path)
        return t.slice(shard.first, shard.rows)

    def close(self):
        pass


def plan_of(paths, per):
    files, shards = [], []
    for path in paths:
        fmt = {"jsonl": "jsonl", "txt": "text", "csv": "csv", "parquet": "parquet"}[path.name.split(".")[1]]
        n = (
            pq.read_metadata(path).num_rows
            if fmt == "parquet"
            else len(pc.read_csv(path))
            if fmt == "csv"
            else len(path.read_bytes().removesuffix(b"\n").split(b"\n"))
        )
        st = path.stat()
        files.append(InputFile(path=path, format=fmt, size=st.st_size, changed_ns=st.st_mtime_ns, rows=n))
        for first in range(0, n, per):
            shards.append(Shard(number=len(shards), file=len(files) - 1, first=first, rows=min(per, n - first)))
    return Plan(files=tuple(files), shards=tuple(shards))
