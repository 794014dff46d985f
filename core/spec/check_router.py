"""Checks of the router."""

import re

from ..errors import SpecError
from .deployment import DeploymentSpec, served_names
from .router import RouterSpec

_ORIGIN = re.compile(r"\*|null|[^/\s]+://[^/\s]+")  # "null": pages of files, and of sandboxed frames
# Keys of [router] that sglang-router cannot obey, and policies that it does not have.
_NATIVE_ROUTER_ONLY = (
    "relays", "overcommit", "reserved", "retry_budget", "hedge_after", "comment_after", "tls", "tls_certificate",
    "tls_key", "rule", "access_log", "pending_connections", "batches", "batch_files", "batch_storage",
    "translate", "keep_responses",
)  # fmt: skip
_SGLANG_POLICIES = ("cache_aware", "power_of_two", "round_robin")


def check_tls(router: RouterSpec) -> None:
    """Raise SpecError for a certificate that is missing, or of no use."""
    for key in ("tls_certificate", "tls_key"):
        path = getattr(router, key)
        if router.tls == "files" and not path:
            raise SpecError(f"router.{key}", path, "missing; tls = 'files' needs tls_certificate and tls_key")
        if router.tls != "files" and path is not None:
            raise SpecError(f"router.{key}", path, f"expected only with tls = 'files', not with '{router.tls}'")


def check_origins(origins: tuple[str, ...]) -> None:
    """Raise SpecError for an origin that no browser sends."""
    for place, origin in enumerate(origins):
        if not _ORIGIN.fullmatch(origin):
            expected = "expected a scheme and a host without a path, such as 'https://chat.example.org', or '*'"
            raise SpecError(f"router.allowed_origins[{place}]", origin, expected)


def check_backend(spec: DeploymentSpec) -> None:
    """Raise SpecError for what the backend cannot obey."""
    router, usual = spec.router, RouterSpec()
    if router.backend == "native":
        if router.python is not None:
            raise SpecError("router.python", router.python, "expected only with backend = 'sglang'")
        return
    for key in _NATIVE_ROUTER_ONLY:
        value = getattr(router, key)
        if value != getattr(usual, key):
            given = f"{len(value)} rules" if key == "rule" else value
            refused = ", ".join(_NATIVE_ROUTER_ONLY)
            raise SpecError(f"router.{key}", given, f"backend = 'sglang' cannot obey this key, nor any of: {refused}")
    if router.allowed_origins != usual.allowed_origins:
        _check_exact_origins(router.allowed_origins)
    if router.policy not in _SGLANG_POLICIES:
        expected = f"expected one of these with backend = 'sglang': {', '.join(_SGLANG_POLICIES)}"
        raise SpecError("router.policy", router.policy, expected)
    if len(names := served_names(spec)) > 1:
        raise SpecError("router.backend", router.backend, f"expected native for several models: {', '.join(names)}")
    for index, pool in enumerate(spec.pool):
        if pool.spill_after is not None:
            raise SpecError(f"pool[{index}].spill_after", pool.spill_after, "backend = 'sglang' cannot obey this key")
        fewest, most = pool.bounds
        if fewest < most:
            expected = f"expected max_workers = {most} too: with backend = 'sglang' the number cannot follow the load"
            raise SpecError(f"pool[{index}].min_workers", fewest, expected)


def _check_exact_origins(origins: tuple[str, ...]) -> None:
    if not origins or any("*" in origin for origin in origins):
        expected = "expected origins without *, at least one: backend = 'sglang' compares them as they are"
        raise SpecError("router.allowed_origins", list(origins), expected)
