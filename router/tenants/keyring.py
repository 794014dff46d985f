"""Whose key a request shows, as a relay knows it."""

from collections.abc import Iterable

from .key_store import digest_of
from .tenant import Tenant


class Keyring:
    """All tenants, found by the SHA-256 of their keys.

    The search takes a time that depends on the hash of what was given, of which nobody can choose any part.
    """

    def __init__(self, tenants: Iterable[Tenant] = ()) -> None:
        self._by_digest = {tenant.digest: tenant for tenant in tenants}

    def find(self, key: bytes) -> Tenant | None:
        """The tenant that holds this key; None if nobody does."""
        return self._by_digest.get(digest_of(key))
