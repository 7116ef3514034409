# Sourced by cluster.sh: the broker's processes.
# shellcheck shell=bash
# shellcheck disable=SC2154 # `dir`, `id`, `nodes` and `here` are cluster.sh's

# Where cargo puts binaries: released ones first.
default_binary() {
    local root target file
    root=$(cd "$here/../.." && pwd)
    target="${CARGO_TARGET_DIR:-$root/target}"
    for file in "$target/release/tramline" "$target/debug/tramline"; do
        [ ! -x "$file" ] || { say "$file"; return; }
    done
    fail "there is no binary of the broker in $target: run  cargo build --release -p tramline -p tramctl -p tramline-proxy  or give --binary FILE"
}

# Another of our programs: it lies where the broker's binary does.
beside_broker() {
    local file
    file="$(dirname "$(<"$dir/binary")")/$1"
    [ -x "$file" ] || fail "$file is missing: run  cargo build --release -p $1"
    say "$file"
}

# The flags of a node, one a line. What the broker does not know yet is left out: then every node is a cluster of one.
node_flags() {
    local help number="$1"
    help=$("$(<"$dir/binary")" serve --help)
    knows() { grep -qw -e "$1" <<<"$help"; }
    printf '%s\n' --data-dir "$(data_of "$number")/node" --listen "$(address "$number"):7410" --admin "$(address "$number"):7401"
    if knows --node-id; then printf '%s\n' --node-id "$number"; fi
    if knows --cluster-listen; then printf '%s\n' --cluster-listen "$(address "$number"):7700"; fi
    if knows --join && [ "$number" -gt 1 ] && [ ! -e "$dir/apart" ]; then printf '%s\n' --join "$(address 1):7700"; fi
    if knows --rack && [ -e "$dir/rack" ]; then printf '%s\n' --rack "rack$number"; fi
    # Nodes of one machine would all pin themselves to the same cores.
    if ! grep -qxE -e '--(cpus|unpinned)(=.*)?' "$dir/flags"; then printf '%s\n' --unpinned; fi
    cat "$dir/flags"
}

node_start() {
    launch "$1"
    await_ready "$1"
}

# Starts a node's process: in its namespace and control group, in a session of its own, so that Ctrl-C here does not reach it.
launch() {
    local state="$dir/$1" flags
    is_dead "$state/pid" || fail "node $1 runs already"
    mapfile -t flags < <(node_flags "$1")
    : >"$state/out"
    (
        enter_group "$1"
        exec setsid nsenter --net="$(netns_file "$1")" env --unset=TRAMLINE_CLUSTER_DIR "$(<"$dir/binary")" serve "${flags[@]}"
    ) </dev/null >"$state/out" 2>>"$state/log" 9>&- &
    remember_process $! "$state/pid"
}

await_ready() {
    eventually is_ready_or_dead "$1" || fail "node $1 is not ready after $WAIT_S s; its log:"$'\n'"$(tail -n 20 "$dir/$1/log")"
    grep -q '^ready ' "$dir/$1/out" || fail "node $1 has ended; its log:"$'\n'"$(tail -n 20 "$dir/$1/log")"
}

is_ready_or_dead() { grep -q '^ready ' "$dir/$1/out" || is_dead "$dir/$1/pid"; }

# Sends a signal to a node's process, if it lives.
signal() {
    local found
    found=$(living "$dir/$2/pid") || fail "node $2 does not run"
    kill "-$1" "${found% *}"
}

node_kill() {
    signal KILL "$1"
    eventually is_dead "$dir/$1/pid" || fail "node $1 does not end after SIGKILL"
}

node_term() {
    [ "$(node_state "$1")" != stopped ] || fail "node $1 is stopped and hears no SIGTERM: cont $1 first"
    signal TERM "$1"
    eventually is_dead "$dir/$1/pid" || fail "node $1 does not end $WAIT_S s after SIGTERM"
}

node_stop() {
    signal STOP "$1"
    eventually has_state "$1" stopped || fail "node $1 does not stop"
}

node_cont() {
    signal CONT "$1"
    eventually has_state "$1" running || fail "node $1 does not go on"
}

node_state() {
    local found
    found=$(living "$dir/$1/pid") || { say dead; return; }
    if [ "${found#* }" = T ]; then say stopped; else say running; fi
}

has_state() { [ "$(node_state "$1")" = "$2" ]; }
