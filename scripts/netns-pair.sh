#!/usr/bin/env bash
# Runs a command in a network namespace that is linked to a second one by a virtual cable.
#
#   scripts/netns-pair.sh COMMAND [ARGUMENT...]
#
# The command finds in MULTINODES_OTHER_NAMESPACE the words to put before another command so that it runs at the
# other end. Only multicast or an address can make two programs find each other across. Needs root, or the right to
# make user namespaces; everything is gone when the command has ended. Exit code 69: namespaces cannot be made here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib/netns.sh
source "$here/lib/netns.sh"

[ $# -gt 0 ] || { sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
enter_own_namespaces "$@"

make_host one
make_host two
ip link add name eth0 netns "$(netns_of one)" type veth peer name eth0 netns "$(netns_of two)"
set_address one eth0 10.77.0.1/24
set_address two eth0 10.77.0.2/24

export MULTINODES_OTHER_NAMESPACE="nsenter --net=/run/netns/$(netns_of two) --"
status=0
in_host one "$@" || status=$?
exit "$status"
