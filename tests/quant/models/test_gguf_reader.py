import random

import pytest

from slurminfer.core.errors import CorruptModelError, ModelError, ModelNotFoundError, UnsupportedModelError
from slurminfer.quant.gguf.convert import convert
from slurminfer.quant.gguf.reader import GgufFile
from slurminfer.quant.progress import silent


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"no such file: .*none\.gguf"):
        GgufFile(tmp_path / "none.gguf")


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\3\4 a zip"])
def test_a_file_of_another_kind(tmp_path, content):
    (tmp_path / "other.gguf").write_bytes(content)
    with pytest.raises(CorruptModelError, match="is not a GGUF file"):
        GgufFile(tmp_path / "other.gguf")


@pytest.mark.parametrize("kept", [0.001, 0.01, 0.05, 0.2, 0.5, 0.99])
def test_a_truncated_file_is_corrupt(write_gguf, kept):
    path, _ = write_gguf()
    whole = path.read_bytes()
    path.write_bytes(whole[: max(5, int(len(whole) * kept))])
    with pytest.raises(CorruptModelError, match=r"damaged or incomplete: it has \d+ bytes, at least \d+ expected"):
        GgufFile(path)


def test_damage_anywhere_in_the_metadata_ends_in_a_model_error_or_none(write_gguf, tmp_path):
    path, _ = write_gguf()
    whole = path.read_bytes()
    chance = random.Random(0)
    directory = tmp_path / "model"
    directory.mkdir()
    damaged = 0
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(4):
            content[chance.randrange(8, 9000)] = chance.randrange(256)
        path.write_bytes(content)
        try:
            convert(path, directory, silent)
        except ModelError:
            damaged += 1
    assert damaged > 10


def test_one_piece_of_a_split_model_is_unsupported(write_gguf):
    path, _ = write_gguf(metadata={"split.count": 3})
    with pytest.raises(UnsupportedModelError, match="merge it"):
        GgufFile(path)
