"""The structs that Python and the compiled library share lie alike in memory, and a library that differs is refused."""

import ast
import ctypes
from pathlib import Path
from typing import Any

import pytest

from slurminfer.core.errors import EngineError
from slurminfer.nodes.native.model.fused import library, structs
from slurminfer.nodes.native.model.fused.structs import STRUCTS, check_structs

ROOT = Path(__file__).parents[4]
WAITS = "Waits 0 32\nWaits.ended 0 8\nWaits.spin_ns 8 8\nWaits.seconds 16 8\nWaits.lost 24 4\n"


def waits(*fields: tuple[Any, ...]) -> type[ctypes.Structure]:
    """A ctypes class that stands for the library's `Waits`."""
    return type("WaitsStruct", (ctypes.Structure,), {"_fields_": list(fields)})


ENDED, SPIN, SECONDS, LOST = structs.WaitsStruct._fields_


def test_equal_structs_are_accepted():
    check_structs(WAITS, [structs.WaitsStruct])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([ENDED, SPIN, LOST], r"Waits\.seconds: absent in Python, 8 bytes at offset 16 in the library"),
        ([ENDED, SPIN, SECONDS], r"Waits\.lost: absent in Python, 4 bytes at offset 24"),
        ([ENDED, SPIN, SECONDS, ("lost", ctypes.c_int64)], r"Waits\.lost: 8 bytes at offset 24 in Python, 4 bytes"),
        (
            [ENDED, SECONDS, SPIN, LOST],
            r"Waits\.spin_ns: 8 bytes at offset 16 in Python, 8 bytes at offset 8 in the library",
        ),
        ([ENDED, SPIN, SECONDS, ("gone", ctypes.c_int32)], r"Waits\.lost: absent in Python, 4 bytes at offset 24"),
        (
            [ENDED, SPIN, SECONDS, LOST, ("more", ctypes.c_int64)],
            r"Waits\.more: 8 bytes at offset 32 in Python, absent",
        ),
    ],
)
def test_a_field_that_differs_is_named(fields, message):
    with pytest.raises(EngineError, match=message):
        check_structs(WAITS, [waits(*fields)])


def test_a_struct_that_only_one_side_has_is_named():
    with pytest.raises(EngineError, match=r"Other\.one: absent in Python, 8 bytes"):
        check_structs(WAITS + "Other 0 8\nOther.one 0 8\n", [structs.WaitsStruct])
    with pytest.raises(EngineError, match=r"Waits\.ended: .* in Python, absent in the library"):
        check_structs("", [structs.WaitsStruct])


def test_a_struct_with_a_field_that_the_library_does_not_list_differs_in_size():
    with pytest.raises(EngineError, match="Waits: 32 bytes at offset 0 in Python, 40 bytes"):
        check_structs(WAITS.replace("Waits 0 32", "Waits 0 40"), [structs.WaitsStruct])


@pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")
def test_a_library_with_other_structs_is_refused(monkeypatch):
    path = library.place()
    assert path is not None
    if not path.exists():
        library.compile_to(path)
    library.load(path)
    wrong = [waits(ENDED, SPIN, LOST) if struct is structs.WaitsStruct else struct for struct in STRUCTS]
    monkeypatch.setattr(library, "check_structs", lambda described: check_structs(described, wrong))
    with pytest.raises(EngineError, match=r"Waits\.seconds: absent in Python"):
        library.load(path)


@pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")
def test_a_damaged_library_is_told_from_a_whole_one(tmp_path):
    """Loading one that was cut off ends the process by SIGBUS: it must be found out before."""
    path = tmp_path / "kernels.so"
    assert not library.is_whole(path)
    library.compile_to(path, ("-O0", *library.FLAGS[1:]))
    assert library.is_whole(path)
    library.load(path)
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[:-1], whole[: len(whole) // 2], whole[:4096] + bytes(len(whole) - 4096)):
        path.unlink()  # the loaded one stays mapped
        path.write_bytes(damaged)
        assert not library.is_whole(path)


def test_every_ctypes_structure_is_checked():
    """Whatever class inherits from a ctypes structure, in any file of the project, is one that `load` compares."""
    found = {
        node.name
        for part in ("core", "quant", "nodes", "slurm", "router", "jobs")
        for file in (ROOT / part).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and any("Structure" in ast.unparse(base) for base in node.bases)
    }
    assert found == {struct.__name__ for struct in STRUCTS}
