#!/usr/bin/env bash
# Builds the guests of this folder again, from their sources.
#
#   examples/guests/build.sh           what can be built replaces what is here
#   examples/guests/build.sh --check   builds into a temporary folder, and tests what came out (node/tests/code_guests.rs)
#
# C needs clang and lld. Rust needs the target wasm32-unknown-unknown (`rustup target add wasm32-unknown-unknown`); without
# it, the sources of the standard library, which Debian has, are built along. As root on Debian, what is missing is fetched.
# What cannot be built is left as it is, and said at the end.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
readonly here root
readonly target=wasm32-unknown-unknown
work=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")/guests
readonly work
# Whatever waits for the network ends after so long, in seconds: what it was for is skipped.
readonly patience=180
readonly c_guests=(image forever memory)
readonly rust_guests=(collatz sum)

built=()
skipped=()
why=
out=$here

main() {
    case ${1:-} in
        "") build ;;
        --check) check ;;
        *) echo "usage: ${BASH_SOURCE[0]} [--check]" >&2 && exit 2 ;;
    esac
}

build() {
    if find_clang; then build_c; else skipped+=("C (${c_guests[*]}): $why"); fi
    if find_standard_library && fetch_crates; then build_rust; else skipped+=("Rust (${rust_guests[*]}): $why"); fi
    for line in "${built[@]}"; do echo "built: $line"; done
    for line in "${skipped[@]}"; do echo "skipped: $line"; done
}

# What could not be built is tested as it lies here.
check() {
    out=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$out'" EXIT
    cp "$here"/*.wasm "$here"/*.wat "$out"
    build
    cd "$root"
    MULTINODES_GUESTS=$out cargo test --locked -p multinodes --all-features --test code_guests
}

find_clang() {
    if ! command -v clang >/dev/null || ! command -v wasm-ld >/dev/null; then
        install_packages clang lld || return 1
    fi
}

build_c() {
    local guest
    for guest in "${c_guests[@]}"; do
        clang --target=wasm32 -std=c11 -Oz -Wall -ffreestanding -nostdlib -Wl,--no-entry -Wl,--strip-all \
            -o "$out/$guest.wasm" "$here/$guest/$guest.c"
        chmod 644 "$out/$guest.wasm"
        built+=("$guest.wasm, $(stat -c %s "$out/$guest.wasm") bytes")
    done
}

# The target as rustup installs it, else the sources of the standard library of exactly this compiler.
find_standard_library() {
    standard_library=()
    if ! command -v cargo >/dev/null; then
        why="cargo is not there" && return 1
    fi
    if [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
        return
    fi
    version=$(rustc --version | cut -d ' ' -f 2)
    sources=$work/rust-src-$version
    if ! [ -d "$sources/library" ]; then
        fetch_sources || return 1
    fi
    standard_library=(-Zbuild-std=std,panic_abort)
}

# From Debian's backports, read through lists of our own: nothing is installed, and no list of the machine is changed.
fetch_sources() {
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    why="$target is not installed (\`rustup target add $target\`)"
    if ! command -v apt-get >/dev/null || ! [ -f "$keyring" ]; then
        why+=", and this is no Debian, which has the sources of the standard library" && return 1
    fi
    local apt=$work/apt found
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
    touch "$apt/state/status"
    echo "deb [signed-by=$keyring] http://deb.debian.org/debian trixie-backports main" >"$apt/sources.list"
    local options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o "Dir::Etc::sourceparts=/dev/null"
        -o "Dir::State=$apt/state" -o "Dir::State::status=$apt/state/status" -o "Dir::Cache=$apt/cache"
        -o "APT::Sandbox::User=$(id -un)")
    if ! timeout "$patience" apt-get "${options[@]}" -q update >&2; then
        why+=", and Debian cannot be reached" && return 1
    fi
    found=$(apt-cache "${options[@]}" madison rust-src | awk -v version="$version" 'index($3, version "+") == 1 { print $3; exit }')
    if [ -z "$found" ]; then
        why+=", and Debian's backports have no rust-src of version $version" && return 1
    fi
    if ! (cd "$apt" && timeout "$patience" apt-get "${options[@]}" -q download "rust-src=$found" >&2 &&
        dpkg -x rust-src_*.deb unpacked); then
        why+=", and rust-src $found cannot be had from Debian" && return 1
    fi
    mkdir -p "$sources"
    mv "$apt/unpacked/usr/src/rustc-$version/library" "$sources"
    rm -rf "$apt"
}

# Before anything is built: a registry that has no folder yet cannot be left out of the paths below.
fetch_crates() {
    (with_sources && timeout "$patience" cargo fetch --locked --target "$target" "${standard_library[@]}") && return
    why="their crates cannot be fetched"
    return 1
}

# Where cargo finds the sources of the standard library, if it has to.
with_sources() {
    cd "$here"
    if [ -n "${sources:-}" ]; then
        # Meant for those who make Rust: there is no other way to build a standard library with a stable compiler.
        export RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT=$sources/library
    fi
}

build_rust() {
    local guest registry flags=()
    # The texts of panics name the files they are from: where those were is no business of the nodes that run it.
    for registry in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
        flags+=("--remap-path-prefix=${registry%/}=crates")
    done
    flags+=("--remap-path-prefix=$here=guests" "--remap-path-prefix=${sources:-$(rustc --print sysroot)}=rust")
    (
        with_sources
        CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${flags[*]}") CARGO_TARGET_DIR=$work \
            cargo build --release --locked --offline --target "$target" "${standard_library[@]}"
    )
    for guest in "${rust_guests[@]}"; do
        install -m 644 "$work/$target/release/$guest.wasm" "$out"
        built+=("$guest.wasm, $(stat -c %s "$out/$guest.wasm") bytes")
    done
}

install_packages() {
    why="$* are not there"
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        why+=", and installing them needs root and apt-get" && return 1
    fi
    if ! { timeout "$patience" apt-get -q update &&
        DEBIAN_FRONTEND=noninteractive timeout "$patience" apt-get -q install -y --no-install-recommends "$@"; } >&2; then
        why+=", and apt-get cannot install them" && return 1
    fi
}

main "$@"
