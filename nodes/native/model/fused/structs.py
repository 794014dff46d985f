"""The structs that Python shares with the compiled library, as ctypes has them, and the check that both sides agree.

kernels/model.h and kernels/shared_memory.h say what each field holds. A class here is named as the C++ struct, with
`Struct` behind. kernels/structs.h reports the offset and size of every field as the compiler laid them out.
"""

import ctypes
import enum
from collections.abc import Sequence

from .....core.errors import EngineError

Pointer = ctypes.c_void_p
_Int, _Long, _Unsigned = ctypes.c_int32, ctypes.c_int64, ctypes.c_uint32

CACHE_LINE = 64  # bytes


class CacheKind(enum.IntEnum):
    """Number formats of the KV cache, numbered as `CacheKind` of kernels/model.h."""

    FLOAT32 = 0
    BFLOAT16 = 1
    INT8 = 2
    INT4 = 3


class MatrixStruct(ctypes.Structure):
    """A packed weight [outputs, inputs] of 4, 8 or 16 bits, with its bias and order of inputs."""

    _fields_ = [
        ("codes", Pointer), ("affine", Pointer), ("bias", Pointer), ("order", Pointer),
        ("outputs", _Int), ("inputs", _Int), ("group", _Int), ("bits", _Int),
    ]  # fmt: skip


class LayerStruct(ctypes.Structure):
    """A decoder layer: four weights, float32 norms, its part of the KV cache and its attention window (0: none)."""

    _fields_ = [
        ("qkv", MatrixStruct), ("o", MatrixStruct), ("gate_up", MatrixStruct), ("down", MatrixStruct),
        ("input_norm", Pointer), ("post_norm", Pointer), ("q_norm", Pointer), ("k_norm", Pointer),
        ("cache", Pointer), ("cache_scales", Pointer), ("window", _Long),
    ]  # fmt: skip


class ModelStruct(ctypes.Structure):
    """All layers of a model or of a rank's part, the rotary tables and the sizes that the layers have in common."""

    _fields_ = [
        ("layers", ctypes.POINTER(LayerStruct)), ("cos", Pointer), ("sin", Pointer),
        ("hidden", _Int), ("inner", _Int), ("heads", _Int), ("kv_heads", _Int), ("head_dim", _Int),
        ("block_size", _Int), ("cache_kind", _Int), ("eps", ctypes.c_float),
    ]  # fmt: skip


class StepStruct(ctypes.Structure):
    """The rows of one step, how they attend, and memory for the results of each operation."""

    _fields_ = [
        ("rows", _Int), ("single", _Int), ("blocks", _Int), ("threads", _Int), ("table_width", _Int),
        ("pieces", _Int), ("positions", Pointer), ("sequence", Pointer), ("tables", Pointer),
        ("split_start", Pointer), ("block_rows", Pointer),
        ("x", Pointer), ("qkv", Pointer), ("attention", Pointer), ("partial", Pointer), ("inner", Pointer),
        ("codes", Pointer), ("scales", Pointer),
        ("seen", Pointer), ("slots", Pointer), ("log_sums", Pointer),
    ]  # fmt: skip


class WordStruct(ctypes.Structure):
    """A counter in shared memory that ranks wait for; it fills a cache line."""

    _fields_ = [("value", _Unsigned), ("sleepers", _Unsigned), ("rest", ctypes.c_uint8 * (CACHE_LINE - 8))]


class WaitsStruct(ctypes.Structure):
    """How a rank waits for others: nanoseconds of spinning before it sleeps, and the seconds spent so far."""

    _fields_ = [("ended", Pointer), ("spin_ns", _Long), ("seconds", ctypes.c_double), ("lost", _Int)]


class SumStruct(ctypes.Structure):
    """A rank's place among the ranks of a node that sum through shared memory."""

    _fields_ = [
        ("waits", ctypes.POINTER(WaitsStruct)), ("arrived", Pointer), ("slots", Pointer), ("slot", _Long),
        ("rank", _Int), ("ranks", _Int), ("meetings", _Unsigned), ("pieces", _Unsigned),
    ]  # fmt: skip


class LinkStruct(ctypes.Structure):
    """A queue of messages from one rank to another of the same node."""

    _fields_ = [
        ("waits", ctypes.POINTER(WaitsStruct)), ("filled", Pointer), ("emptied", Pointer), ("slots", Pointer),
        ("slot", _Long), ("depth", _Unsigned), ("messages", _Unsigned),
    ]  # fmt: skip


STRUCTS: tuple[type[ctypes.Structure], ...] = (
    MatrixStruct, LayerStruct, ModelStruct, StepStruct, WordStruct, WaitsStruct, SumStruct, LinkStruct,
)  # fmt: skip


def check_structs(described: str, structs: Sequence[type[ctypes.Structure]] = STRUCTS) -> None:
    """Compare the ctypes classes with what `describe_structs` of the library says of its own structs.

    Args:
        described: lines "struct 0 size" and "struct.field offset size", in bytes.

    Raises EngineError, which names the first struct and field that only one side has, or that lies elsewhere or has
    another size.
    """
    lines = (line.split() for line in described.splitlines())
    theirs = {name: (int(offset), int(size)) for name, offset, size in lines}
    ours = {name: place for struct in structs for name, place in _places(struct).items()}
    for name in sorted([*theirs, *ours], key=lambda name: "." not in name):  # fields say more than the whole size
        if ours.get(name) != theirs.get(name):
            raise EngineError(
                f"structs.py and the compiled library disagree about {name}: "
                f"{_say(ours.get(name))} in Python, {_say(theirs.get(name))} in the library"
            )


def _places(struct: type[ctypes.Structure]) -> dict[str, tuple[int, int]]:
    """Offset and size in bytes of each field, then of the struct itself, by the names that the library has."""
    name = struct.__name__.removesuffix("Struct")
    fields = [(field, getattr(struct, field)) for field, *_ in struct._fields_]
    return {f"{name}.{field}": (place.offset, place.size) for field, place in fields} | {
        name: (0, ctypes.sizeof(struct))
    }


def _say(place: tuple[int, int] | None) -> str:
    return "absent" if place is None else f"{place[1]} bytes at offset {place[0]}"
