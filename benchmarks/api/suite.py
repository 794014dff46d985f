"""The public JSON-Schema-Test-Suite, which the source distribution of `jsonschema` carries."""

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VERSION = "4.26.0"
# About what ECMA's regular expressions and Python's differ in: the validator is Python's.
_LEFT_OUT = "optional/ecmascript-regex.json"
_FOLDER = f"jsonschema-{VERSION}/json/tests/draft2020-12/"


def schemas() -> dict[str, Any]:
    """All schemas of draft 2020-12, the optional tests' included, by file and description. Needs a package registry."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", folder, f"jsonschema=={VERSION}"], check=True)
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            for member in archive.getmembers():
                if (
                    member.name.startswith(_FOLDER)
                    and member.name.endswith(".json")
                    and not member.name.endswith(_LEFT_OUT)
                ):
                    content = archive.extractfile(member)
                    assert content is not None
                    for case in json.load(content):
                        name = f"{member.name.removeprefix(_FOLDER)}: {case['description']}"
                        found[name] = case["schema"]
    return found
