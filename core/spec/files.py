"""The deployment spec: what a user asks for, in TOML, typed and frozen.

Unknown keys and invalid values are SpecErrors that name the key, the value and what is valid.
"""

import re
from pathlib import Path

from ..toml import dump_toml, parse_toml, read_toml
from .check import check_deployment
from .check_job import check_section
from .deployment import DeploymentSpec
from .job import JobSpec

# Shell code, words of a command line, and variables may have newlines; in what becomes an option of sbatch they would
# end its line.
_SEVERAL_LINES = re.compile(r"(?:^|\.)(?:(?:setup|extra_args)\[\d+\]|env\.[^.]*)$")


def load_spec(path: Path) -> DeploymentSpec:
    """Read a spec file and check all of it but what depends on the engines. Raises SpecError."""
    return parse_spec(read_toml(path), path)


def parse_spec(text: str, path: Path = Path("file")) -> DeploymentSpec:
    """Parse TOML text and check all of it but what depends on the engines. Raises SpecError.

    `path` is that of the file, for errors that concern all of it.

    Whether an engine of that name exists and can do what its pool asks is checked by `check_engines` of nodes/engines.
    """
    spec = parse_toml(text, DeploymentSpec, _SEVERAL_LINES, path)
    check_deployment(spec)
    return spec


def dump_spec(spec: DeploymentSpec) -> str:
    """The spec as TOML; `parse_spec(dump_spec(spec)) == spec`."""
    return dump_toml(spec)


def load_job(path: Path) -> JobSpec:
    """Read and check the file of a single job. Raises SpecError."""
    job = parse_toml(read_toml(path), JobSpec, _SEVERAL_LINES, path)
    check_job(job)
    return job


def check_job(job: JobSpec) -> None:
    """Raise SpecError for a value that cannot be."""
    check_section("", job)
