"""The certificate that clients see where `router.tls` is not "off"."""

import logging
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from ..core import files
from ..core.errors import RunDirectoryError, SpecError
from ..core.net.certificates import context_for_clients, fingerprint, hosts_of, is_due, new_key, self_signed
from ..core.rundir import RunDirectory
from ..core.spec import RouterSpec

_CERTIFICATE, _KEY = "router.tls_certificate", "router.tls_key"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Certificate:
    """A private key and its certificates as PEM, and the SHA-256 of the first certificate in hex with colons."""

    pem: str
    fingerprint: str


def read_certificate(run: RunDirectory, spec: RouterSpec, hosts: Collection[str]) -> Certificate | None:
    """What `router.tls` says; None for "off". Reads and writes files.

    Args:
        run: whose directory keeps a certificate that is made here.
        spec: of the router.
        hosts: names and addresses by which clients reach the router, for a certificate that is made here.

    Raises SpecError for files that cannot be used, RunDirectoryError where the kept one is not ours to believe.
    """
    if spec.tls == "off":
        return None
    if spec.tls == "self_signed":
        return _self_signed(run, hosts)
    return _given(spec)


def _self_signed(run: RunDirectory, hosts: Collection[str]) -> Certificate:
    """The certificate of the run directory.

    It is made again, with the same key, for a host that it does not name yet, and when it is about to end.
    """
    path, now = run.router_certificate_path, datetime.now(UTC)
    kept = files.read_private(path)
    key, known = new_key(), list[str]()
    if kept is not None:
        try:
            found, certificate = _load_key(kept), x509.load_pem_x509_certificate(kept.encode())
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise RunDirectoryError(f"{path} is no certificate with its key: {error}; remove it") from error
        known = hosts_of(certificate)
        if set(hosts) <= set(known) and not is_due(certificate, now):
            return Certificate(kept, fingerprint(certificate))
        if isinstance(found, EllipticCurvePrivateKey):
            key = found
    pem = self_signed(key, f"slurminfer {run.path.name}", list(dict.fromkeys([*hosts, *known])), now)
    made = Certificate(pem, fingerprint(x509.load_pem_x509_certificate(pem.encode())))
    try:
        files.write_atomic(path, pem)
    except RunDirectoryError as error:
        _log.warning("the certificate is lost with this process: %s", error)
    _log.info("new certificate for %s, SHA-256 %s", ", ".join(hosts), made.fingerprint)
    return made


def _given(spec: RouterSpec) -> Certificate:
    chain, private = _read(_CERTIFICATE, spec.tls_certificate), _read(_KEY, spec.tls_key)
    try:
        certificate = x509.load_pem_x509_certificates(chain.encode())[0]
    except (ValueError, UnicodeEncodeError) as error:
        raise SpecError(_CERTIFICATE, spec.tls_certificate, f"this is no PEM certificate: {error}") from error
    try:
        key = _load_key(private)
    except TypeError as error:
        raise SpecError(_KEY, spec.tls_key, "the key has a passphrase, expected one without") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SpecError(_KEY, spec.tls_key, f"this is no PEM private key: {error}") from error
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise SpecError(_KEY, spec.tls_key, f"this is not the key of {_CERTIFICATE} ({spec.tls_certificate})")
    pem = private.strip() + "\n" + chain
    try:
        context_for_clients(pem)
    except (ssl.SSLError, ValueError) as error:
        raise SpecError(_CERTIFICATE, spec.tls_certificate, f"OpenSSL does not take it: {error}") from error
    if certificate.not_valid_after_utc < datetime.now(UTC):
        _log.warning("%s (%s) has expired: clients refuse it", _CERTIFICATE, spec.tls_certificate)
    return Certificate(pem, fingerprint(certificate))


def _read(key: str, path: str | None) -> str:
    if not path:
        raise SpecError(key, path, 'missing: tls = "files" needs the path of a PEM file')
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError as error:
        raise SpecError(key, path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SpecError(key, path, "this is no PEM file") from error


def _load_key(pem: str) -> PrivateKeyTypes:
    """Raises ValueError, TypeError for one with a passphrase, UnsupportedAlgorithm."""
    return load_pem_private_key(pem.encode(), password=None)
