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
from ..core.net.certificates import (
    authority,
    context_for_clients,
    fingerprint,
    hosts_of,
    is_due,
    is_issued_by,
    issued,
    new_key,
)
from ..core.rundir import RunDirectory
from ..core.spec.router import RouterSpec

_CERTIFICATE, _KEY = "router.tls_certificate", "router.tls_key"
_BEGIN = "-----BEGIN CERTIFICATE-----"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Certificate:
    """A private key and its certificates as PEM, and the SHA-256 of that which clients know, in hex with colons."""

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


def check_given_files(spec: RouterSpec) -> None:
    """Raise SpecError where `router.tls` asks for files that cannot be used."""
    if spec.tls == "files":
        _given(spec)


def _self_signed(run: RunDirectory, hosts: Collection[str]) -> Certificate:
    """The certificate of the run directory, by an authority that is kept there too and that clients are given.

    It is made again, with the same key, for a host that it does not name yet, and when it is about to end. For clients
    nothing changes then.
    """
    now, path = datetime.now(UTC), run.router_certificate_path
    signer, parent = _authority(run, now)
    kept = files.read_private(path)
    key, known = new_key(), list[str]()
    if kept is not None:
        key, certificate = _parse(path, kept)
        known = hosts_of(certificate)
        if set(hosts) <= set(known) and not is_due(certificate, now) and is_issued_by(certificate, parent):
            return Certificate(kept, fingerprint(parent))
    pem = issued(key, f"slurminfer {run.path.name}", list(dict.fromkeys([*hosts, *known])), now, (signer, parent))
    try:
        files.write_atomic(path, pem)
    except RunDirectoryError as error:
        _log.warning("the certificate is lost with this process: %s", error)
    _log.info("new certificate for %s", ", ".join(hosts))
    return Certificate(pem, fingerprint(parent))


def _authority(run: RunDirectory, now: datetime) -> tuple[EllipticCurvePrivateKey, x509.Certificate]:
    """The authority of the run directory: the first router makes it."""
    path = run.router_authority_path
    pem = files.read_private(path)
    try:
        if pem is None:
            pem = authority(new_key(), f"authority of {run.path.name}", now)
            if not files.claim(path, pem):
                pem = files.read_private(path) or pem
        files.restore(run.router_authority_certificate_path, pem[pem.index(_BEGIN) :])
    except (RunDirectoryError, ValueError) as error:
        _log.warning("clients cannot be given the certificate of the authority: %s", error)
    key, certificate = _parse(path, pem or "")
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not since <= now <= until:
        _log.warning("clients refuse what %s signs: it is valid from %s to %s; remove it", path, since, until)
    return key, certificate


def _parse(path: Path, pem: str) -> tuple[EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key, certificate = _load_key(pem), x509.load_pem_x509_certificate(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RunDirectoryError(f"{path} is no certificate with its key: {error}; remove it") from error
    if not isinstance(key, EllipticCurvePrivateKey):
        raise RunDirectoryError(f"{path} has a key of another kind than the router makes; remove it")
    if not _belong_together(key, certificate):
        raise RunDirectoryError(f"{path} has a key and the certificate of another one; remove it")
    return key, certificate


def _belong_together(key: PrivateKeyTypes, certificate: x509.Certificate) -> bool:
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(*form) == certificate.public_key().public_bytes(*form)


def _given(spec: RouterSpec) -> Certificate:
    chain, private = _read(_CERTIFICATE, spec.tls_certificate), _read(_KEY, spec.tls_key)
    try:
        certificate = x509.load_pem_x509_certificates(chain.encode())[0]
    except (ValueError, UnicodeEncodeError) as error:
        raise SpecError(_CERTIFICATE, spec.tls_certificate, f"this is no PEM certificate: {_short(error)}") from error
    try:
        key = _load_key(private)
    except TypeError as error:
        raise SpecError(_KEY, spec.tls_key, "the key has a passphrase, expected one without") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SpecError(_KEY, spec.tls_key, f"this is no PEM private key: {_short(error)}") from error
    if not _belong_together(key, certificate):
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


def _short(error: Exception) -> str:
    """What cryptography says, without its link to questions that Python programmers ask."""
    return str(error).partition(" See https:")[0]


def _load_key(pem: str) -> PrivateKeyTypes:
    """Raises ValueError, TypeError for one with a passphrase, UnsupportedAlgorithm."""
    return load_pem_private_key(pem.encode(), password=None)
