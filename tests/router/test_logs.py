"""What never stands in a log, at any level: prompts, answers and keys."""

import logging

import httpx
import pytest

from ..support.waiting import eventually

PROMPT = "the-marker-of-a-prompt"
CHAT = {"model": "stub-model", "messages": [{"role": "user", "content": PROMPT}], "prompt": PROMPT}


@pytest.mark.parametrize("mode", ["answer", "cut", "drop", "die", "refuse"])
def test_no_log_has_prompts_answers_or_keys(empty, caplog, mode):
    caplog.set_level(logging.DEBUG)
    broken, _ = empty.add("cpu-0"), empty.add("cpu-1")
    empty.configure(access_log=True)
    empty.start_router()
    if mode == "refuse":
        broken.status, broken.error = 400, {"error": {"message": f"cannot do {PROMPT}"}}
    else:
        broken.mode = mode
    for stream in (False, True, False, True):
        for path in ("/v1/chat/completions", "/v1/completions"):
            empty.http.post(path, json={**CHAT, "stream": stream, "user": PROMPT})
    httpx.post(f"{empty.url}/v1/completions", json=CHAT, headers={"Authorization": f"Bearer {PROMPT}"})
    empty.http.post("/v1/completions", content=f'{{"model": "{PROMPT}-but-no-json'.encode())
    eventually(lambda: '"path":"/v1/completions"' in caplog.text, "the access log is on")
    for secret in (PROMPT, "Hello", empty.run.key(), "key-of-cpu-0"):
        assert secret not in caplog.text, secret
