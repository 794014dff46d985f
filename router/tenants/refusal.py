"""A request that is not taken: what its sender is told, and when to come back."""

# What the holder of the key for metrics is told everywhere but at /metrics.
METRICS_ONLY = (
    "this API key opens GET /metrics only; everything else needs the deployment's own key, or that of a tenant "
    "(slurminfer keys)"
)

EXPECTED_KEY = "expected the header 'Authorization: Bearer KEY', or 'X-Api-Key: KEY'"


class Refused(Exception):
    """A request is refused.

    Args:
        status: of HTTP.
        message: for the sender; names the limit.
        retry_after: whole seconds after which it is worth trying again.
        code: `code` of the error in the body, such as rate_limit_exceeded.
    """

    def __init__(self, status: int, message: str, retry_after: int, code: str) -> None:
        self.status, self.message, self.retry_after, self.code = status, message, retry_after, code
        super().__init__(message)
