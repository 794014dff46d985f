"""HTTPS for clients, through a whole router."""

import ssl
from datetime import UTC, datetime

import httpx
import pytest
from cryptography import x509

from slurminfer.core.errors import SpecError
from slurminfer.core.net.certificates import fingerprint, new_key, self_signed
from slurminfer.core.net.identity import client_context
from slurminfer.router.certificate import read_certificate


@pytest.fixture
def secure(empty):
    """A router with a certificate of its own before one worker."""
    empty.configure(tls="self_signed")
    empty.add("cpu-0")
    empty.start_router()
    return empty


def client_of(deployment):
    context = ssl.create_default_context(cafile=deployment.run.router_authority_certificate_path)
    headers = {"Authorization": f"Bearer {deployment.run.key()}"}
    return httpx.Client(base_url=deployment.url, verify=context, headers=headers, timeout=20)


def test_a_client_with_the_certificate_is_answered_and_one_without_refuses(secure):
    assert secure.url.startswith("https://127.0.0.1:")
    with client_of(secure) as client:
        body = {"model": "stub-model", "messages": [], "stream": True}
        assert client.post("/v1/chat/completions", json=body).text.endswith("[DONE]\n\n")
        assert client.get("/workers").json()["workers"][0]["id"] == "cpu-0"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{secure.url}/health")


def test_the_record_has_the_fingerprint_of_what_clients_see(secure):
    host, port = secure.url.removeprefix("https://").split(":")
    seen = ssl.get_server_certificate((host, int(port)))
    assert seen in secure.run.router_certificate_path.read_text(encoding="ascii")
    record = secure.run.read_router()
    known = x509.load_pem_x509_certificate(secure.run.router_authority_certificate_path.read_bytes())
    assert record is not None and record.fingerprint == fingerprint(known)


def test_a_client_needs_no_other_certificate_when_the_router_is_on_another_node(secure, loop):
    """Also one of OpenSSL's strict mode, which is the default of newer Pythons."""
    context = ssl.create_default_context(cafile=secure.run.router_authority_certificate_path)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with httpx.Client(verify=context) as client:
        assert client.get(f"{secure.url}/health").status_code == 200
    before = secure.run.router_certificate_path.read_text()
    secure.stop_router()
    assert read_certificate(secure.run, secure.run.read_spec().router, ["node8", "127.0.0.1"])
    secure.start_router()
    assert secure.run.router_certificate_path.read_text() != before
    with httpx.Client(verify=context) as client:
        assert client.get(f"{secure.url}/health").status_code == 200


def test_our_own_commands_need_no_certificate(secure):
    record = secure.run.read_router()
    context = client_context(secure.run.router_identity_path)
    with httpx.Client(base_url=record.private_url, verify=context) as client:
        answer = client.get("/workers", headers={"Authorization": f"Bearer {secure.run.key()}"})
    assert answer.status_code == 200


def test_plain_http_at_the_port_is_told_to_use_https_and_logged_once(secure, caplog):
    address = secure.url.removeprefix("https://")
    for _ in range(20):
        answer = httpx.post(f"http://{address}/v1/completions", content=bytes(500_000), headers={"Connection": "close"})
        assert answer.status_code == 400 and "speaks HTTPS" in answer.text
    assert sum("refused so far" in record.message for record in caplog.records) <= 1
    with client_of(secure) as client:
        assert client.get("/health").status_code == 200


def test_given_files_are_served_and_faulty_ones_end_the_start_with_the_reason(empty, tmp_path):
    pem = self_signed(new_key(), "x", ["127.0.0.1"], datetime.now(UTC))
    path = tmp_path / "both.pem"
    path.write_text(pem)
    empty.configure(tls="files", tls_certificate=str(path), tls_key=str(path))
    empty.start_router()
    context = ssl.create_default_context(cafile=path)
    assert httpx.get(f"{empty.url}/health", verify=context).status_code == 503
    empty.stop_router()
    path.unlink()
    empty.configure(tls="files", tls_certificate=str(path), tls_key=str(path))
    with pytest.raises(AssertionError):
        empty.start_router()
    record = empty.run.read_router()
    assert record.url is None and "router.tls_certificate" in record.reason
    with pytest.raises(SpecError):
        empty.stop_router()
    empty._router = None
