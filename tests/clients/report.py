"""The results of the checks: a file of JSON, and the table in the guide that is made of it."""

from pathlib import Path

import msgspec

from .checks import Outcome
from .environments import HOUSE, Client

RESULTS = HOUSE / "benchmarks/results/clients.json"
PAGE = HOUSE / "docs/guide/clients.md"
_BEGIN, _END = "<!-- the table, by make test-clients -->\n", "<!-- end of the table -->\n"


class Result(msgspec.Struct, frozen=True):
    """What was tried with one client."""

    versions: dict[str, str]  # by package
    works: list[str]
    fails: dict[str, str]  # why each of these did not work


def read(path: Path = RESULTS) -> dict[str, Result]:
    """Results by client; none where there is no file."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Result]) if path.exists() else {}


def merge(known: dict[str, Result], new: dict[Client, Outcome], names: set[str]) -> dict[str, Result]:
    """The results with new ones in their place, without those of clients that are no more."""
    added = {client.name: Result(client.versions(), said.works, said.fails) for client, said in new.items()}
    return {name: result for name, result in sorted((known | added).items()) if name in names}


def write(results: dict[str, Result], path: Path = RESULTS) -> None:
    """Write the file."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")


def table(results: dict[str, Result]) -> str:
    """The results as a table of Markdown."""
    rows = [
        f"| {name} | {_versions(result)} | {'; '.join([*result.works, *result.fails])} | {_verdict(result)} |"
        for name, result in results.items()
    ]
    return "\n".join(["| client | version | tried | works |", "|---|---|---|---|", *rows]) + "\n"


def with_table(page: str, results: dict[str, Result]) -> str:
    """The page with the table of these results. Raises ValueError where the page has no place for it."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError("the page has no place for the table")
    return f"{before}{begin}\n{table(results)}\n{end}{after}"


def _versions(result: Result) -> str:
    return ", ".join(f"{package} {version}" for package, version in result.versions.items())


def _verdict(result: Result) -> str:
    if not result.fails:
        return "yes"
    return "; ".join(f"not {what}: {why}" for what, why in result.fails.items()).replace("|", "\\|")
