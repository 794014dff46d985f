"""Why a file or a batch cannot be had."""


class NotThereError(Exception):
    """There is no such file or batch, or it is another tenant's."""

    def __init__(self, what: str, id: str) -> None:
        super().__init__(f"No such {what}: {id[:100]!r}")


class NotAllowedError(Exception):
    """What a request asks for cannot be done.

    `param`: the field whose fault it is. `status`: HTTP's; 429 for what can be done later.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        self.param, self.code, self.status = param, code, status
        super().__init__(message)
