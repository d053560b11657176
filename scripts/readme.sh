#!/usr/bin/env bash
# Runs the commands of the README, and those of the examples, as they stand: block by block, in the order in which they are
# printed, as somebody would who starts nothing else than what is printed.
#
#   scripts/readme.sh [FILE.md...]           # README.md and the guides in examples/ by default
#   MULTINODES_BIN=FILE scripts/readme.sh    # a command with the feature `wasm`; otherwise it is built
#
# A line that runs until Ctrl-C (`start`, `subscribe`, ...) runs beside those after it; it gets its Ctrl-C at the end of its
# block, and must end with 0 as all the others. `# prints X` behind a line says what comes on stdout, up to a semicolon;
# what is said to fail must end with 1.
# Commands of cargo are not run but looked at: they build for minutes. What else is not run is named below, with the reason.
#
# In a network namespace of its own, where this host has the address that the README gives as an example. Exit code 69:
# there are no namespaces here.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib/netns.sh
source "$root/scripts/lib/netns.sh"

# Blocks that are not run, by their first line, and why.
declare -rA not_run=(
    ["rustup target add wasm32-unknown-unknown"]="it fetches a toolchain and packages; build.sh builds guests in Rust"
    ["cargo build --release --target wasm32-unknown-unknown"]="it builds what the block before it has fetched"
    ["npm install componentize-qjs@0.4.5 esbuild@0.28 cborg@6 fast-text-encoding@1"]="it fetches packages of npm"
    ["python3 -m venv guest && . guest/bin/activate"]="it fetches packages of PyPI"
    ["apt-get install clang lld"]="it fetches packages of Debian; build.sh builds guests in C"
    ["npm install assemblyscript@0.28.20"]="it fetches packages of npm"
)

# The README's example of an address, for this host.
readonly example_address=192.168.1.10

# The longest that one line may take, and the longest until one that goes on is ready, in seconds.
readonly limit=120 ready_limit=30

if [ -z "${MULTINODES_BIN:-}" ]; then
    cargo build --release --locked --manifest-path "$root/Cargo.toml" --package multinodes --features wasm
    MULTINODES_BIN=${CARGO_TARGET_DIR:-$root/target}/release/multinodes
fi
MULTINODES_BIN=$(realpath "$MULTINODES_BIN")
export MULTINODES_BIN
enter_own_namespaces "$@"

cd "$root"
if [ $# -gt 0 ]; then files=("$@"); else files=(README.md examples/workers/README.md examples/guests/README.md); fi
work=$(mktemp -d /run/multinodes-readme.XXXXXX)
declare -A seen=()
running=()
outputs=()

main() {
    local file
    prepare
    cargo_commands
    dependency
    verbs_and_flags
    for file in "${files[@]}"; do blocks "$file"; done
    for file in "${!not_run[@]}"; do
        [ $# -gt 0 ] || [ -n "${seen[$file]:-}" ] || fail "no block begins with: $file"
    done
    echo "readme: every command works"
}

# A folder that looks like this one, in which whatever is made goes with the namespace, and the command on the PATH.
prepare() {
    ip addr add "$example_address/32" dev lo
    mkdir "$work/bin" "$work/here" "$work/run"
    mkfifo "$work/never"
    ln -s "$MULTINODES_BIN" "$work/bin/multinodes"
    ln -s "$root/examples" "$work/here/examples"
    unset "${!MULTINODES_@}"
    export PATH=$work/bin:$PATH XDG_RUNTIME_DIR=$work/run NO_COLOR=1
    # A build without optimisation, on a busy machine, compiles guests for longer than the usual 10 s.
    export MULTINODES_TIMEOUT=60s
    # Each line in a process group of its own, as in a terminal: Ctrl-C is for all of it.
    set -m
}

# blocks FILE: each block of shell commands in it.
blocks() {
    local file=$1 line number=0 begun=0 block=
    while IFS= read -r line; do
        number=$((number + 1))
        if [ "$begun" = 0 ]; then
            case $line in '```sh') begun=$number block= ;; esac
        elif [ "$line" = '```' ]; then
            block "$file:$begun" "$block"
            begun=0
        else
            block+=$line$'\n'
        fi
    done <"$root/$file"
}

# block WHERE TEXT
block() {
    local where=$1 text=$2 first=${2%%$'\n'*} missing
    if [ -n "${not_run[$first]:-}" ]; then
        seen[$first]=yes
        echo "not run: $where: ${not_run[$first]}"
        return
    fi
    if missing=$(lacking "$text"); then
        echo "skipped: $where: $missing is not here"
        return
    fi
    echo "== $where"
    # Each block stands on its own: there is nothing from those before it but what is installed.
    find "$work/here" -mindepth 1 ! -name examples -delete
    cd "$work/here"
    SECONDS=0
    lines <<<"$text"
    stop_all
    cd "$root"
    echo "ok: $where ($SECONDS s)"
}

# lacking TEXT: which program that it needs is not there.
lacking() {
    local program
    for program in python3 node jq; do
        if grep -qE "(^|[ \"=])$program " <<<"$1" && ! command -v "$program" >/dev/null; then
            echo "$program"
            return
        fi
    done
    return 1
}

# lines: those on stdin, one after the other; one that ends with a backslash goes on.
lines() {
    local line whole=
    while IFS= read -r line; do
        whole+=$line
        case $line in *\\) whole+=$'\n' && continue ;; esac
        case $whole in
            '' | '#'*) ;;
            'cargo '*) ;;
            'multinodes start '* | 'multinodes events '* | 'multinodes subscribe '* | *' --everywhere '*) go_on "$whole" ;;
            'multinodes publish '*) publish "$whole" ;;
            *) run "$whole" ;;
        esac
        whole=
    done
}

# go_on LINE: begins what runs until Ctrl-C, and waits until it is ready.
go_on() {
    local line=$1 output folder=$XDG_RUNTIME_DIR
    output=$(mktemp "$work/output.XXXXXX")
    # As if it were another machine: nothing but the address leads to the others.
    case $line in *' --join '*) folder=$(mktemp -d "$work/other.XXXXXX") ;; esac
    XDG_RUNTIME_DIR=$folder bash -c "exec $line" >"$output" 2>"$output.errors" </dev/null &
    running+=($!)
    outputs+=("$output")
    case $line in
        *' --join '*) wait_for "$line" "$output" ' joined' ;;
        'multinodes start '*) wait_for "$line" "$output" ' is up in ' ;;
        *' --everywhere '*) wait_for "$line" "$output" ' is installed on ' ;;
        'multinodes subscribe '*) ;; # It says nothing before the first message: `publish` waits for that.
        *) wait_for "$line" "$output" . ;;
    esac
}

# run LINE: it ends by itself, with 0, and prints what is said of it.
run() {
    local line=$1 wanted said status=0
    timeout --foreground "$limit" bash -c "$line" >"$work/said" 2>"$work/errors" </dev/null || status=$?
    case $line in
        *'# fails'*) [ "$status" = 1 ] || fail "exit code $status: $line" && return ;;
    esac
    if [ "$status" != 0 ]; then
        cat "$work/said" "$work/errors" >&2
        fail "exit code $status: $line"
    fi
    wanted=$(sed -n 's/.*# prints \([^;]*\).*/\1/p' <<<"$line" | sed 's/ *$//')
    said=$(cat "$work/said")
    [ -z "$wanted" ] || [ "$said" = "$wanted" ] || fail "it prints $said: $line"
}

# publish LINE: until whoever has subscribed in this block has heard it, since only those hear it who listen by then.
publish() {
    local subscriber=${outputs[-1]}
    SECONDS=0
    until [ -s "$subscriber" ]; do
        [ "$SECONDS" -lt "$ready_limit" ] || fail "nobody has heard: $1"
        run "$1"
        pause
    done
}

# wait_for LINE FILE TEXT
wait_for() {
    SECONDS=0
    until grep -q -- "$3" "$2"; do
        if [ "$SECONDS" -ge "$ready_limit" ] || ! kill -0 "${running[-1]}" 2>/dev/null; then
            cat "$2" "$2.errors" >&2
            fail "it does not say '$3': $1"
        fi
        pause
    done
}

pause() {
    read -rt 0.05 <>"$work/never" || true
}

# Ctrl-C for all that runs, the last one first.
stop_all() {
    local index pid status
    for ((index = ${#running[@]} - 1; index >= 0; index--)); do
        pid=${running[index]} status=0
        kill -INT -- "-$pid"
        wait "$pid" || status=$?
        if [ "$status" != 0 ]; then
            cat "${outputs[index]}" "${outputs[index]}.errors" >&2
            fail "after Ctrl-C it ended with $status"
        fi
    done
    running=() outputs=()
}

# Commands of cargo, wherever they are told of: what they name exists, and what is installed keeps to the lock file.
cargo_commands() {
    local where line words index example features needed
    while IFS=: read -r where line; do
        read -ra words <<<"${line%%#*}"
        example='' features=
        for ((index = 1; index < ${#words[@]}; index++)); do
            case ${words[index - 1]} in
                --example) example=${words[index]} ;;
                --features) features=${words[index]} ;;
                --path) [ -f "${words[index]}/Cargo.toml" ] || fail "$where: no package is in ${words[index]}" ;;
                -p | --package) grep -q "^name = \"${words[index]}\"" ./*/Cargo.toml || fail "$where: no package ${words[index]}" ;;
            esac
        done
        case " ${words[*]} " in
            *' install --locked '* | *' install '*' --locked '*) ;;
            *' install '*) fail "$where: without --locked it builds other versions than those that were tested: $line" ;;
        esac
        if [ -n "$features" ] && ! grep -q "^${features#*/} = \[" node/Cargo.toml scripts/bench/Cargo.toml; then
            fail "$where: no feature $features"
        fi
        [ -n "$example" ] && [ "$example" != NAME ] || continue
        needed=$(sed -n "/^name = \"$example\"\$/,/^\$/p" node/Cargo.toml)
        [ -n "$needed" ] || fail "$where: no example $example"
        needed=$(sed -n 's/^required-features = \["\(.*\)"\]/\1/p' <<<"$needed")
        [ "$needed" = "$features" ] || fail "$where: \`$example\` needs the features '$needed'"
    done < <(git grep -noE "cargo (run|install|doc)( [^\`\"]+|\$)" -- '*.md' '*.rs' '*.sh' '.github' ':!scripts/readme.sh' |
        sed -E 's/^([^:]+):([0-9]+):/\1 line \2:/')
    echo "ok: what commands of cargo name exists"
}

# The lines by which a program depends on the library lead to it, and each feature has its row in the table.
dependency() {
    local folder=$work/program feature
    mkdir -p "$folder/src"
    ln -s "$root" "$work/MultiNodes"
    cp Cargo.lock "$folder"
    echo 'fn main() {}' >"$folder/src/main.rs"
    {
        printf '[workspace]\n[package]\nname = "program"\nversion = "0.0.0"\nedition = "2024"\n'
        sed -n '/^```toml$/,/^```$/p' README.md | grep -v '^```'
    } >"$folder/Cargo.toml"
    (cd "$folder" && cargo tree --offline --depth 1 >"$work/said" 2>&1) || { cat "$work/said" >&2 && fail "README.md: the dependency"; }
    for feature in $(sed -n '/^\[features\]$/,/^$/s/^\([a-z]*\) = .*/\1/p' node/Cargo.toml); do
        # `default` is said of `cli`, and `measure` is for benchmarks.
        case $feature in default | measure) continue ;; esac
        grep -q "^| \`$feature\`" README.md || fail "README.md: no row says what the feature \`$feature\` adds"
    done
    echo "ok: the dependency and the features of the README exist"
}

# Verbs and flags of the command that are told of between the blocks exist.
verbs_and_flags() {
    local flag help verb
    help=$(multinodes --help)
    for verb in $(sed -n '/^Verbs:/,/^$/s/^  \([a-z]*\) .*/\1/p' <<<"$help") "secret new" "code inspect" "code sign" "code ls" "code rm" "code uninstall"; do
        # shellcheck disable=SC2086
        help+=$(multinodes $verb --help)
    done
    for flag in $(grep -v '^cargo \|`cargo \|scripts/bench' README.md | grep -oE -- '--[a-z][a-z-]+' | sort -u); do
        grep -qE -- "$flag([[ =,]|\$)" <<<"$help" || fail "README.md: no verb has the flag $flag"
    done
    for verb in $(grep -oE '`multinodes [a-z]+' README.md | cut -d ' ' -f 2 | sort -u); do
        multinodes "$verb" --help >"$work/said" || fail "README.md: there is no verb \`$verb\`"
    done
    echo "ok: the verbs and flags of the README exist"
}

fail() {
    echo "readme: FAILED: $1" >&2
    exit 1
}

main "$@"
