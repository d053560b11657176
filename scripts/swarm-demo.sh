#!/usr/bin/env bash
# A worker swarm on this machine: nodes whose workers are Python processes find the prime factors of many numbers. One
# node is killed and another one joins in the middle; then the submitter itself is killed, and goes on where it stopped.
#
#   scripts/swarm-demo.sh [NUMBERS]          # 3000 by default
#
# Needs python3. MULTINODES_BIN names the command; otherwise it is built. Nothing is sent to the network.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
numbers=${1:-3000}
folder=$(mktemp -d)
nodes=()
submitter=

main() {
    build
    export MULTINODES_SWARM=swarm-demo-$$ MULTINODES_NO_MDNS=true MULTINODES_RUNTIME_DIR=$folder
    cd "$folder"
    python3 -c "print(*(10**9 + 7919 * n for n in range($numbers)), sep='\n')" >numbers

    say "three nodes start, each with two Python workers"
    for name in alpha beta gamma; do start "$name"; done
    "$bin" apps

    say "the submitter is killed (SIGKILL) after a third of the numbers, and beta's node with it"
    spread
    take $((numbers / 3))
    kill -KILL "${nodes[1]}" "$submitter"
    wait "$submitter" 2>/dev/null || true
    exec 3<&-

    say "the same command goes on where it stopped; another node joins, gamma stops in good order"
    spread
    take $((numbers / 2))
    start delta
    kill -TERM "${nodes[2]}"
    cat <&3 >>outcomes
    local status=0
    wait "$submitter" || status=$?
    cat summary
    [ "$status" = 0 ] || fail "map ended with exit code $status"

    say "every number has exactly one outcome, and each is right"
    python3 "$root/scripts/lib/check_factors.py" numbers outcomes
}

build() {
    bin=${MULTINODES_BIN:-}
    if [ -z "$bin" ]; then
        cargo build --release --locked --manifest-path "$root/Cargo.toml" --package multinodes
        bin=${CARGO_TARGET_DIR:-$root/target}/release/multinodes
    fi
    bin=$(realpath "$bin")
}

# start NAME: a node with two workers; returns when it is up and its application is known.
start() {
    local line
    exec {output}< <(exec "$bin" start --name "$1" --json --listen /ip4/127.0.0.1/tcp/0 \
        --serve "factors=python3 $root/examples/workers/factors.py" --slots factors=2 2>>"$folder/log")
    nodes+=($!)
    read -r -u "$output" line
    case $line in *'"started"'*) echo "$1 is up" ;; *) fail "$1 does not start: $line" ;; esac
    # Whatever else it says is not read here, and must not stop it.
    cat <&"$output" >/dev/null &
    nodes_readers+=($!)
}

# spread: has all numbers worked on; outcomes come on descriptor 3.
spread() {
    : >outcomes
    exec 3< <(exec "$bin" map factors factor --in numbers --journal journal 2>summary)
    submitter=$!
}

# take COUNT: reads so many outcomes.
take() {
    local count line
    for ((count = 0; count < $1; count++)); do
        read -r line <&3 || fail "no outcome after $count: $(cat summary)"
        printf '%s\n' "$line" >>outcomes
    done
}

say() { printf '\n== %s\n' "$*"; }

fail() {
    echo "swarm-demo: $*" >&2
    exit 1
}

# Ends what was started here, and nothing else.
clean() {
    local status=$? pid
    for pid in "${nodes[@]}" ${submitter:+"$submitter"}; do kill -KILL "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
    exit "$status"
}

nodes_readers=()
trap clean EXIT
main
