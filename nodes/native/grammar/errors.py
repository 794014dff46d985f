"""Why a constraint is refused, and why a matcher fails."""


class ConstraintError(ValueError):
    """A constraint that cannot be compiled; the message says why and, for a schema, where."""


class GrammarsFullError(Exception):
    """Too many grammars are in use; the message says how many bytes they have."""


class MatcherError(Exception):
    """A matcher that cannot go on: a limit of the library, or a token that the grammar does not allow."""
