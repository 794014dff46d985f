"""Certificates for servers that any client may know: who accepts them, and how they are loaded from memory."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from slurminfer.core.net.certificates import (
    context_for_clients,
    fingerprint,
    hosts_of,
    is_due,
    load_pem,
    new_key,
    renew,
    self_signed,
)

NOW = datetime.now(UTC)


def certificate_of(pem):
    return x509.load_pem_x509_certificate(pem.encode())


def handshake(server_context, client_context, name):
    """Shake hands in memory; the certificate that the client has seen (DER)."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for end in (client, server):
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                pass
    return client.getpeercert(binary_form=True)


def trusting(pem):
    return ssl.create_default_context(cadata=pem[pem.index("-----BEGIN CERTIFICATE") :])


@pytest.mark.parametrize("host", ["node7", "127.0.0.1"])
def test_a_client_that_is_given_the_certificate_accepts_its_hosts(host):
    pem = self_signed(new_key(), "slurminfer x", ["node7", "127.0.0.1"], NOW)
    seen = handshake(context_for_clients(pem), trusting(pem), host)
    assert fingerprint(x509.load_der_x509_certificate(seen)) == fingerprint(certificate_of(pem))


def test_another_host_is_refused():
    pem = self_signed(new_key(), "slurminfer x", ["node7", "127.0.0.1"], NOW)
    for host in ("node8", "127.0.0.2"):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(context_for_clients(pem), trusting(pem), host)


def test_a_renewed_certificate_serves_the_next_handshake():
    first, second = (self_signed(new_key(), "slurminfer x", ["node7"], NOW) for _ in range(2))
    context = context_for_clients(first)
    assert handshake(context, trusting(first), "node7")
    renew(context, second)
    assert handshake(context, trusting(second), "node7")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context, trusting(first), "node7")


def test_what_it_says_of_itself():
    certificate = certificate_of(self_signed(new_key(), "x" * 100, ["node7", "10.1.2.3"], NOW))
    assert hosts_of(certificate) == ["node7", "10.1.2.3"]
    assert fingerprint(certificate).count(":") == 31 and fingerprint(certificate).isupper()
    assert not is_due(certificate, NOW)
    assert is_due(certificate, NOW + timedelta(days=790))


def test_a_key_with_a_passphrase_is_an_error_and_no_question():
    pem = self_signed(new_key(), "x", ["a"], NOW)
    locked = new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    with pytest.raises(ssl.SSLError):
        load_pem(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), locked.decode() + pem[pem.index("-----BEGIN CERT") :])
