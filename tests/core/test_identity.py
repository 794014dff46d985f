"""Who may talk to whom: only the two ends that have one file."""

import asyncio
import ssl
import stat
from pathlib import Path

import pytest

from slurminfer.core.errors import RunDirectoryError
from slurminfer.core.net.identity import client_context, make_identity, server_context


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "a.pem"
    make_identity(path, "worker p-0")
    return path


async def _talk(server: ssl.SSLContext, client: ssl.SSLContext | None) -> bytes:
    """What a client hears of a server that answers `hello` to whoever it lets in."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    listener = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=server)
    async with listener:
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname(), ssl=client)
        try:
            return await reader.read()
        finally:
            writer.close()


def test_both_ends_have_it(identity: Path) -> None:
    assert asyncio.run(_talk(server_context(identity), client_context(identity))) == b"hello"


def test_a_stranger_with_an_identity_of_its_own_is_refused(identity: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.pem"
    make_identity(other, "worker p-0")
    with pytest.raises(ssl.SSLError):
        asyncio.run(_talk(server_context(other), client_context(identity)))


def test_a_client_without_the_key_is_refused(identity: Path) -> None:
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    try:
        heard = asyncio.run(_talk(server_context(identity), anyone))
    except (ssl.SSLError, ConnectionError):
        heard = b""
    assert heard == b""


def test_the_file_is_for_its_owner_only(identity: Path) -> None:
    assert stat.S_IMODE(identity.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "no PEM"])
def test_what_is_no_identity_is_an_error_with_its_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.pem"
    path.write_text(text)
    with pytest.raises(RunDirectoryError, match=r"c\.pem"):
        server_context(path)


def test_a_missing_one_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"d\.pem: No such file"):
        client_context(tmp_path / "d.pem")
