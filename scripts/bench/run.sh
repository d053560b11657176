#!/usr/bin/env bash
# Builds and runs the benchmark; prints a table, and writes target/bench.json. How to read it: README.md beside this.
#
#   scripts/bench/run.sh [--json] [--rounds N] [--only PHASE|CONTESTANT,...]
#
# BENCH_SECONDS sets the length of a phase (default 2). Runs in network namespaces of its own where that is allowed,
# so that it neither hears nor disturbs the real network, and the second host of one phase exists.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"

cargo build --release --package multinodes --package multinodes-bench >&2
target=$(realpath "${CARGO_TARGET_DIR:-target}")
command=("$target/release/multinodes-bench" --out "$target/bench.json" "$@")

status=0
scripts/netns-pair.sh true 2>/dev/null || status=$?
if [ "$status" = 0 ]; then
    exec scripts/netns-pair.sh "${command[@]}"
fi
echo "no network namespaces here: the start across two hosts is not measured" >&2
exec "${command[@]}"
