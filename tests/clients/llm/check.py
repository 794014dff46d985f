"""Simon Willison's command line `llm`."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tried import MODEL, SCRIPTED_KEY, SCRIPTED_MODEL, SCRIPTED_URL, expect, finish, recipe, tried

LLM = str(Path(sys.executable).parent / "llm")
HOME = Path(os.environ["HOME"]) / "llm"
os.environ["LLM_USER_PATH"] = str(HOME)
HOME.mkdir()
WEATHER = """
def get_weather(city: str) -> str:
    "The weather of a city"
    return f"21 degrees in {city}"
"""
MODELS = f"""
- model_id: plain
  model_name: {MODEL}
  api_base: {os.environ["OPENAI_BASE_URL"]}
  api_key_name: slurminfer
  completion: true
- model_id: scripted
  model_name: {SCRIPTED_MODEL}
  api_base: {SCRIPTED_URL}/v1
  api_key_name: scripted
  supports_tools: true
"""


def llm(*words: str) -> str:
    done = subprocess.run([LLM, *words], capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL)
    expect(done.returncode == 0, done.stdout + done.stderr)
    return done.stdout


@tried("the recipe (streamed)")
def _():
    said = recipe("recipe.sh")
    expect("Paris" in said, said)
    with (HOME / "extra-openai-models.yaml").open("a") as models:
        models.write(MODELS)
    llm("keys", "set", "scripted", "--value", SCRIPTED_KEY)


@tried("not streamed, with a system prompt")
def _():
    said = llm("-m", "slurminfer", "--no-stream", "-o", "max_tokens", "24", "-o", "temperature", "0",
               "-s", "Be brief.", "What is the capital of France?")  # fmt: skip
    expect("Paris" in said, said)


@tried("a conversation that goes on")
def _():
    said = llm("-c", "-o", "max_tokens", "16", "Tell me more")
    expect(said.strip(), said)


@tried("a completion model")
def _():
    said = llm("-m", "plain", "-o", "max_tokens", "6", "-o", "temperature", "0", "The capital of France is")
    expect("Paris" in said, said)


@tried("a schema")
def _():
    said = llm("-m", "slurminfer", "-o", "max_tokens", "80", "-o", "temperature", "0",
               "--schema", "name, inhabitants int", "The capital of France")  # fmt: skip
    city = json.loads(said)  # its schemas allow further keys
    expect(isinstance(city["name"], str) and isinstance(city["inhabitants"], int), said)


@tried("a tool, scripted")
def _():
    said = llm("-m", "scripted", "--functions", WEATHER, 'CALL get_weather {"city": "Paris"}')
    expect("21 degrees in Paris" in said, said)


finish()
