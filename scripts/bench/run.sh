#!/usr/bin/env bash
# Builds and runs the benchmark; prints a table, and writes target/bench.json. How to read it: README.md beside this.
#
#   scripts/bench/run.sh [--json] [--rounds N] [--only PHASE|CONTESTANT,...]
#
# BENCH_SECONDS sets the length of a phase (default 2), BENCH_ATTACK names the one attack that is measured. Runs in network namespaces of its own where that is allowed,
# so that it neither hears nor disturbs the real network, and the second host of one phase exists. Dask is installed
# from PyPI into target/dask at first, if there are python3 and pip; MULTINODES_DASK is the command that is run then.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"

readonly DASK=distributed==2026.8.0

cargo build --release --locked --package multinodes --package multinodes-bench --features multinodes-bench/wasm >&2
target=$(realpath "${CARGO_TARGET_DIR:-target}")
command=("$target/release/multinodes-bench" --out "$target/bench.json" "$@")

# Makes the environment, unless one with this version is there.
install_dask() {
    [ "$(cat "$target/dask/version" 2>/dev/null)" != "$DASK" ] || return 0
    rm -rf "$target/dask"
    python3 -m venv "$target/dask" &&
        "$target/dask/bin/pip" install --quiet --disable-pip-version-check "$DASK" &&
        echo "$DASK" >"$target/dask/version"
}
if [ -z "${MULTINODES_DASK:-}" ]; then
    if install_dask >&2; then
        export MULTINODES_DASK="$target/dask/bin/python scripts/bench/dask_map.py"
    else
        echo "Dask cannot be installed here: no comparison with it" >&2
    fi
fi

status=0
scripts/netns-pair.sh true 2>/dev/null || status=$?
if [ "$status" = 0 ]; then
    exec scripts/netns-pair.sh "${command[@]}"
fi
echo "no network namespaces here: the start across two hosts is not measured" >&2
exec "${command[@]}"
