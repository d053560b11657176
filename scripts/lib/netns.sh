# Hosts on one machine: network namespaces, for the scripts beside this folder. To be sourced.
#
# Everything is made inside a network, mount and process namespace of the script's own: nothing can collide with the
# machine's own network, and the kernel takes all of it away, processes included, when the script ends in any way.

readonly NETNS_UNAVAILABLE=69

# A name part that no other run has, for the namespaces.
NETNS_PREFIX="mn$$"

# Starts the script again inside namespaces of its own. Exits with NETNS_UNAVAILABLE where the kernel does not allow it.
enter_own_namespaces() {
    if [ "${MULTINODES_INSIDE:-}" = yes ]; then
        # A fresh /run for the names of namespaces, on which `ip netns` insists.
        mount -t tmpfs tmpfs /run
        ip link set lo up
        unset MULTINODES_INSIDE
        return
    fi
    local flags=(--net --mount --pid --mount-proc --fork --kill-child)
    [ "$(id -u)" = 0 ] || flags=(--user --map-root-user "${flags[@]}")
    if ! command -v ip >/dev/null || ! unshare "${flags[@]}" mount -t tmpfs tmpfs /run 2>/dev/null; then
        echo "network namespaces cannot be made here: run as root with CAP_NET_ADMIN, with iproute2 installed" >&2
        exit "$NETNS_UNAVAILABLE"
    fi
    local inside status=0
    MULTINODES_INSIDE=yes unshare "${flags[@]}" bash "$0" "$@" <&0 &
    inside=$!
    # Not `exec`: unshare itself ignores both signals. When it is killed, so is everything inside.
    trap "kill -KILL $inside; exit 130" INT
    trap "kill -KILL $inside; exit 143" TERM HUP
    wait "$inside" || status=$?
    exit "$status"
}

netns_of() {
    echo "$NETNS_PREFIX-$1"
}

# make_host HOST: a namespace with a loopback interface, as every host has one.
make_host() {
    ip netns add "$(netns_of "$1")"
    ip -n "$(netns_of "$1")" link set lo up
}

# make_lan LAN: a bridge, which is a switch.
make_lan() {
    ip link add name "$1" type bridge
    ip link set "$1" up
}

# plug HOST INTERFACE LAN ADDRESS/BITS: a cable from the host's interface to the switch. Without an address it has the one of
# its link alone, which each has by itself.
plug() {
    local port="$3-$1"
    ip link add name "$port" type veth peer name "$2" netns "$(netns_of "$1")"
    ip link set "$port" master "$3" up
    set_address "$1" "$2" "$4"
}

# set_address HOST INTERFACE ADDRESS/BITS
set_address() {
    [ -z "$3" ] || ip -n "$(netns_of "$1")" addr add "$3" dev "$2"
    ip -n "$(netns_of "$1")" link set "$2" up
}

# in_host HOST COMMAND...: runs a command there; it keeps this shell's process id table.
in_host() {
    local host=$1
    shift
    nsenter --net="/run/netns/$(netns_of "$host")" -- "$@"
}
