"""What a ledger keeps of each row that is settled."""

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The end of one row: its answer, or why it has none. One line of JSON in a segment."""

    index: int  # within the shard, from 0
    key: str = ""  # what the row asks for, 128 bits in hexadecimal; empty where it could not be read
    answer: msgspec.Raw | None = None  # the generated columns by name, JSON; see outputs/columns.py
    error: str | None = None  # why there is no answer
    status: int | None = None  # HTTP's, with an error; None where nothing was sent or nothing came
    blank: bool = False  # a blank line: settled, and no row of the output
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0  # of those

    @property
    def is_answered(self) -> bool:
        """Whether the row needs nothing more, however often the batch is started."""
        return self.answer is not None or self.blank


def encode(record: Record) -> bytes:
    """The record as a line, its end included."""
    try:
        line = msgspec.json.encode(record)
    except UnicodeEncodeError:  # half of a surrogate pair in what a server has said
        error = (record.error or "").encode(errors="replace").decode()
        line = msgspec.json.encode(msgspec.structs.replace(record, error=error))
    return line.replace(b"\n", b" ") + b"\n"  # an answer that came as JSON may have newlines between its parts


def decode(line: bytes) -> Record:
    """The record of a line. Raises msgspec.MsgspecError for what is none."""
    read = msgspec.json.decode(line, type=_Written)
    answer = None if read.answer is _NONE else read.answer
    return Record(**{**msgspec.structs.asdict(read), "answer": answer})


_NONE = msgspec.Raw(b"null")


class _Written(msgspec.Struct, frozen=True, kw_only=True):
    """As `Record`; msgspec takes `Raw | None` for a value that is decoded."""

    index: int
    key: str = ""
    answer: msgspec.Raw = _NONE
    error: str | None = None
    status: int | None = None
    blank: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0  # of those
