"""Compare the log-likelihoods that runs of lm-eval with `--log_samples` have written.

    python compare.py REFERENCE RUN ...

Each is an `--output_path`. Prints, for each run, how many answers it has and the largest difference to the reference,
and fails where one is more than 0.001 or another answer counts as the model's own.
"""

import json
import sys
from pathlib import Path

TOLERANCE = 1e-3

Answer = tuple[float, bool]  # log-likelihood, and whether the model would have chosen it


def read(directory: Path) -> dict[tuple[int, int], Answer]:
    """The answers of the newest run in a directory, by document and choice."""
    newest = max(directory.rglob("samples_*.jsonl"), key=lambda path: path.stat().st_mtime)
    found: dict[tuple[int, int], Answer] = {}
    for line in newest.read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        for place, (logprob, greedy) in enumerate(sample["filtered_resps"]):
            found[sample["doc_id"], place] = float(logprob), str(greedy) == "True"
    return found


def main() -> int:
    """0 if all runs agree with the reference."""
    reference, *runs = (Path(argument) for argument in sys.argv[1:])
    expected, failed = read(reference), False
    for run in runs:
        found = read(run)
        if found.keys() != expected.keys():
            sys.exit(f"{run}: {len(found)} answers, but the reference has {len(expected)}")
        worst = max(abs(found[key][0] - expected[key][0]) for key in expected)
        others = sum(found[key][1] != expected[key][1] for key in expected)
        print(f"{run}: {len(found)} answers, largest difference {worst:.6f}, {others} otherwise greedy")
        failed |= worst > TOLERANCE or others > 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
