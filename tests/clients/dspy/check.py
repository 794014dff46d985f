"""DSPy: a plain call, and a signature whose answer must be JSON."""

import os

import dspy
from tried import MODEL, SCRIPTED_KEY, SCRIPTED_MODEL, SCRIPTED_URL, expect, finish, recipe, tried


@tried("the recipe")
def _():
    said = recipe()
    expect("Paris" in said, said)


@tried("a signature with JSONAdapter (structured output)")
def _():
    lm = dspy.LM(
        f"openai/{MODEL}", api_base=os.environ["OPENAI_BASE_URL"], max_tokens=200, temperature=0, num_retries=0
    )
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        said = dspy.Predict("question -> capital: str")(question="What is the capital of France?")
    expect(isinstance(said.capital, str) and said.capital, said)


@tried("native tool calls, scripted")
def _():
    lm = dspy.LM(f"openai/{SCRIPTED_MODEL}", api_base=f"{SCRIPTED_URL}/v1", api_key=SCRIPTED_KEY, num_retries=0)
    function = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    (said,) = lm('CALL get_weather {"city": "Paris"}', tools=[{"type": "function", "function": function}])
    expect(said["tool_calls"][0].function.arguments == '{"city": "Paris"}', said)


finish()
