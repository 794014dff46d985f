"""From a row to what is asked for it: columns, templates, and requests that rows spell out themselves."""

from ..parameters import Parameters
from .request import BatchRequest
from .row import Row


class Builder:
    """Builds requests as the batch's parameters say.

    Raises UsageError for parameters that contradict each other, a template that is none, a schema that is none.
    """

    def __init__(self, parameters: Parameters) -> None:
        raise NotImplementedError

    def build(self, row: Row) -> BatchRequest:
        """What the row asks for. Raises BadRowError for a row that asks for nothing that can be done; not for blank ones."""
        raise NotImplementedError
