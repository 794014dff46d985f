"""Reverse proxies in front of a router, with the settings that the docs give and no others."""

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ...support.waiting import eventually
from ..conftest import Deployment

PREFIX = "/rnode/n1/30000"  # as Open OnDemand has it

_NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    {documented}
    location {prefix}/ {{ proxy_pass {url}/; }}
    location / {{ proxy_pass {url}; }}
  }}
}}
"""
# What docs/guide/endpoint.md gives.
NGINX_LINES = """
    client_max_body_size 64m;
    proxy_read_timeout 1h;
    proxy_send_timeout 1h;
"""
_HAPROXY = """
defaults
  mode http
  timeout connect 5s
{documented}
frontend clients
  bind 127.0.0.1:{port}
  http-request replace-path {prefix}/(.*) /\\1
  default_backend router
backend router
  server router {address}
"""
HAPROXY_LINES = """
  timeout client 1h
  timeout server 1h
  option abortonclose
"""
_APACHE = """
ServerRoot {folder}
ServerName 127.0.0.1
PidFile {folder}/pid
ErrorLog {folder}/errors
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
Listen 127.0.0.1:{port}
{documented}
ProxyPass {prefix}/ {url}/
ProxyPass / {url}/
"""
APACHE_LINES = """
    ProxyTimeout 3600
"""


@dataclass(frozen=True)
class Proxy:
    """A proxy before a deployment."""

    name: str
    url: str
    deployment: Deployment

    def client(self) -> httpx.Client:
        """A client with the deployment's key."""
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.deployment.run.key()}"}, timeout=20
        )


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _nginx(folder: Path, url: str, port: int) -> list[str]:
    text = _NGINX.format(folder=folder, url=url, port=port, prefix=PREFIX, documented=NGINX_LINES)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def _haproxy(folder: Path, url: str, port: int) -> list[str]:
    address = url.removeprefix("http://")
    text = _HAPROXY.format(address=address, port=port, prefix=PREFIX, documented=HAPROXY_LINES)
    (folder / "haproxy.cfg").write_text(text, encoding="utf-8")
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


def _apache2(folder: Path, url: str, port: int) -> list[str]:
    text = _APACHE.format(folder=folder, url=url, port=port, prefix=PREFIX, documented=APACHE_LINES)
    (folder / "apache.conf").write_text(text, encoding="utf-8")
    return ["apache2", "-D", "FOREGROUND", "-f", str(folder / "apache.conf")]


_PROXIES: dict[str, Callable[[Path, str, int], list[str]]] = {
    "nginx": _nginx,
    "haproxy": _haproxy,
    "apache2": _apache2,
}


@pytest.fixture(params=sorted(_PROXIES))
def proxy(request: pytest.FixtureRequest, one: Deployment, tmp_path: Path) -> Iterator[Proxy]:
    """Each of the proxies before a router with one worker."""
    name = request.param
    where = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if where is None:
        pytest.skip(f"{name} is not installed (make proxies)")
    port = _free_port()
    argv = [where, *_PROXIES[name](tmp_path, one.url, port)[1:]]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        eventually(lambda: process.poll() is not None or _answers(port), f"{name} listens")
        assert process.poll() is None, (tmp_path / "log").read_text(encoding="utf-8")
        yield Proxy(name, f"http://127.0.0.1:{port}", one)
    finally:
        process.terminate()
        process.wait(30)
