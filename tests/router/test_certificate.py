"""The certificate that clients see: made and kept in the run directory, or given by the spec."""

import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from slurminfer.core.errors import RunDirectoryError, SpecError
from slurminfer.core.net.certificates import hosts_of, new_key, self_signed
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.router import RouterSpec
from slurminfer.router import certificate as module
from slurminfer.router.certificate import Certificate, read_certificate

HOSTS = ["node7", "10.0.0.7", "localhost", "127.0.0.1"]
SELF_SIGNED = RouterSpec(tls="self_signed")


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create()
    return run


def read(run: RunDirectory, spec: RouterSpec, hosts: list[str]) -> Certificate:
    """The certificate that there must be."""
    found = read_certificate(run, spec, hosts)
    assert found is not None
    return found


def parsed(certificate):
    return x509.load_pem_x509_certificate(certificate.pem.encode())


def public_key(certificate):
    return parsed(certificate).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_off_needs_none(run):
    assert read_certificate(run, RouterSpec(), HOSTS) is None
    assert not run.router_certificate_path.exists()


def test_a_self_signed_one_is_kept_over_restarts_for_its_user_alone(run):
    first = read(run, SELF_SIGNED, HOSTS)
    assert read(run, SELF_SIGNED, HOSTS) == first
    assert hosts_of(parsed(first)) == ["node7", "localhost", "10.0.0.7", "127.0.0.1"]
    assert stat.S_IMODE(run.router_certificate_path.stat().st_mode) == 0o600
    run.clear()
    assert read(run, SELF_SIGNED, HOSTS) == first


def test_on_another_host_it_is_made_again_with_the_same_key_and_authority_and_names_both(run):
    first = read(run, SELF_SIGNED, HOSTS)
    second = read(run, SELF_SIGNED, ["node8", "10.0.0.8"])
    assert second.fingerprint == first.fingerprint and second.pem != first.pem
    assert public_key(second) == public_key(first)
    assert set(hosts_of(parsed(second))) == {*HOSTS, "node8", "10.0.0.8"}
    assert read(run, SELF_SIGNED, HOSTS) == second


def test_it_is_made_again_before_it_ends(run, monkeypatch):
    monkeypatch.setattr(module, "is_due", lambda certificate, now: True)
    first = read(run, SELF_SIGNED, HOSTS)
    second = read(run, SELF_SIGNED, HOSTS)
    assert second.fingerprint == first.fingerprint and second.pem != first.pem
    assert public_key(second) == public_key(first)


def test_without_its_authority_it_is_made_again(run):
    first = read(run, SELF_SIGNED, HOSTS)
    run.router_authority_path.unlink()
    second = read(run, SELF_SIGNED, HOSTS)
    assert second.fingerprint != first.fingerprint and public_key(second) == public_key(first)
    assert run.router_authority_certificate_path.read_text() == second.pem[second.pem.rindex("-----BEGIN") :]
    assert stat.S_IMODE(run.router_authority_path.stat().st_mode) == 0o600


def test_one_by_a_clock_ahead_is_made_again_and_such_an_authority_is_said(run, monkeypatch, caplog):
    class Ahead(datetime):
        days = 4000

        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=cls.days)

    read(run, SELF_SIGNED, HOSTS)
    run.router_certificate_path.unlink()
    with monkeypatch.context() as ahead:
        ahead.setattr(module, "datetime", Ahead)
        first = read(run, SELF_SIGNED, HOSTS)
    second = read(run, SELF_SIGNED, HOSTS)
    assert second.fingerprint == first.fingerprint
    assert parsed(second).not_valid_before_utc < datetime.now(UTC) < parsed(first).not_valid_before_utc
    assert not caplog.text
    monkeypatch.setattr(
        module, "datetime", type("Later", (Ahead,), {"now": lambda tz: datetime(2100, 1, 1, tzinfo=tz)})
    )
    read(run, SELF_SIGNED, HOSTS)
    assert "clients refuse what" in caplog.text and "router-ca.pem signs: it is valid from" in caplog.text


@pytest.mark.parametrize("name", ["router_certificate_path", "router_authority_path"])
def test_a_key_beside_the_certificate_of_another_is_refused(run, name):
    read(run, SELF_SIGNED, HOSTS)
    path, other = getattr(run, name), self_signed(new_key(), "other", ["n"], datetime.now(UTC))
    key, begin, _ = path.read_text().partition("-----BEGIN CERTIFICATE")
    path.write_text(key + begin + other.partition(begin)[2])
    with pytest.raises(RunDirectoryError, match=r"has a key and the certificate of another one; remove it"):
        read(run, SELF_SIGNED, HOSTS)


def test_one_that_cannot_be_saved_is_used_all_the_same(run, caplog, monkeypatch):
    def full(path, text):
        raise RunDirectoryError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("slurminfer.core.files.write_atomic", full)
    assert read(run, SELF_SIGNED, HOSTS).fingerprint
    assert "is lost with this process" in caplog.text


def test_a_damaged_or_foreign_one_is_refused(run):
    run.router_certificate_path.write_text("nonsense")
    run.router_certificate_path.chmod(0o600)
    with pytest.raises(RunDirectoryError, match=r"router-tls\.pem is no certificate with its key"):
        read(run, SELF_SIGNED, HOSTS)
    run.router_certificate_path.chmod(0o666)
    with pytest.raises(RunDirectoryError, match="may be written by others"):
        read(run, SELF_SIGNED, HOSTS)


@pytest.fixture
def given(tmp_path):
    """A spec with a certificate and its key in two files."""
    key = new_key()
    pem = self_signed(key, "example", ["example.org"], datetime.now(UTC))
    at = pem.index("-----BEGIN CERT")
    (tmp_path / "key.pem").write_text(pem[:at])
    (tmp_path / "chain.pem").write_text(pem[at:])
    return RouterSpec(tls="files", tls_certificate=str(tmp_path / "chain.pem"), tls_key=str(tmp_path / "key.pem"))


def test_given_files_are_read(run, given, tmp_path):
    found = read(run, given, [])
    assert hosts_of(parsed(found)) == ["example.org"]
    assert load_pem_private_key(found.pem.encode(), None)
    assert not run.router_certificate_path.exists()


def expect(run, spec, key, what):
    with pytest.raises(SpecError, match=what) as caught:
        read_certificate(run, spec, [])
    assert caught.value.key == key


def test_files_that_cannot_be_used_are_named(run, given, tmp_path):
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    good_chain, good_key = chain.read_text(), key.read_text()
    key.write_text(self_signed(new_key(), "x", ["a"], datetime.now(UTC)))
    expect(run, given, "router.tls_key", r"is not the key of router.tls_certificate")
    locked = new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    key.write_bytes(locked)
    expect(run, given, "router.tls_key", "has a passphrase")
    key.write_bytes(b"\xff\x00")
    expect(run, given, "router.tls_key", "no PEM")
    key.write_text("nonsense")
    expect(run, given, "router.tls_key", r"no PEM private key: [^:]*$")
    key.unlink()
    expect(run, given, "router.tls_key", "No such file")
    key.write_text(good_key)
    chain.write_text("nonsense")
    expect(run, given, "router.tls_certificate", r"no PEM certificate: [^:]*$")
    chain.unlink()
    chain.mkdir()
    expect(run, given, "router.tls_certificate", "Is a directory")
    chain.rmdir()
    chain.write_text(good_chain)
    assert read_certificate(run, given, [])
    expect(run, RouterSpec(tls="files", tls_key=str(key)), "router.tls_certificate", "missing")


def test_an_expired_one_is_said_to_be(run, given, tmp_path, caplog):
    pem = self_signed(new_key(), "x", ["a"], datetime.now(UTC) - timedelta(days=900))
    for name in ("chain.pem", "key.pem"):
        (tmp_path / name).write_text(pem)
    assert read_certificate(run, given, [])
    assert "has expired" in caplog.text
