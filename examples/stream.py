"""Ask one question and show the answer as it is generated. Usage: stream.py QUESTION

Reads OPENAI_BASE_URL and OPENAI_API_KEY, as `slurminfer serve --wait` prints them.
"""

import json
import os
import sys

import httpx

base, headers = os.environ["OPENAI_BASE_URL"], {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
model = httpx.get(f"{base}/models", headers=headers).raise_for_status().json()["data"][0]["id"]
body = {
    "model": model,
    "messages": [{"role": "user", "content": sys.argv[1]}],
    "stream": True,
    "temperature": 0,
    "max_tokens": 120,
}
with httpx.stream("POST", f"{base}/chat/completions", json=body, headers=headers, timeout=120) as answer:
    answer.raise_for_status()
    for line in answer.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                sys.exit(f"error: {event['error']['message']}")
            for choice in event["choices"]:
                print(choice["delta"].get("content") or "", end="", flush=True)
print()
