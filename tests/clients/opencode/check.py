"""opencode, one turn with a tool. A script stands in for the model: it calls bash, and quotes what bash returned."""

from pathlib import Path

from tried import expect, finish, recipe, scripted, tried

Path("note.txt").write_text("the secret is 4711\n", encoding="utf-8")
PROMPT = 'CALL bash {"command": "cat note.txt", "description": "Read the note"}'


@tried("the recipe, a turn with a tool, scripted")
def _():
    said = recipe("recipe.sh", **scripted(), PROMPT=PROMPT)
    expect("The tool returned: the secret is 4711" in said, said)


finish()
