"""OpenAI's Codex, one turn with a tool, over /v1/responses. A script stands in for the model: it calls the shell."""

from pathlib import Path

from tried import expect, finish, recipe, scripted, tried

Path("note.txt").write_text("the secret is 4711\n", encoding="utf-8")
PROMPT = 'CALL exec_command {"cmd": "cat note.txt"}'


@tried("the recipe, a turn with a tool, scripted")
def _():
    said = recipe("recipe.sh", **scripted(), PROMPT=PROMPT)
    expect("The tool returned: " in said and said.rindex("4711") > said.index("The tool returned: "), said)


finish()
