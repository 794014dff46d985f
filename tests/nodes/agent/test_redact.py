"""No secret reaches a log, however the pieces of a stream are cut."""

import json

import pytest

from slurminfer.nodes.agent.redact import Redactor, secret_values

KEY, LONGER, PEM = "sk-0123456789", "sk-0123456789-and-more", "-----BEGIN KEY-----\nMIIEvQIBADAN\n-----END KEY-----"


def written(secrets: list[str], *pieces: bytes) -> bytes:
    redactor = Redactor(secrets)
    return b"".join([*map(redactor.feed, pieces), redactor.rest()])


def test_a_secret_is_masked_wherever_it_is_cut():
    text = f"api_key='{KEY}', token={KEY}\nnext {KEY}".encode()
    for at in range(len(text)):
        assert written([KEY], text[:at], text[at:]) == b"api_key='***', token=***\nnext ***"
    assert written([KEY], *(text[at : at + 1] for at in range(len(text)))) == b"api_key='***', token=***\nnext ***"


def test_of_two_secrets_that_begin_alike_nothing_of_the_longer_one_is_left():
    text = f"{LONGER} {KEY}.".encode()
    for at in range(len(text)):
        assert written([KEY, LONGER], text[:at], text[at:]) == b"*** ***."


@pytest.mark.parametrize("secret", ['with "quotes" and \\', "with 'quotes'\tand a tab", "ümlaut-secret"])
def test_escaped_forms_are_masked_too(secret):
    for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]):
        assert written([secret], f"x={form};".encode()) == b"x=***;"


def test_a_secret_of_several_lines_is_masked_line_by_line():
    assert b"MIIEvQIBADAN" not in written([PEM], PEM.encode())


def test_partial_lines_are_not_held_back():
    redactor = Redactor([KEY])
    assert redactor.feed(b"loading ... ") == b"loading ... "
    assert redactor.feed(b"50% sk") == b"50% ", "which might go on as a secret"
    assert redactor.feed(b"y") == b"sky"


def test_the_beginning_of_a_secret_at_the_very_end_is_masked():
    assert written([KEY], b"key: sk-012345678") == b"key: ***"
    assert written([KEY], b"key: sk") == b"key: sk"


def test_what_is_held_stays_small():
    redactor = Redactor([KEY])
    for _ in range(1000):
        redactor.feed(b"sk-01234567")
        assert len(redactor._held) < len(KEY)


def test_values_of_variables_with_secret_names_are_masked():
    environ = {"HF_TOKEN": "hf_abcdef", "TOKENIZERS_PARALLELISM": "false-ish", "HOME": "/home/someone"}
    assert secret_values(environ) == ["hf_abcdef"]


def test_short_values_are_not_masked():
    assert written(["", "1", "true"], b"1 true") == b"1 true"


def test_a_whole_text_is_masked_at_once():
    assert Redactor([KEY]).text(f"starting: --api-key {KEY} x") == "starting: --api-key *** x"
