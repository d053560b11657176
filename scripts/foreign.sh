#!/usr/bin/env bash
# A node of another implementation (examples/foreign, on js-libp2p) beside one of this project, in an open and in a
# private swarm: each calls the other, and nobody is lost while libp2p does what it does by itself.
#
#   MULTINODES_BIN=target/debug/multinodes scripts/foreign.sh
#
# Exits with 69 where npm is not there, or reaches no registry.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

readonly unavailable=69
readonly program=$(realpath "${MULTINODES_BIN:-$here/../target/debug/multinodes}")
readonly install_limit=300
readonly limit=20
# Stock js-libp2p ends a stream of pings after 10 s, and this project a connection after 3.5 s of silence.
readonly together=25

work=$(mktemp -d)
node_pid='' peer_pid=''
export MULTINODES_NO_MDNS=true MULTINODES_RUNTIME_DIR=$work/runtime MULTINODES_SWARM=foreign

main() {
    install
    rehearse
    "$program" secret new "$work/secret" 2>/dev/null
    export MULTINODES_SECRET=$work/secret
    rehearse "$(cat "$work/secret")"
    echo "all passed"
}

install() {
    command -v npm >/dev/null && command -v node >/dev/null || give_up "there is no npm"
    cp "$here"/../examples/foreign/{package.json,*.mjs} "$work"
    cd "$work"
    quietly npm install || give_up "npm cannot install what it needs"
    node=node
    if [ "$(node --print 'process.versions.node.split(".")[0] >= 22')" != true ]; then
        quietly npm install --no-save node@22 || give_up "npm cannot install Node.js 22"
        node=$work/node_modules/.bin/node
    fi
    "$node" --version >/dev/null || give_up "Node.js 22 does not run here"
}

quietly() {
    timeout "$install_limit" "$@" --no-audit --no-fund >"$work/npm.log" 2>&1
}

# rehearse [SECRET]
rehearse() {
    echo "== ${1:+private }swarm"
    rm -f "$work"/*.events "$work"/*.said
    "$program" start --json --name native --listen /ip4/127.0.0.1/tcp/0 >"$work/native.events" 2>"$work/native.log" &
    node_pid=$!
    wait_until "the node has started" grep -qs '"event":"started"' "$work/native.events"
    rm -f "$work/input"
    mkfifo "$work/input"
    "$node" check.mjs foreign "$(address)" "$@" <"$work/input" >"$work/peer.said" 2>"$work/peer.log" &
    peer_pid=$!
    exec 3>"$work/input"
    wait_until "the peer is ready" grep -qs '^ready$' "$work/peer.said"
    grep '^ok:' "$work/peer.said"

    wait_until "the node sees the peer" grep -qs '"event":"joined".*"name":"js"' "$work/native.events"
    expect '"HELLO"' call foreign upper '"hello"'
    echo "ok: the command calls the peer"
    [ "$("$program" call foreign zeros 3000000 --timeout 20s | wc -c)" = 3000003 ] || fail "a large result has not come whole"
    echo "ok: a result of 3 MB comes from the peer"
    "$program" doctor --json >"$work/doctor.said" || true
    grep -q '"check":"dialling","subject":"js [^"]*","verdict":"ok"' "$work/doctor.said" || fail "the doctor does not reach the peer"
    echo "ok: the doctor takes the peer for a member"

    SECONDS=0
    until [ "$SECONDS" -ge "$together" ]; do
        ! has_ended "$peer_pid" || fail "the peer has ended"
        read -rt 0.2 <>"$work/never" || true
    done
    ! grep -q '"event":"left"' "$work/native.events" || fail "the node has lost the peer"
    expect '"HELLO"' call foreign upper '"hello"'
    echo "ok: nobody was lost for $together s"

    exec 3>&-
    wait_until "the node hears the goodbye" grep -qs '"event":"left".*"name":"js".*"reason":"stopped"' "$work/native.events"
    wait "$peer_pid" || fail "the peer ended with $?"
    echo "ok: the goodbye is heard"
    kill -TERM "$node_pid"
    wait "$node_pid" || fail "the node ended with $?"
    peer_pid='' node_pid=''
}

address() {
    grep -oE '/ip4/127\.0\.0\.1/tcp/[0-9]+/p2p/[A-Za-z0-9]+' "$work/native.events" | head -n 1
}

# expect ANSWER ARGUMENT...
expect() {
    local wanted=$1 said
    shift
    said=$("$program" "$@" --timeout 10s) || fail "\`$*\` ended with $?"
    [ "$said" = "$wanted" ] || fail "\`$*\` gave $said, not $wanted"
}

# wait_until WHAT CONDITION...
wait_until() {
    local what=$1 pid
    shift
    SECONDS=0
    until "$@"; do
        [ "$SECONDS" -lt "$limit" ] || fail "not within $limit s: $what"
        for pid in $node_pid $peer_pid; do
            ! has_ended "$pid" || "$@" || fail "somebody has ended before: $what"
        done
        read -rt 0.1 <>"$work/never" || true
    done
}

has_ended() {
    # A process that nobody has waited for yet is a zombie: it has ended, too.
    ! grep -qsv '^State:[[:space:]]*Z' <(grep -s '^State:' "/proc/$1/status")
}

give_up() {
    echo "skipped: $1"
    exit "$unavailable"
}

fail() {
    local file
    echo "FAILED: $1" >&2
    for file in "$work"/*.events "$work"/*.said "$work"/*.log; do
        [ -s "$file" ] && { echo "--- ${file##*/}" && tail -n 15 "$file" | cut -c 1-400; } >&2
    done
    exit 1
}

clean_up() {
    local pid
    for pid in $node_pid $peer_pid; do kill -KILL "$pid" || true; done 2>/dev/null
    rm -rf "$work"
}

trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkfifo "$work/never"
main
