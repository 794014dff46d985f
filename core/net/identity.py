"""Mutual authentication of two of our own programs over a network, by a certificate that both must have.

A file in the run directory holds one private key and its certificate. Both ends of a TLS connection present this
certificate and accept no other, so that each knows, before it sends anything, that the other could read the file.
"""

import os
import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .. import files
from ..errors import RunDirectoryError
from ..trust import require_trusted
from .certificates import load_pem

# Wide enough for any clock: an identity is ended by removing its file.
_VALID = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def make_identity(path: Path, name: str) -> None:
    """Write a new private key (NIST P-256) and its certificate to `path` as PEM, mode 0600. Raises RunDirectoryError.

    Args:
        path: of the file; one that is there is replaced.
        name: the certificate's common name, for whoever looks at a connection; nothing checks it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), *_VALID)
    certificate = builder.sign(key, hashes.SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    files.write_atomic(path, pem.decode("ascii"))


def server_context(path: Path) -> ssl.SSLContext:
    """TLS 1.3 for a server with the identity at `path`, which lets in only clients with the same one.

    Raises RunDirectoryError where the file cannot be used, UntrustedFileError where another user could have written it.
    """
    return _context(path, ssl.PROTOCOL_TLS_SERVER)


def server_context_of(pem: str) -> ssl.SSLContext:
    """As `server_context`, of the identity's text. Raises RunDirectoryError where it is none."""
    context = _bare_context(ssl.PROTOCOL_TLS_SERVER)
    try:
        load_pem(context, pem)
        context.load_verify_locations(cadata=pem[pem.index("-----BEGIN CERTIFICATE-----") :])
    except (ValueError, ssl.SSLError) as error:
        raise RunDirectoryError(f"cannot use an identity: {error}") from error
    return context


def client_context(path: Path) -> ssl.SSLContext:
    """TLS 1.3 for a client with the identity at `path`, which talks only to servers with the same one.

    Raises RunDirectoryError where the file cannot be used, UntrustedFileError where another user could have written it.
    """
    return _context(path, ssl.PROTOCOL_TLS_CLIENT)


def _context(path: Path, protocol: int) -> ssl.SSLContext:
    context = _bare_context(protocol)
    try:
        require_trusted(path)
        context.load_cert_chain(path)
        context.load_verify_locations(path)
    except (OSError, ssl.SSLError) as error:
        reason = os.strerror(error.errno) if error.errno and not isinstance(error, ssl.SSLError) else str(error)
        raise RunDirectoryError(f"cannot use the identity {path}: {reason}") from error
    return context


def _bare_context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the certificate itself is compared, whatever the address
    context.verify_mode = ssl.CERT_REQUIRED
    return context
