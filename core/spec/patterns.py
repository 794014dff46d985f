"""Names of models with `*` in them, as rules have them: `*` stands for any text, also for none."""

WILDCARD = "*"


def is_pattern(name: str) -> bool:
    """Whether a name stands for several."""
    return WILDCARD in name


def fits(pattern: str, name: str) -> bool:
    """Whether a name is one that the pattern stands for. Takes time with the length of the name, whatever they are."""
    first, *rest = pattern.split(WILDCARD)
    if not rest:
        return name == pattern
    *middle, last = rest
    at, end = len(first), len(name) - len(last)
    if at > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
