#!/usr/bin/env bash
# The main job on real input: serve, stream one answer, generate 40 answers, stop. Uses Slurm where there is one.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
here=$project/examples
out=$project/demo
slurminfer=${SLURMINFER:-$project/.venv/bin/slurminfer}
python=$(dirname "$slurminfer")/python

local=(--local)
if command -v sbatch > /dev/null && timeout 10 scontrol ping > /dev/null 2>&1; then local=(); fi

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

mkdir -p "$out"
rm -rf "$out"/answers.jsonl*
say "$slurminfer" models fetch demo
trap '"$slurminfer" stop demo' EXIT
say "$slurminfer" serve "$here/demo.toml" "${local[@]}" --wait

OPENAI_BASE_URL=$("$slurminfer" status demo --json | "$python" -c 'import json, sys; print(json.load(sys.stdin)[0]["endpoint"])')
OPENAI_API_KEY=$(cat "${SLURMINFER_HOME:-$HOME/.slurminfer}/runs/demo/key")
export OPENAI_BASE_URL OPENAI_API_KEY
say "$python" "$here/stream.py" "Why is the sky blue? Answer in two sentences."
say "$slurminfer" batch "$here/data/gsm8k-40.jsonl" "$out/answers.jsonl" --run demo --max-tokens 128 --temperature 0
say "$slurminfer" status demo
printf '\nThe answers are in %s\n' "$out/answers.jsonl"
