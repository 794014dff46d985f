"""Qwen Code, one turn with a tool. A script stands in for the model: it calls the shell, and quotes the result."""

from pathlib import Path

from tried import expect, finish, recipe, scripted, tried

Path("note.txt").write_text("the secret is 4711\n", encoding="utf-8")
# It loses the output of commands that end at once, now and then.
PROMPT = 'CALL run_shell_command {"command": "cat note.txt; sleep 1", "is_background": false}'


@tried("the recipe, a turn with a tool, scripted")
def _():
    said = recipe("recipe.sh", **scripted(), PROMPT=PROMPT)
    expect("The tool returned: " in said and "4711" in said, said)


finish()
