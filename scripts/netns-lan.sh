#!/usr/bin/env bash
# Several hosts on one machine: do nodes find each other on a LAN, notice a pulled cable, and join across a router?
#
#   scripts/netns-lan.sh [one_lan|two_lans]      builds the release binary and uses it; one part, or both
#   MULTINODES_BIN=FILE scripts/netns-lan.sh
#
# Each host is a network namespace with one node in it, which has a runtime folder of its own: nothing but mDNS, or
# the one `--join` of the second part, leads from one to another. Every check prints a line `ok: ...` with the time it
# took; exit code 0 only if all passed, 69 if namespaces cannot be made here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib/netns.sh
source "$here/lib/netns.sh"

# Generous: the times that are printed are the result, these limits only end a failed run.
readonly FIND_LIMIT_MS=15000 LOSS_LIMIT_MS=60000 HEAL_LIMIT_MS=60000 CALL_LIMIT_MS=20000 STOP_LIMIT_MS=10000

if [ -z "${MULTINODES_BIN:-}" ]; then
    (cd "$here/.." && cargo build --release --package multinodes)
    MULTINODES_BIN=${CARGO_TARGET_DIR:-$here/../target}/release/multinodes
fi
MULTINODES_BIN=$(realpath "$MULTINODES_BIN")
export MULTINODES_BIN
enter_own_namespaces "$@"

readonly program=$MULTINODES_BIN
unset "${!MULTINODES_@}"
# On the private /run: it goes with the namespaces.
work=$(mktemp -d /run/multinodes-lan.XXXXXX)
cd "$work"

declare -A process_of=()

main() {
    local part
    for part in "$@"; do "$part"; done
    echo "netns-lan: all passed"
}

one_lan() {
    echo "== one LAN, found by mDNS alone"
    local names=(alpha beta gamma delta epsilon) name number=0
    make_lan lan
    for name in "${names[@]}"; do
        number=$((number + 1))
        make_host "$name"
        plug "$name" eth0 lan "10.77.0.$number/24"
    done
    begin
    for name in "${names[@]}"; do start_node "$name"; done
    all_see_all "$FIND_LIMIT_MS" "${names[@]}"
    ok "${#names[@]} nodes on one LAN see each other"
    check_call alpha epsilon
    check_call delta beta

    begin
    ip link set lan-delta down
    for name in alpha beta gamma epsilon; do
        wait_until "$LOSS_LIMIT_MS" "$name reports delta lost" last_event_is "$name" left delta
    done
    ok "delta's cable was pulled: all others report it lost"
    for name in alpha beta gamma epsilon; do
        wait_until "$LOSS_LIMIT_MS" "delta reports $name lost" last_event_is delta left "$name"
    done
    ok "delta, alone, reports all others lost"
    all_see_all "$FIND_LIMIT_MS" alpha beta gamma epsilon
    ok "the others still see each other"

    begin
    ip link set lan-delta up
    all_see_all "$HEAL_LIMIT_MS" "${names[@]}"
    ok "the cable is back: all see each other again"
    check_call delta alpha
    check_call gamma delta
    stop_all
    ip link del lan
}

two_lans() {
    echo "== two LANs with a router between them, joined through one address"
    make_lan east
    make_lan west
    make_host router
    plug router eth0 east 10.81.0.254/24
    plug router eth1 west 10.82.0.254/24
    in_host router sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
    add_routed_host one east 10.81.0.1
    add_routed_host two east 10.81.0.2
    add_routed_host three west 10.82.0.3
    add_routed_host four west 10.82.0.4
    begin
    start_node one --listen /ip4/0.0.0.0/tcp/4001
    start_node two
    start_node three --join 10.81.0.1:4001
    start_node four
    all_see_all "$FIND_LIMIT_MS" one two three four
    ok "4 nodes on two LANs see each other through one address"
    check_call four two
    check_call one four
    stop_all
}

# add_routed_host HOST LAN ADDRESS
add_routed_host() {
    make_host "$1"
    plug "$1" eth0 "$2" "$3/24"
    ip -n "$(netns_of "$1")" route add default via "${3%.*}.254"
}

# start_node NAME [ARGUMENT...]: on the host of the same name.
start_node() {
    local name=$1
    shift
    mkdir -p "$work/$name"
    nsenter --net="/run/netns/$(netns_of "$name")" -- \
        "$program" start --json --name "$name" --runtime-dir "$work/$name" "$@" \
        >"$work/$name.events" 2>"$work/$name.log" </dev/null &
    process_of[$name]=$!
}

# check_call FROM TO: the command, on one host, calls the node on another.
check_call() {
    local answer
    begin
    answer=$(in_host "$1" timeout "$((CALL_LIMIT_MS / 1000))" \
        "$program" call node echo '"hi"' --node "$2" --runtime-dir "$work/$1" 2>"$work/call.log") ||
        fail "\`multinodes call node echo\` on $1 to $2 ended with $?: $(cat "$work/call.log")"
    [ "$answer" = '"hi"' ] || fail "$2 answered $answer to $1, not \"hi\""
    ok "$1 calls $2"
}

stop_all() {
    local name
    begin
    for name in "${!process_of[@]}"; do kill -TERM "${process_of[$name]}"; done
    for name in "${!process_of[@]}"; do
        wait_until "$STOP_LIMIT_MS" "$name stops" has_ended "${process_of[$name]}"
        wait "${process_of[$name]}" || fail "$name ended with exit code $? after SIGTERM"
        tail -n 1 "$work/$name.events" | grep -q '"event":"stopped"' || fail "the last event of $name is not \`stopped\`"
    done
    process_of=()
    ok "all stop on SIGTERM"
}

# all_see_all LIMIT_MS NAME...
all_see_all() {
    local limit=$1 one other
    shift
    for one in "$@"; do
        for other in "$@"; do
            [ "$one" = "$other" ] || wait_until "$limit" "$one sees $other" last_event_is "$one" joined "$other"
        done
    done
}

# last_event_is READER KIND NAME: what READER said last of NAME's coming and going.
last_event_is() {
    grep -E '"event":"(joined|left)"' "$work/$1.events" | grep -F "\"name\":\"$3\"" | tail -n 1 |
        grep -qF "\"event\":\"$2\""
}

has_ended() {
    # A process that nobody has waited for yet is a zombie: it has ended, too.
    ! grep -qsv '^State:[[:space:]]*Z' <(grep -s '^State:' "/proc/$1/status")
}

# wait_until LIMIT_MS WHAT CONDITION...: asks again and again, up to so long after the last `begin`.
wait_until() {
    local limit=$1 what=$2 name
    shift 2
    until "$@"; do
        [ "$(elapsed_ms)" -lt "$limit" ] || fail "not within $limit ms: $what"
        for name in "${!process_of[@]}"; do
            case $what in *" stops") continue ;; esac
            has_ended "${process_of[$name]}" && fail "$name has ended by itself"
        done
        read -rt 0.02 <> <(:) || true
    done
}

begin() {
    begun=${EPOCHREALTIME/[.,]/}
}

elapsed_ms() {
    echo $(((${EPOCHREALTIME/[.,]/} - begun) / 1000))
}

ok() {
    echo "ok: $1 ($(elapsed_ms) ms)"
}

fail() {
    local file
    echo "FAILED: $1" >&2
    for file in "$work"/*.events "$work"/*.log; do
        [ -s "$file" ] && { echo "--- ${file##*/}" && tail -n 15 "$file"; } >&2
    done
    exit 1
}

clean_up() {
    local name
    for name in "${!process_of[@]}"; do kill -KILL "${process_of[$name]}" || true; done 2>/dev/null
    wait 2>/dev/null || true
    rm -rf "$work"
}

begin
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
case "$*" in
    "") main one_lan two_lans ;;
    one_lan | two_lans) main "$1" ;;
    *) fail "no part is named \`$*\`: one_lan, two_lans" ;;
esac
