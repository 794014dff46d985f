"""A line through measured times, by relative errors: a microsecond counts at 1 KiB, not at 64 MiB."""

import math
from collections.abc import Sequence

from ....core.site.communication import CommFit, CommPoint, Operation, ring_share, ring_steps


def fit(operation: Operation, ranks: int, points: Sequence[CommPoint]) -> CommFit:
    """The alpha and beta of two or more sizes, neither below 0, and the same for one step of a ring.

    For one number of ranks a ring's times are a line as well: alpha is its steps times that of a step, beta its share
    of the bytes times that of a step.
    """
    alpha, beta = _line(points)
    errors = [(alpha + beta * point.bytes) / point.seconds - 1 for point in points]
    return CommFit(
        operation=operation,
        points=tuple(points),
        alpha_s=alpha,
        beta_s_per_byte=beta,
        error=math.sqrt(sum(error**2 for error in errors) / len(errors)),
        worst_error=max(map(abs, errors)),
        step_alpha_s=alpha / ring_steps(operation, ranks),
        step_beta_s_per_byte=beta / ring_share(operation, ranks),
    )


def _line(points: Sequence[CommPoint]) -> tuple[float, float]:
    """Least squares of (alpha + beta n) / t - 1, with alpha and beta of 0 or more."""
    ones = [1 / point.seconds for point in points]
    sizes = [point.bytes / point.seconds for point in points]
    aa, ab, bb = _product(ones, ones), _product(ones, sizes), _product(sizes, sizes)
    a, b = sum(ones), sum(sizes)
    determinant = aa * bb - ab * ab
    alpha, beta = (a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant
    if alpha < 0:
        return 0.0, b / bb
    return (a / aa, 0.0) if beta < 0 else (alpha, beta)


def _product(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(one * other for one, other in zip(left, right, strict=True))
