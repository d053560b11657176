#!/usr/bin/env bash
# Does a one-shot command stay quick on a host with many network interfaces, and do its nodes stay quiet?
#
#   scripts/netns-interfaces.sh [COUNT...]                            2 10 20 40 60 interfaces, in the release build
#   MULTINODES_BIN=FILE RUNS=20 IDLE_S=30 scripts/netns-interfaces.sh
#
# For each count there is a host (a network namespace) with so many interfaces, each a cable to a switch of its own, and two
# nodes. Printed are the median times of `multinodes nodes` with the rendezvous folder, without it (the LAN alone), and what
# is sent on all interfaces together while nothing happens, in bytes a second. Exit code 1 if with the most interfaces
# the command takes more than 1.5 times as long as with the fewest; 69 if namespaces cannot be made here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib/netns.sh
source "$here/lib/netns.sh"

if [ -z "${MULTINODES_BIN:-}" ]; then
    (cd "$here/.." && cargo build --release --package multinodes)
    MULTINODES_BIN=${CARGO_TARGET_DIR:-$here/../target}/release/multinodes
fi
MULTINODES_BIN=$(realpath "$MULTINODES_BIN")
export MULTINODES_BIN
readonly RUNS=${RUNS:-20} IDLE_S=${IDLE_S:-30}
export RUNS IDLE_S
[ $# -gt 0 ] || set -- 2 10 20 40 60
enter_own_namespaces "$@"

readonly program=$MULTINODES_BIN
unset "${!MULTINODES_@}"
work=$(mktemp -d /run/multinodes-interfaces.XXXXXX)
cd "$work"
pids=()
trap 'kill -KILL "${pids[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT

main() {
    local count first="" last=""
    printf '%10s %12s %12s %12s\n' interfaces folder_ms lan_ms idle_bytes_s
    for count in "$@"; do
        measure "$count"
        first=${first:-$folder_ms}
        last=$folder_ms
    done
    awk -v first="$first" -v last="$last" 'BEGIN { exit !(last <= 1.5 * first) }' ||
        { echo "FAILED: $last ms are more than 1.5 times $first ms" >&2; exit 1; }
    echo "netns-interfaces: passed"
}

# measure COUNT: prints a line, and leaves the first time in folder_ms.
measure() {
    local host=host$1 number name before after lan_ms sent
    make_host "$host"
    for number in $(seq "$1"); do
        ip link add name "sw$number" type bridge
        ip link set "sw$number" up
        ip link add name "p$number" type veth peer name "lan$number" netns "$(netns_of "$host")"
        ip link set "p$number" master "sw$number" up
        set_address "$host" "lan$number" "10.64.$number.1/24"
    done
    for name in one two; do
        nsenter --net="/run/netns/$(netns_of "$host")" -- \
            "$program" start --json --name "$name" --runtime-dir "$work/$host" >"$work/$name.events" 2>"$work/$name.log" </dev/null &
        pids+=($!)
    done
    for name in one two; do
        until grep -qs '"event":"joined"' "$work/$name.events"; do read -rt 0.05 <> <(:) || true; done
    done
    folder_ms=$(median "$host" --runtime-dir "$work/$host")
    lan_ms=$(median "$host" --no-rendezvous)
    # What was said at the start is over.
    read -rt 8 <> <(:) || true
    before=$(sent "$host")
    read -rt "$IDLE_S" <> <(:) || true
    after=$(sent "$host")
    sent=$(((after - before) / IDLE_S))
    printf '%10s %12s %12s %12s\n' "$1" "$folder_ms" "$lan_ms" "$sent"
    kill -TERM "${pids[@]}"
    wait "${pids[@]}" || true
    pids=()
    for number in $(seq "$1"); do ip link del "p$number" && ip link del "sw$number"; done
    ip netns del "$(netns_of "$host")"
}

# median HOST ARGUMENT...: of RUNS runs of `nodes`, in milliseconds. Each has to list both nodes.
median() {
    local host=$1 begun listed
    shift
    for _ in $(seq "$RUNS"); do
        begun=${EPOCHREALTIME/[.,]/}
        listed=$(in_host "$host" timeout 20 "$program" nodes --json "$@" 2>>"$work/nodes.log" | grep -o '"name"' | wc -l) || true
        echo "$(((${EPOCHREALTIME/[.,]/} - begun) / 100)) $listed"
    done | awk '$2 == 2 { print $1 } $2 != 2 { bad++ } END { if (bad) print "incomplete: " bad > "/dev/stderr" }' |
        sort -n | awk '{ all[NR] = $1 } END { if (NR) printf "%.1f", all[int((NR + 1) / 2)] / 10; else printf "none" }'
}

# sent HOST: bytes on all interfaces but loopback.
sent() {
    in_host "$1" cat /proc/net/dev | awk -F '[: ]+' '$2 ~ /^lan/ { sum += $11 } END { print sum + 0 }'
}

main "$@"
