#!/usr/bin/env bash
# The gate: everything that has to hold before a change goes in. CI runs exactly this.
#
#   scripts/check.sh
#
# Needs a Rust toolchain with rustfmt and clippy; installs the rest (cargo-deny; clang, lld and iproute2 if it may). Steps that
# this machine does not allow are named at the end as skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The command that the README promises; a step below holds the two together.
readonly tests="cargo test --workspace --all-features"
readonly target=${CARGO_TARGET_DIR:-target}
# Each test links the whole library: what helps only who edits and debugs would fill a small disk.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0} CARGO_PROFILE_DEV_DEBUG=${CARGO_PROFILE_DEV_DEBUG:-0}
# Said by scripts that need what is not here: `unshare` (scripts/lib/netns.sh), or npm.
readonly unavailable=69

passed=()
skipped=()
current="start"

main() {
    step "formatting" cargo fmt --all -- --check
    step "shell scripts parse" bash -n .ci/run examples/guests/build.sh scripts/*.sh scripts/lib/*.sh scripts/bench/*.sh
    step "clippy" cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
    step "the README names the test command" grep -qF "$tests" README.md
    languages
    # Word splitting is meant: it is the README's command line.
    # shellcheck disable=SC2086
    step "tests" $tests
    features
    guests
    documentation
    fuzz_targets
    dependencies
    hosts
    readme
    foreign
    current=
}

# step NAME COMMAND...
step() {
    current=$1
    shift
    echo "== $current: $*"
    "$@"
    passed+=("$current (${SECONDS} s)")
    SECONDS=0
}

# Workers written in other languages are tested, too.
languages() {
    if command -v python3 >/dev/null && command -v node >/dev/null; then
        return
    fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        step "Python and Node.js are there" eval \
            "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 nodejs"
    fi
}

# All else is built with all features.
features() {
    local feature
    for feature in none cli wan cel journal measure wasm; do
        step "the library compiles with: $feature" \
            cargo check --locked -p multinodes --lib --no-default-features --features "${feature/none/}"
    done
    step "the command and the examples compile by default" cargo check --locked -p multinodes --bins --examples
    step "nothing of that builds wasmtime" eval \
        'tree=$(cargo tree --locked -p multinodes --edges normal,build,dev --prefix none) && ! grep wasmtime <<<"$tree"'
    step "the command without the feature wasm" cargo test --locked -p multinodes --test command_without_code
}

# Those in examples/guests are built from their sources where that can be, and run.
guests() {
    local said line
    said=$(mktemp)
    step "guests are built again, and do what they should" eval "examples/guests/build.sh --check | tee '$said'"
    while read -r line; do skipped+=("guests are built again: $line"); done < <(sed -n 's/^skipped: //p' "$said")
    rm "$said"
}

# As the README prints it, but for the browser.
documentation() {
    local pages=$target/doc/multinodes
    step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --workspace --all-features
    step "documentation has what other features than the default ones add" \
        eval "[ -f '$pages/struct.Code.html' ] && grep -q 'id=\"method.run\"' '$pages/struct.Node.html'"
}

fuzz_targets() {
    if ! command -v "${CXX:-c++}" >/dev/null; then
        skipped+=("fuzz targets compile: libFuzzer needs a C++ compiler")
        return
    fi
    step "fuzz targets compile" cargo check --manifest-path scripts/fuzz/Cargo.toml --locked --target-dir "$target"
}

dependencies() {
    if ! cargo deny --version >/dev/null 2>&1; then
        step "cargo-deny is there" cargo install cargo-deny --locked
    fi
    if timeout 120 cargo deny fetch db >/dev/null 2>&1; then
        step "licences, bans, sources, advisories" cargo deny check
    else
        step "licences, bans, sources" cargo deny check licenses bans sources
        skipped+=("advisories: the database cannot be fetched from here")
    fi
}

hosts() {
    local status=0
    if ! command -v ip >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends iproute2; } ||
            echo "iproute2 could not be installed" >&2
    fi
    current="several hosts"
    step "the command builds" cargo build --locked --workspace --all-features --bins
    current="several hosts (scripts/netns-lan.sh)"
    echo "== $current"
    MULTINODES_BIN=$target/debug/multinodes scripts/netns-lan.sh || status=$?
    case $status in
        0) passed+=("$current (${SECONDS} s)") ;;
        "$unavailable") skipped+=("$current: needs root with CAP_NET_ADMIN, or user namespaces, and iproute2") ;;
        *) return "$status" ;;
    esac
    SECONDS=0
}

# With the command that the step before has built.
readme() {
    local status=0 said line
    said=$(mktemp)
    current="the commands of the README (scripts/readme.sh)"
    echo "== $current"
    MULTINODES_BIN=$target/debug/multinodes scripts/readme.sh | tee "$said" || status=$?
    while read -r line; do skipped+=("commands of the README: $line"); done < <(sed -n 's/^skipped: //p' "$said")
    rm "$said"
    case $status in
        0) passed+=("$current (${SECONDS} s)") ;;
        "$unavailable") skipped+=("$current: needs root with CAP_NET_ADMIN, or user namespaces, and iproute2") ;;
        *) return "$status" ;;
    esac
    SECONDS=0
}

# A node of another implementation, where npm can be had.
foreign() {
    local status=0
    current="a peer on js-libp2p (scripts/foreign.sh)"
    echo "== $current"
    MULTINODES_BIN=$target/debug/multinodes scripts/foreign.sh || status=$?
    case $status in
        0) passed+=("$current (${SECONDS} s)") ;;
        "$unavailable") skipped+=("$current: needs npm, and a registry that it reaches") ;;
        *) return "$status" ;;
    esac
    SECONDS=0
}

summary() {
    local status=$? line
    echo
    for line in "${passed[@]}"; do echo "passed: $line"; done
    for line in "${skipped[@]}"; do echo "skipped: $line"; done
    if [ -z "$current" ] && [ "$status" = 0 ]; then
        echo "check: all passed (${#passed[@]} steps, ${#skipped[@]} skipped)"
    else
        echo "check: FAILED at: $current"
        [ "$status" != 0 ] || status=1
    fi
    exit "$status"
}

SECONDS=0
trap summary EXIT
main
