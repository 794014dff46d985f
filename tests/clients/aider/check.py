"""aider, which needs no tools: it asks for edits as text. A script in place of the model repeats the last line."""

import subprocess
from pathlib import Path

from tried import MODEL, expect, finish, recipe, scripted, tried

QUIET = {"AIDER_ANALYTICS": "false", "AIDER_CHECK_UPDATE": "false", "AIDER_GITIGNORE": "false"}
subprocess.run(["git", "init", "-q"], check=True)
Path("poem.txt").write_text("roses are red\n", encoding="utf-8")


@tried("the recipe, streamed, scripted")
def _():
    said = recipe("recipe.sh", **scripted(), **QUIET, PROMPT="violets are blue")
    expect("You said: " in said, said)


@tried("the recipe, with the model")
def _():
    said = recipe("recipe.sh", **QUIET, MODEL=MODEL, PROMPT="Say hello")
    expect("Tokens:" in said, said)


finish()
