"""OpenAI's client for JavaScript, as `make openai-js` installs it."""

import shutil
from pathlib import Path

# What it is installed from is beside this file.
FOLDER = Path(__file__).parents[2] / ".openai-js/node_modules/openai"
NODE = shutil.which("node")
MISSING = "OpenAI's client for JavaScript is not installed (make openai-js)"
