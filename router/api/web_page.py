"""GET / and GET /docs: pages that are the same for everybody and without data; their scripts ask for it."""

import base64
import hashlib
import re
from pathlib import Path

from aiohttp import web

_FOLDER = Path(__file__).parents[1] / "page"
_THEME = "theme.css"


class WebPage:
    """A page with its headers, read once. The theme of all pages is put in place of the comment that names it."""

    def __init__(self, name: str) -> None:
        """`name`: of its file."""
        theme = (_FOLDER / _THEME).read_text(encoding="utf-8")
        self._text = (_FOLDER / name).read_text(encoding="utf-8").replace(f"/* {_THEME} */\n", theme)
        self._headers = {
            "Content-Security-Policy": policy_of(self._text),
            "Cache-Control": "no-cache",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }

    def answer(self, request: web.Request) -> web.Response:
        """The page."""
        return web.Response(text=self._text, content_type="text/html", charset="utf-8", headers=self._headers)


def policy_of(page: str) -> str:
    """The Content-Security-Policy that lets `page` run its own script and style, and reach its own origin only."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash_of('script', page)}",
            f"style-src {_hash_of('style', page)}",
            "connect-src 'self'",
            "img-src data:",  # its icon
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",  # text never becomes HTML
        ]
    )


def _hash_of(tag: str, page: str) -> str:
    """What a policy calls the content of the page's only element of that kind."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
