"""Certificates of servers that any client may know: of an authority of our own, given ones, and TLS with them."""

import os
import ssl
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Apple's and some other clients refuse certificates that are valid for longer than 825 days.
_VALID = timedelta(days=820)
_AUTHORITY_VALID = timedelta(days=7300)
_RENEW_BEFORE = timedelta(days=60)
_SKEW = timedelta(days=1)  # of clients' clocks


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new private key (NIST P-256, which all clients know)."""
    return ec.generate_private_key(ec.SECP256R1())


def self_signed(key: ec.EllipticCurvePrivateKey, name: str, hosts: Collection[str], now: datetime) -> str:
    """Private key and certificate as PEM, of a server that is its own authority.

    Args:
        key: of the certificate, which signs it too.
        name: its common name, for people.
        hosts: names and IP addresses by which clients reach the server.
        now: from a day before which it is valid, for 820 days.
    """
    builder = _builder(key, _named(name), _named(name), now, _VALID)
    # Clients that are given the certificate itself as their authority want it to be one.
    builder = _of_server(builder, hosts).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return _pem(key, builder.sign(key, hashes.SHA256()))


def authority(key: ec.EllipticCurvePrivateKey, name: str, now: datetime) -> str:
    """Private key and certificate as PEM, of an authority of that common name, from a day before `now` for 20 years."""
    usage = x509.KeyUsage(
        key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        _builder(key, _named(name), _named(name), now, _AUTHORITY_VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return _pem(key, builder.sign(key, hashes.SHA256()))


def issued(
    key: ec.EllipticCurvePrivateKey,
    name: str,
    hosts: Collection[str],
    now: datetime,
    by: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
) -> str:
    """As `self_signed`, but of an authority, with its certificate at the end.

    Args:
        by: the authority's private key and its certificate.
    """
    signer, parent = by
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = (
        _of_server(_builder(key, _named(name), parent.subject, now, _VALID), hosts)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(issuer_id, critical=False)
    )
    return _pem(key, builder.sign(signer, hashes.SHA256()), parent)


def is_issued_by(certificate: x509.Certificate, parent: x509.Certificate) -> bool:
    """Whether that authority has signed the certificate."""
    try:
        certificate.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _builder(
    key: ec.EllipticCurvePrivateKey, subject: x509.Name, issuer: x509.Name, now: datetime, valid: timedelta
) -> x509.CertificateBuilder:
    own_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return x509.CertificateBuilder(
        issuer, subject, key.public_key(), x509.random_serial_number(), now - _SKEW, now + valid
    ).add_extension(own_id, critical=False)


def _of_server(builder: x509.CertificateBuilder, hosts: Collection[str]) -> x509.CertificateBuilder:
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    return builder.add_extension(names, critical=False).add_extension(usage, critical=False)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _pem(key: ec.EllipticCurvePrivateKey, *certificates: x509.Certificate) -> str:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)
    return (private + chain).decode("ascii")


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The names and IP addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def is_due(certificate: x509.Certificate, now: datetime | None = None) -> bool:
    """Whether a certificate ends within 60 days, or has not begun yet, as one that was made by a clock ahead."""
    now = now or datetime.now(UTC)
    return certificate.not_valid_after_utc - now < _RENEW_BEFORE or certificate.not_valid_before_utc > now


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, as browsers and openssl show it: upper-case hex octets with colons."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def context_for_clients(pem: str) -> ssl.SSLContext:
    """TLS 1.2 or newer for a server of HTTP/1.1 whose key and certificates, with their chain, are in `pem`.

    Raises ssl.SSLError where they are not what they should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    load_pem(context, pem)
    return context


def renew(context: ssl.SSLContext, pem: str) -> None:
    """Use other certificates for the handshakes to come. Raises ssl.SSLError."""
    load_pem(context, pem)


def load_pem(context: ssl.SSLContext, pem: str) -> None:
    """Load a private key and its certificates from memory; the ssl module takes files only. Raises ssl.SSLError."""
    file = os.memfd_create("slurminfer-pem", os.MFD_CLOEXEC)
    try:
        os.write(file, pem.encode("ascii"))
        # An encrypted key would make OpenSSL ask for its passphrase at the terminal.
        context.load_cert_chain(f"/proc/self/fd/{file}", password="")
    finally:
        os.close(file)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
