#!/usr/bin/env bash
# Several hosts on one machine: do nodes find each other on a LAN, notice a pulled cable, and join across a router? Does
# a private swarm on a LAN with others keep to itself? Are nodes found while others talk all the time? Does the doctor
# find what is broken? Does a map wait while its own cable is pulled?
#
#   scripts/netns-lan.sh [one_lan|two_lans|private_lan|busy_lan|link_lan|doctor_lan|code_lan|cut_lan]      builds the release binary and uses it; one part, or all
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
    (cd "$here/.." && cargo build --release --locked --package multinodes)
    MULTINODES_BIN=${CARGO_TARGET_DIR:-$here/../target}/release/multinodes
fi
MULTINODES_BIN=$(realpath "$MULTINODES_BIN")
export MULTINODES_BIN
enter_own_namespaces "$@"

# So long strangers on one LAN are watched: each has heard of all others, and dialled them, in the first of these seconds.
readonly WATCH_MS=12000

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
    local names=(alpha beta gamma delta epsilon) name
    make_lan_of lan 10.77.0 "${names[@]}"
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

private_lan() {
    echo "== one LAN with an open swarm, a private one, and a stranger with a wrong secret"
    local name
    make_lan_of hall 10.91.0 ann ben kit lea mal
    "$program" secret new "$work/right.secret" 2>/dev/null
    "$program" secret new "$work/wrong.secret" 2>/dev/null
    begin
    start_node ann --swarm garden
    start_node ben --swarm garden
    start_node kit --swarm garden --secret "$work/right.secret"
    start_node lea --swarm garden --secret "$work/right.secret"
    start_node mal --swarm garden --secret "$work/wrong.secret"
    all_see_all "$FIND_LIMIT_MS" ann ben
    ok "the nodes of the open swarm see each other"
    all_see_all "$FIND_LIMIT_MS" kit lea
    ok "the nodes of the private swarm of the same name see each other"
    check_call ann ben --swarm garden
    check_call kit lea --swarm garden --secret "$work/right.secret"

    begin
    until [ "$(elapsed_ms)" -ge "$WATCH_MS" ]; do read -rt 0.1 <> <(:) || true; done
    check_sees ann "ben"
    check_sees ben "ann"
    check_sees kit "lea"
    check_sees lea "kit"
    check_sees mal ""
    ok "nobody has seen anybody of another swarm"

    begin
    check_nodes ann "ann ben" --swarm garden
    check_nodes kit "kit lea" --swarm garden --secret "$work/right.secret"
    check_nodes mal "mal" --swarm garden --secret "$work/wrong.secret"
    local address
    address=$(grep -oE '/ip4/10\.91\.0\.4/tcp/[0-9]+' "$work/lea.events" | head -n 1)
    [ -n "$address" ] || fail "lea has told no address of this LAN"
    for name in ann mal; do
        local secret=(--secret "$work/wrong.secret")
        [ "$name" = mal ] || secret=()
        if in_host "$name" timeout 10 "$program" ping lea --swarm garden --no-mdns --no-rendezvous --timeout 3s \
            "${secret[@]}" --join "$address" >"$work/ping.log" 2>&1; then
            fail "$name has reached lea at $address: $(cat "$work/ping.log")"
        fi
    done
    ok "who knows the address but not the secret reaches nobody"

    begin
    grep -rq garden "$work/lea" "$work/kit" && fail "a rendezvous folder of the private swarm names it"
    find "$work/lea" "$work/kit" -name '*garden*' | grep -q . && fail "a folder is called after the private swarm"
    find "$work/kit" -name '*.json' | grep -q . || fail "kit has left no note to look at"
    ok "what the private swarm has left on disk does not name it"

    begin
    in_host kit "$program" ticket --swarm garden --secret "$work/right.secret" --runtime-dir "$work/kit" \
        --out "$work/ticket" 2>/dev/null || fail "no ticket"
    check_nodes ann "kit lea" --no-mdns --ticket "$work/ticket"
    ok "a ticket leads a host of the LAN into the private swarm"
    stop_all
}

busy_lan() {
    echo "== one LAN on which somebody answers all the time"
    if ! command -v python3 >/dev/null; then
        echo "skipped: there is no python3 to talk"
        return
    fi
    local name number=0 chatter
    make_lan mall
    for name in tom una vic wes; do
        number=$((number + 1))
        make_host "$name"
        plug "$name" eth0 mall "10.99.0.$number/24"
    done
    begin
    start_node una --swarm market
    wait_until "$FIND_LIMIT_MS" "una has started" grep -qs '"event":"started"' "$work/una.events"
    in_host tom python3 "$here/lib/chatter.py" 10.99.0.1 >"$work/chatter.events" 2>"$work/chatter.log" </dev/null &
    chatter=$!
    wait_until "$FIND_LIMIT_MS" "the chatter has begun" grep -qs repeating "$work/chatter.events"
    start_node vic --swarm garden
    start_node wes --swarm garden
    all_see_all "$FIND_LIMIT_MS" vic wes
    kill -TERM "$chatter"
    wait "$chatter" || true
    ok "two nodes find each other while a stranger's answers never stop"
    stop_all
}

doctor_lan() {
    echo "== one LAN, and what the doctor finds on it"
    local name
    make_lan_of ward 10.95.0 ida jon kim
    begin
    start_node ida
    start_node jon
    all_see_all "$FIND_LIMIT_MS" ida jon
    for name in ida kim; do
        check_doctor "$name" 0 ""
        check_finding multicast 'eth0 10\.95\.0\.[0-9]' ok
        check_finding dialling 'ida /ip4/10\.95\.0\.1/tcp/[0-9]+' ok
        check_finding dialling 'jon /ip4/10\.95\.0\.2/tcp/[0-9]+' ok
        check_finding clock jon ok
    done
    ok "everything is fine on a host with a node, and on one without"

    begin
    check_doctor kim 0 "" --no-mdns --join 10.95.0.1:"$(port_of ida)"
    check_finding multicast mDNS ok
    ok "without multicast nothing of it is tried"

    begin
    in_host jon sh -c 'echo 0 > /proc/sys/net/ipv4/igmp_max_memberships'
    check_doctor jon 3 "--join"
    check_finding multicast 'eth0 10\.95\.0\.2' failure
    in_host jon sh -c 'echo 20 > /proc/sys/net/ipv4/igmp_max_memberships'
    ok "a host whose multicast is blocked: a failure with the remedy, exit code 3"

    begin
    ip -n "$(netns_of kim)" route add unreachable 10.95.0.1/32
    check_doctor kim 3 "firewall"
    check_finding dialling 'ida /ip4/10\.95\.0\.1/tcp/[0-9]+' failure
    check_finding dialling 'jon /ip4/10\.95\.0\.2/tcp/[0-9]+' ok
    ip -n "$(netns_of kim)" route del unreachable 10.95.0.1/32
    ok "a node that cannot be reached: a failure with the remedy, exit code 3"

    begin
    make_host lou
    check_doctor lou 1 "network interface"
    check_finding multicast interfaces warning
    check_finding nodes swarm warning
    ok "a host without a network: a warning with the remedy, exit code 1"
    stop_all

    begin
    check_doctor kim 1 "5353"
    check_finding nodes swarm warning
    ok "a swarm without nodes: a warning with the remedy, exit code 1"
}

link_lan() {
    echo "== a cable between two hosts, on which nobody gives addresses"
    local name
    make_lan cable
    for name in pia quin; do make_host "$name"; done
    plug pia eth0 cable 169.254.11.1/16
    plug quin eth0 cable 169.254.12.2/16
    begin
    start_node pia
    start_node quin
    all_see_all "$FIND_LIMIT_MS" pia quin
    ok "two hosts with link-local addresses see each other"
    check_call pia quin
    check_call quin pia
    begin
    check_doctor pia 0 ""
    check_finding multicast 'eth0 169\.254\.11\.1' ok
    check_finding dialling 'quin /ip4/169\.254\.12\.2/tcp/[0-9]+' ok
    check_finding listening quin ok
    grep -q 'which only hosts on the same link reach' "$work/doctor.log" || fail "\`doctor\` does not say who reaches quin"
    ok "the doctor says what is true there"

    begin
    make_lan strand
    for name in sam tia; do
        make_host "$name"
        plug "$name" eth0 strand ""
    done
    for name in sam tia; do wait_until "$FIND_LIMIT_MS" "$name has an address of its link" has_link_address "$name"; done
    start_node sam
    start_node tia
    all_see_all "$FIND_LIMIT_MS" sam tia
    ok "two hosts with nothing but link-local addresses of IPv6 see each other"
    check_call sam tia
    check_call tia sam
    begin
    check_doctor sam 0 ""
    check_finding multicast 'eth0 fe80::[0-9a-f:]+' ok
    check_finding dialling 'tia /ip6zone/eth0/ip6/fe80::[0-9a-f:]+/tcp/[0-9]+' ok
    grep -q 'which only hosts on the same link reach' "$work/doctor.log" || fail "\`doctor\` does not say who reaches tia"
    ok "the doctor says what is true there, too"

    begin
    make_lan office
    make_host rae
    plug rae eth0 office 10.98.0.1/24
    plug rae eth1 cable 169.254.13.3/16
    start_node rae
    all_see_all "$FIND_LIMIT_MS" pia quin rae
    ok "a host with a LAN beside the cable is seen as well"
    check_call pia rae
    check_call rae quin
    make_host uma
    plug uma eth0 office 10.98.0.2/24
    start_node uma
    all_see_all "$FIND_LIMIT_MS" uma rae
    check_call uma rae
    in_host uma "$program" nodes --json --runtime-dir "$work/uma" 2>/dev/null | grep -q '169\.254\.13\.3' &&
        fail "a host of the office is told rae's address on the cable"
    ok "a host that is not on the cable is told no address of it"
    stop_all
    ip link del cable
    ip link del strand
    ip link del office
}

code_lan() {
    echo "== one LAN on which code travels"
    local name guests=$here/../examples/guests
    if ! "$program" run --help 2>/dev/null | grep -q -- --install; then
        echo "skipped: this build has no feature \`wasm\`"
        return
    fi
    make_lan_of dock 10.97.0 ned oma pat
    begin
    start_node ned --allow-code any
    start_node oma --allow-code any
    start_node pat
    all_see_all "$FIND_LIMIT_MS" ned oma pat
    check_code 0 6 pat "$guests/sum.wasm" 1 2 3 --node ned
    ok "ned runs what comes from pat's host"
    begin
    check_code 0 6 ned "$guests/sum.wasm" 1 2 3 --node oma
    ok "oma runs what comes from ned's host"
    begin
    check_code 1 "" ned "$guests/sum.wasm" 1 2 3 --node pat
    ok "pat runs nothing of others"
    begin
    check_code 0 "" pat "$guests/collatz.wasm" --install collatz --all
    for name in ned oma; do
        [ "$(in_host pat timeout 60 "$program" call collatz steps 27 --json --node "$name" --runtime-dir "$work/pat" 2>"$work/call.log" |
            grep -o '"steps":111')" ] || fail "collatz does not run on $name: $(cat "$work/call.log")"
    done
    ok "ned and oma host what pat has installed on all that take code"
    stop_all
    ip link del dock
}

cut_lan() {
    echo "== a map whose own cable is pulled"
    make_lan_of wire 10.99.0 will xena
    begin
    start_node will
    start_node xena
    all_see_all "$FIND_LIMIT_MS" will xena
    local items
    mkfifo "$work/items"
    exec {items}<>"$work/items"
    nsenter --net="/run/netns/$(netns_of will)" -- \
        "$program" map node echo --node xena --at-most-once --runtime-dir "$work/will" \
        <"$work/items" >"$work/outcomes" 2>"$work/map.log" {items}>&- &
    process_of[map]=$!
    echo 7001 >&"$items"
    wait_until "$CALL_LIMIT_MS" "xena answers the first item" grep -qsF 7001 "$work/outcomes"
    ok "xena answers the first item of will's map"

    begin
    ip link set wire-will down
    wait_until "$LOSS_LIMIT_MS" "will reports xena lost" last_event_is will left xena
    echo 7002 >&"$items"
    ! in_host will timeout "$((CALL_LIMIT_MS / 1000))" \
        "$program" call node echo 1 --node xena --runtime-dir "$work/will" &>"$work/call.log" ||
        fail "xena answers without a cable"
    ! grep -qF 7002 "$work/outcomes" || fail "an item has an outcome without a cable: $(cat "$work/outcomes")"
    ok "while will's cable is pulled the second item waits"

    begin
    ip link set wire-will up
    wait_until "$HEAL_LIMIT_MS" "xena answers the second item" grep -qsF 7002 "$work/outcomes"
    exec {items}>&-
    wait_until "$STOP_LIMIT_MS" "the map stops" has_ended "${process_of[map]}"
    wait "${process_of[map]}" || fail "the map ended with exit code $?: $(cat "$work/outcomes")"
    unset 'process_of[map]'
    ok "the cable is back: the second item is done, and the map well"
    stop_all
    ip link del wire
}

has_link_address() {
    ip -n "$(netns_of "$1")" -6 addr show dev eth0 scope link -tentative | grep -q fe80
}

# check_code CODE ANSWER HOST ARGUMENT...: what \`multinodes run\` comes to there.
check_code() {
    local wanted=$1 answer=$2 host=$3 code=0 said
    shift 3
    said=$(in_host "$host" timeout 60 "$program" run "$@" --timeout 50s --runtime-dir "$work/$host" 2>"$work/run.log") || code=$?
    [ "$code" = "$wanted" ] || fail "\`run $*\` on $host ended with $code, not $wanted: $(cat "$work/run.log")"
    [ -z "$answer" ] || [ "$said" = "$answer" ] || fail "\`run $*\` on $host gave \`$said\`, not \`$answer\`"
}

# check_doctor HOST CODE REMEDY [ARGUMENT...]: what \`doctor\` ends with there, and a part of one of its remedies.
check_doctor() {
    local host=$1 wanted=$2 remedy=$3 code=0
    shift 3
    in_host "$host" timeout 60 "$program" doctor --json --runtime-dir "$work/$host" "$@" >"$work/doctor.log" || code=$?
    [ "$code" = "$wanted" ] || fail "\`doctor\` on $host ended with $code, not $wanted"
    [ -z "$remedy" ] || grep -E '"remedy":"[^"]*'"$remedy" -q "$work/doctor.log" ||
        fail "\`doctor\` on $host has no remedy with \`$remedy\`"
}

# check_finding CHECK SUBJECT VERDICT: a line of the last \`doctor\`; SUBJECT is a pattern.
check_finding() {
    grep -qE '"check":"'"$1"'","subject":"'"$2"'","verdict":"'"$3"'"' "$work/doctor.log" ||
        fail "\`doctor\` does not say $3 of $1 $2"
}

# port_of NAME: where the node of that name listens in its LAN.
port_of() {
    grep -oE '/ip4/10\.95\.[0-9.]+/tcp/[0-9]+' "$work/$1.events" | head -n 1 | grep -oE '[0-9]+$'
}

# check_sees READER "NAME...": exactly these have joined, as READER tells it.
check_sees() {
    local seen
    seen=$(grep -sF '"event":"joined"' "$work/$1.events" | grep -oE '"name":"[a-z]+"' | sort -u | cut -d '"' -f 4 | xargs) || true
    [ "$seen" = "$2" ] || fail "$1 has seen \`$seen\`, not \`$2\`"
}

# check_nodes HOST "NAME..." [ARGUMENT...]: what the command \`nodes\` lists there.
check_nodes() {
    local host=$1 wanted=$2 seen
    shift 2
    seen=$(in_host "$host" "$program" nodes --json --runtime-dir "$work/$host" "$@" 2>"$work/nodes.log" |
        grep -oE '"name":"[a-z]+"' | cut -d '"' -f 4 | sort | xargs) || true
    [ "$seen" = "$wanted" ] || fail "\`nodes\` on $host lists \`$seen\`, not \`$wanted\`: $(cat "$work/nodes.log")"
}

# make_lan_of LAN NETWORK HOST...: a LAN, and hosts on it with the addresses NETWORK.1, NETWORK.2 and so on.
make_lan_of() {
    local lan=$1 network=$2 host number=0
    shift 2
    make_lan "$lan"
    for host in "$@"; do
        number=$((number + 1))
        make_host "$host"
        plug "$host" eth0 "$lan" "$network.$number/24"
    done
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

# check_call FROM TO [ARGUMENT...]: the command, on one host, calls the node on another.
check_call() {
    local from=$1 to=$2 answer
    shift 2
    begin
    answer=$(in_host "$from" timeout "$((CALL_LIMIT_MS / 1000))" \
        "$program" call node echo '"hi"' --node "$to" --runtime-dir "$work/$from" "$@" 2>"$work/call.log") ||
        fail "\`multinodes call node echo\` on $from to $to ended with $?: $(cat "$work/call.log")"
    [ "$answer" = '"hi"' ] || fail "$to answered $answer to $from, not \"hi\""
    ok "$from calls $to"
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
    "") main one_lan two_lans private_lan busy_lan link_lan doctor_lan code_lan cut_lan ;;
    one_lan | two_lans | private_lan | busy_lan | link_lan | doctor_lan | code_lan | cut_lan) main "$1" ;;
    *) fail "no part is named \`$*\`: one_lan, two_lans, private_lan, busy_lan, link_lan, doctor_lan, code_lan, cut_lan" ;;
esac
