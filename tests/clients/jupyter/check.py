"""A notebook with OpenAI's SDK, executed as Jupyter does; streams and async calls in its event loop too."""

import nbformat
from nbclient import NotebookClient
from tried import HERE, MODEL, expect, finish, tried

ASYNC = f"""
many = openai.AsyncOpenAI()
parts = await many.chat.completions.create(
    model="{MODEL}", messages=[{{"role": "user", "content": "What is the capital of France?"}}],
    max_tokens=24, temperature=0, stream=True,
)
async for part in parts:
    if part.choices:
        print(part.choices[0].delta.content or "", end="")
"""
notebook = nbformat.v4.new_notebook()
notebook.cells = [nbformat.v4.new_code_cell(text) for text in ((HERE / "recipe.py").read_text(), ASYNC)]
NotebookClient(notebook, timeout=200, kernel_name="python3").execute()


@tried("the recipe in a notebook")
def _():
    text = "".join(output.get("text", "") for output in notebook.cells[0].outputs)
    expect("Paris" in text, notebook.cells[0].outputs)


@tried("an async stream in a notebook")
def _():
    text = "".join(output.get("text", "") for output in notebook.cells[1].outputs)
    expect("Paris" in text, notebook.cells[1].outputs)


finish()
