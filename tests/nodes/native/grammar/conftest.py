"""A small tokenizer, grammars for it, and random texts by a grammar."""

import pytest

from slurminfer.nodes.native.tokenizer import Tokenizer

from ....support.chat_model import write_tokenizer
from ....support.grammars import TokenGrammars


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    directory = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(directory)
    return Tokenizer(directory)


@pytest.fixture(scope="session")
def grammars(tokenizer: Tokenizer) -> TokenGrammars:
    return TokenGrammars(tokenizer)
