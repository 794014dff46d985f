"""The AWQ file format, against its definition word by word."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.core.errors import CorruptModelError, UnsupportedModelError
from slurminfer.quant.checkpoint.awq import pack, unpack
from slurminfer.quant.checkpoint.quantization import parse_scheme
from slurminfer.quant.checkpoint.schemes.awq import AwqScheme

# Which output the i-th nibble of a word belongs to, written out from the format's description.
OUTPUT_OF_NIBBLE = {0: 0, 1: 2, 2: 4, 3: 6, 4: 1, 5: 3, 6: 5, 7: 7}


def word(codes: list[int]) -> int:
    value = 0
    for nibble, output in OUTPUT_OF_NIBBLE.items():
        value += codes[output] * 16**nibble
    return value - 2**32 if value >= 2**31 else value  # as int32


@given(st.lists(st.lists(st.integers(0, 15), min_size=24, max_size=24), min_size=1, max_size=5))
def test_packing_is_the_formats_and_unpacking_undoes_it(rows):
    codes = torch.tensor(rows, dtype=torch.uint8)
    expected = [[word(row[start : start + 8]) for start in (0, 8, 16)] for row in rows]
    assert pack(codes).tolist() == expected
    assert torch.equal(unpack(torch.tensor(expected, dtype=torch.int32)), codes)


def test_an_example_by_hand():
    assert pack(torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]], dtype=torch.uint8)).tolist() == [[0x86427531 - 2**32]]
    # last nibble first: outputs 7 5 3 1 6 4 2 0


def test_config_keys_of_both_generations():
    assert AwqScheme.parse({"bits": 4, "group_size": 64, "version": "gemm"}, "x") == AwqScheme(64)
    assert AwqScheme.parse({"w_bit": 4, "q_group_size": 32, "version": "GEMM"}, "x") == AwqScheme(32)
    assert parse_scheme({"quantization_config": {"quant_method": "awq", "bits": 4}}, "x") == AwqScheme(128)


@pytest.mark.parametrize("change", [{"bits": 3}, {"version": "gemv"}])
def test_other_kinds_of_awq_are_refused(change):
    with pytest.raises(UnsupportedModelError, match="supported: 4 bits, gemm"):
        AwqScheme.parse({"bits": 4, "group_size": 64, "version": "gemm"} | change, "config.json")


@pytest.mark.parametrize("size", [0, -2, "64", None])
def test_a_senseless_group_size_is_refused(size):
    with pytest.raises(CorruptModelError, match="group_size"):
        AwqScheme.parse({"bits": 4, "group_size": size}, "config.json")
