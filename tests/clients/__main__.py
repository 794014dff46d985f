"""Run clients that people use against real endpoints: `make test-clients`, `make test-clients CLIENTS="openai llm"`.

python -m tests.clients [NAME ...]          install and check them, and write the table of the guide
python -m tests.clients --pins [NAME ...]   pin their newest versions
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from . import checks, endpoints, environments, report


def main() -> int:
    """0 when everything that was tried works, else 1; 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients")
    parser.add_argument("names", nargs="*", metavar="NAME", help="the clients; by default all")
    parser.add_argument("--pins", action="store_true", help="pin the newest versions instead")
    arguments = parser.parse_args()
    try:
        chosen = environments.select(arguments.names)
    except ValueError as error:
        parser.error(str(error))
    if arguments.pins:
        for client in chosen:
            environments.refresh(client)
        return 0
    return check(chosen)


def check(chosen: list[environments.Client]) -> int:
    """Check clients one after the other, note the results, and say what does not work."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    outcomes: dict[environments.Client, checks.Outcome] = {}
    logs = environments.ENVIRONMENTS / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="clients-") as folder:
        home = Path(folder)
        with endpoints.native(home) as (endpoint, model), endpoints.scripted(home) as scripted:
            for client in chosen:
                try:
                    environments.install(client)
                    outcomes[client] = checks.run(client, endpoint, scripted, model, logs / f"{client.name}.log")
                except subprocess.CalledProcessError as error:
                    outcomes[client] = checks.Outcome(
                        [], {"installation": f"exit {error.returncode} of {error.cmd[0]}"}
                    )
                _note(outcomes)
                _say(client, outcomes[client])
    failed = [f"{client.name}: {what}: {why}" for client, said in outcomes.items() for what, why in said.fails.items()]
    print("\n".join(failed) or "all works", flush=True)
    return 1 if failed else 0


def _note(outcomes: dict[environments.Client, checks.Outcome]) -> None:
    """Write the results so far, and the table of the guide."""
    results = report.merge(report.read(), outcomes, {client.name for client in environments.clients()})
    report.write(results)
    report.PAGE.write_text(report.with_table(report.PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


def _say(client: environments.Client, outcome: checks.Outcome) -> None:
    for what in outcome.works:
        print(f"{client.name}: {what}: works", flush=True)
    for what, why in outcome.fails.items():
        print(f"{client.name}: {what}: FAILED: {why}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
