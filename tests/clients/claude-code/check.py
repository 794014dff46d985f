"""Claude Code, one turn with a tool. A script stands in for the model: it calls Bash, and quotes what Bash returned."""

import json
import os
import subprocess
from pathlib import Path

from tried import SCRIPTED_MODEL, expect, finish, recipe, scripted, tried

Path("note.txt").write_text("the secret is 4711\n", encoding="utf-8")
PROMPT = 'CALL Bash {"command": "cat note.txt", "description": "Read the note"}'
FLAGS = ["--output-format", "stream-json", "--verbose", "--include-partial-messages", "--allowedTools", "Bash"]


@tried("the recipe, a turn with a tool, scripted")
def _():
    said = recipe("recipe.sh", **scripted(), PROMPT=PROMPT)
    expect("the secret is 4711" in said, said)


@tried("its events, scripted")
def _():
    env = {
        **os.environ,
        **scripted(),
        "ANTHROPIC_MODEL": SCRIPTED_MODEL,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    done = subprocess.run(["claude", "-p", PROMPT, *FLAGS], env=env, capture_output=True, encoding="utf-8", timeout=200,
                          stdin=subprocess.DEVNULL)  # fmt: skip
    events = [json.loads(line) for line in done.stdout.splitlines()]
    (result,) = [event for event in events if event["type"] == "result"]
    expect(not result["is_error"] and "4711" in result["result"] and result["num_turns"] == 2, result)
    blocks = [block for event in events if event["type"] == "assistant" for block in event["message"]["content"]]
    uses = [block for block in blocks if block["type"] == "tool_use"]
    expect([use["input"]["command"] for use in uses] == ["cat note.txt"], uses)
    expect(result["usage"]["output_tokens"] > 5, result["usage"])


finish()
