"""What the pages of files and batches share: values of requests, and how errors are told."""

import errno
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from ...core.errors import RunDirectoryError
from ..batches.errors import NotAllowedError, NotThereError
from ..batches.limits import LEAST_KEPT_S, MOST_KEPT_S
from .answers import failure
from .caller import caller_of

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]
_ENDS_S = 30  # after which it is worth a look whether another batch has ended
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}

_log = logging.getLogger(__name__)


def answered(page: Page) -> Page:
    """The page, with errors of the stores in OpenAI's shape."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await page(request)
        except NotThereError as error:
            return failure(404, str(error), param="id")
        except NotAllowedError as error:
            answer = failure(error.status, str(error), param=error.param, code=error.code)
            if error.status == 429:
                answer.headers["Retry-After"] = str(_ENDS_S)
            return answer
        except RunDirectoryError as error:
            return _broken(request, error)

    return answer


def tenant_of(request: web.Request) -> str:
    """The name of whoever asks."""
    tenant = caller_of(request).tenant
    assert tenant is not None, "whoever shows no key is refused before"
    return tenant


def integer(name: str, given: str | None, least: int, most: int, default: int) -> int:
    """A parameter of a query. Raises NotAllowedError."""
    if given is None:
        return default
    if not (_is_number(given) and least <= int(given) <= most):
        raise NotAllowedError(f"{name} = {given[:100]!r}: expected a whole number from {least} to {most}", name)
    return int(given)


def _is_number(text: str) -> bool:
    return len(text) <= 20 and text.isascii() and text.isdigit()


def choice(name: str, given: str | None, valid: Sequence[str], default: str) -> str:
    """A parameter of a query. Raises NotAllowedError."""
    if given is not None and given not in valid:
        raise NotAllowedError(f"{name} = {given[:100]!r}: expected one of {', '.join(valid)}", name)
    return default if given is None else given


def kept_s(name: str, anchor: Any, seconds: Any) -> int:
    """For how many seconds a file is kept, by `expires_after` or `output_expires_after`. Raises NotAllowedError."""
    if anchor != "created_at":
        raise NotAllowedError(f"{name}[anchor] = {str(anchor)[:100]!r}: expected 'created_at'", name)
    if isinstance(seconds, str) and _is_number(seconds):
        seconds = int(seconds)
    if type(seconds) is not int or not LEAST_KEPT_S <= seconds <= MOST_KEPT_S:
        expected = f"expected a whole number from {LEAST_KEPT_S} to {MOST_KEPT_S}"
        raise NotAllowedError(f"{name}[seconds] = {str(seconds)[:100]!r}: {expected}", name)
    return int(seconds)


def _broken(request: web.Request, error: RunDirectoryError) -> web.Response:
    """The deployment's own fault: its filesystem is full, or away."""
    _log.error("%s %.200s: %s", request.method, request.path, error)
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
        answer = failure(507, "the deployment's filesystem has no room left", code="no_space_left")
        answer.headers["X-Should-Retry"] = "false"  # OpenAI's clients obey it
        return answer
    return failure(500, "the deployment's filesystem does not answer as it should; its log says more")
