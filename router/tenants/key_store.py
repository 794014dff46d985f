"""The keys that a deployment's tenants have: `keys.json` of the run directory, changed by `slurminfer keys`.

A key is 256 random bits, of which the file has the SHA-256 only. That is enough: salt and a slow hash protect secrets
that can be guessed, and nobody guesses one of 2^256 keys from its hash, however fast the hash is. It also lets every
request be looked up by its key's hash.
"""

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Literal

import msgspec

from ...core import files
from ...core.errors import RunDirectoryError, UsageError
from ...core.keys import new_key
from ...core.locks import Lock, wait_lock
from ...core.rundir import RunDirectory
from ...core.trust import PRIVATE_FILE
from .tenant import Priority, Tenant

_log = logging.getLogger(__name__)

# Names of tenants that every deployment has: the keys in `key` and `metrics.key`.
OWNER, METRICS = "owner", "metrics"
MOST_KEYS = 2_000

PriorityName = Literal["interactive", "default", "batch"]
_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME_RULE = "expected letters, digits, '.', '_' or '-', beginning with a letter or digit, at most 63 in all"
_Count = Annotated[int, msgspec.Meta(ge=1)]


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One key: who holds it, and what its requests may do."""

    tenant: str
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]  # SHA-256 of the key
    priority: PriorityName = "default"
    weight: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    requests_per_minute: _Count | None = None
    tokens_per_day: _Count | None = None
    account: str | None = None
    created_at: float = 0.0  # Unix seconds

    def as_tenant(self, slot: int) -> Tenant:
        """What relays know of it."""
        return Tenant(
            name=self.tenant,
            slot=slot,
            digest=self.digest,
            priority=Priority[self.priority.upper()],
            weight=self.weight,
            requests_per_minute=self.requests_per_minute,
            tokens_per_day=self.tokens_per_day,
            account=self.account,
        )


class _KeysFile(msgspec.Struct, kw_only=True):
    version: int = _VERSION
    keys: list[KeyRecord] = []


class KeyStore:
    """`keys.json` of one deployment. Reading never locks; changes are made one after the other."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run

    def read(self) -> list[KeyRecord]:
        """All keys, in the order in which they were added. Raises RunDirectoryError for a file that is damaged."""
        text = files.read_private(self._run.keys_path)
        return [] if text is None else parse_keys(self._run, text)

    def add(
        self,
        tenant: str,
        *,
        priority: str = "default",
        weight: float = 1.0,
        requests_per_minute: int | None = None,
        tokens_per_day: int | None = None,
        account: str | None = None,
    ) -> str:
        """Make a key for a new tenant, and return it: it is written nowhere.

        Raises UsageError for values that cannot be, RunDirectoryError where the file cannot be changed.
        """
        key = new_key()
        limits = _checked(
            priority=priority, weight=weight, requests_per_minute=requests_per_minute, tokens_per_day=tokens_per_day,
            account=account,
        )  # fmt: skip
        name, digest = _checked_name("tenant", tenant), digest_of(key.encode())
        record = KeyRecord(tenant=name, digest=digest, created_at=time.time(), **limits)
        if tenant in (OWNER, METRICS):
            raise UsageError(f"tenant = {tenant!r}: this deployment's own key has that name; choose another one")
        with self._locked():
            keys = self.read()
            if tenant in [other.tenant for other in keys]:
                raise UsageError(f"tenant = {tenant!r}: has a key already; revoke it first, or choose another name")
            if len(keys) >= MOST_KEYS:
                raise UsageError(f"there are {len(keys)} keys, the most that a deployment can have; revoke some first")
            self._write([*keys, record])
        return key

    def change(self, tenant: str, **limits: str | float | None) -> None:
        """Give a tenant's key other `limits`, which are arguments of `add`; those that are not named stay.

        Raises UsageError for values that cannot be, and where there is no such tenant.
        """
        checked = _checked(**limits)
        with self._locked():
            keys = self.read()
            at = self._place(tenant, keys, "changed")
            keys[at] = msgspec.structs.replace(keys[at], **checked)
            self._write(keys)

    def revoke(self, tenant: str) -> None:
        """Forget a tenant's key. Raises UsageError that lists the tenants if there is none of that name."""
        with self._locked():
            keys = self.read()
            del keys[self._place(tenant, keys, "revoked")]
            self._write(keys)

    def _place(self, tenant: str, keys: list[KeyRecord], what: str) -> int:
        """Where a tenant's key is among `keys`. Raises UsageError where none can be revoked or changed (`what`)."""
        if tenant in (OWNER, METRICS):
            path = self._run.key_path if tenant == OWNER else self._run.metrics_key_path
            raise UsageError(f"tenant = {tenant!r}: the deployment's own key in {path} cannot be {what}")
        names = [key.tenant for key in keys]
        if tenant not in names:
            raise UsageError(f"tenant = {tenant!r}: there is no such key (there are: {', '.join(names) or 'none'})")
        return names.index(tenant)

    def _write(self, keys: list[KeyRecord]) -> None:
        files.write_atomic(self._run.keys_path, files.encode_json(_KeysFile(keys=keys)))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let nobody else change the keys, on any node, as long as the `with` lasts."""
        file = self._open_lock()
        try:
            yield
        finally:
            os.close(file)

    def _open_lock(self) -> int:
        path = self._run.keys_lock_path
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
            if wait_lock(file) is Lock.UNSUPPORTED:
                _log.warning("the filesystem of %s has no locks: change keys from one terminal at a time", path)
        except OSError as error:
            raise RunDirectoryError(f"cannot lock {path}: {error.strerror}") from error
        return file


def parse_keys(run: RunDirectory, text: str) -> list[KeyRecord]:
    """The keys in the text of `keys.json`. Raises RunDirectoryError."""
    path = run.keys_path
    found = files.parse_versioned(path, text, _KeysFile, _VERSION, what="list of keys")
    names = [key.tenant for key in found.keys]
    if twice := next((name for name in names if names.count(name) > 1 or not _NAME.fullmatch(name)), None):
        raise RunDirectoryError(f"{path}: tenant {twice!r} occurs twice, or is no name of a tenant")
    if reserved := {OWNER, METRICS} & set(names):
        raise RunDirectoryError(f"{path}: {reserved.pop()!r} is the name of the deployment's own key")
    return found.keys


def digest_of(key: bytes) -> str:
    """The SHA-256 by which a key is known."""
    return hashlib.sha256(key).hexdigest()


def _checked(**limits: Any) -> dict[str, Any]:
    """Fields of a key. Raises UsageError that names the option, the value and what is valid."""
    return {name: _CHECKS[name](value) for name, value in limits.items()}


def _checked_name(what: str, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise UsageError(f"{what} = {value!r}: {_NAME_RULE}")
    return value


def _checked_priority(value: str) -> PriorityName:
    for name in ("interactive", "default", "batch"):
        if value == name:
            return name
    raise UsageError(f"--priority = {value!r}: expected interactive, default or batch")


def _checked_weight(value: float) -> float:
    if not 0.001 <= value <= 1000:
        raise UsageError(f"--weight = {value:g}: expected a number from 0.001 to 1000")
    return value


def _checked_count(what: str, value: int | None) -> int | None:
    if value is not None and not 1 <= value <= 10**15:
        raise UsageError(f"{what} = {value}: expected a whole number from 1 to 10^15")
    return value


def _checked_account(value: str | None) -> str | None:
    return value if value is None else _checked_name("--account", value)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "priority": _checked_priority,
    "weight": _checked_weight,
    "requests_per_minute": partial(_checked_count, "--requests-per-minute"),
    "tokens_per_day": partial(_checked_count, "--tokens-per-day"),
    "account": _checked_account,
}
