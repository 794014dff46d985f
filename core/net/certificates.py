"""Certificates of servers that any client may know: self-signed ones, given ones, and TLS with them from memory."""

import os
import ssl
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Apple's and some other clients refuse certificates that are valid for longer than 825 days.
_VALID = timedelta(days=820)
_RENEW_BEFORE = timedelta(days=60)
_SKEW = timedelta(days=1)  # of clients' clocks


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new private key (NIST P-256, which all clients know)."""
    return ec.generate_private_key(ec.SECP256R1())


def self_signed(key: ec.EllipticCurvePrivateKey, name: str, hosts: Collection[str], now: datetime) -> str:
    """Private key and certificate as PEM.

    Args:
        key: of the certificate, which signs it too.
        name: its common name, for people.
        hosts: names and IP addresses by which clients reach the server.
        now: from a day before which it is valid, for 820 days.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        x509.CertificateBuilder(
            subject, subject, key.public_key(), x509.random_serial_number(), now - _SKEW, now + _VALID
        )
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        # Clients that are given the certificate itself as their authority want it to be one.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (private + certificate.public_bytes(serialization.Encoding.PEM)).decode("ascii")


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The names and IP addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def is_due(certificate: x509.Certificate, now: datetime | None = None) -> bool:
    """Whether a certificate ends within 60 days."""
    return certificate.not_valid_after_utc - (now or datetime.now(UTC)) < _RENEW_BEFORE


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
