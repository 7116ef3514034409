# Sourced by cluster.sh: words for failures, arguments, the cluster's directory, and processes by their id.
# shellcheck shell=bash
# shellcheck disable=SC2015 # `A && B || fail`: it does not come back
# shellcheck disable=SC2154 # `dir` and `here` are cluster.sh's

# What `up` wrote into the cluster's directory:
#   id      name of this cluster: prefix of its namespaces and control groups
#   nodes   how many
#   binary, flags, rack, apart what nodes are started with; flags one a line
#   N/      image, data (where it is mounted), pid, out, log, slow, full: what belongs to node N
#   faults/ what holds for packets from A to B: cut-A-B, lossy-A-B (hundredths of a per cent), delay-A-B; and proxy-A-B/, what belongs to the
#           proxy of connections that A opens to B
#   lock    held while a verb works

# How long anything that has to happen by itself may take.
WAIT_S=60

say() { printf '%s\n' "$*"; }
complain() { printf 'cluster.sh: %s\n' "$*" >&2; }
fail() { complain "$*"; exit 1; }
usage() { complain "$* (see --help)"; exit 2; }
cannot() { complain "$*"; exit 3; }

no_more() { [ $# -eq 0 ] || usage "'$1' is one argument too many"; }

need_root() { [ "$(id -u)" -eq 0 ] || cannot "network namespaces, mounts and control groups need root"; }

need_programs() {
    local pair missing=()
    for pair in ip:iproute2 nft:nftables nsenter:util-linux losetup:util-linux mount:util-linux flock:util-linux setsid:util-linux \
        fallocate:util-linux mkfs.ext4:e2fsprogs; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    [ ${#missing[@]} -eq 0 ] || cannot "these packages are missing (Debian's names): $(printf '%s\n' "${missing[@]}" | sort -u | xargs)"
}

# The directory of a cluster that is there; from here on no other verb works on it.
opened() {
    [ -n "$dir" ] || usage "which cluster? Give --dir DIR (what 'up' printed), or set TRAMLINE_CLUSTER_DIR"
    need_root
    [ -f "$dir/id" ] || fail "there is no cluster in $dir"
    dir=$(cd "$dir" && pwd)
    id=$(<"$dir/id")
    [[ "$id" =~ ^tl[0-9a-f]{8}$ ]] || fail "$dir/id does not name a cluster: '$id'"
    nodes=$(<"$dir/nodes")
    locked
}

locked() {
    exec 9>"$dir/lock"
    flock --timeout "$WAIT_S" 9 || fail "another command works on $dir for more than $WAIT_S s"
}

# For what goes on after the verb: a lock that is inherited is held.
unlocked() { exec 9>&-; }

# Checks that an argument is the number of a node.
node() {
    [ -n "$2" ] || usage "$1 needs the number of a node"
    [[ "$2" =~ ^[1-9]$ ]] && [ "$2" -le "$nodes" ] || usage "'$2' is no node: there are nodes 1 to $nodes"
}

# Checks that it is a node, or where clients are.
place() { [ "${2:-}" = client ] || node "$1" "${2:-}"; }

# Tries `what` until it succeeds. Answers 1 when it never did. For what the kernel or another process does in its own time.
eventually() {
    local until=$((SECONDS + WAIT_S))
    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.02
    done
}

# State letter and start time of a process, out of /proc; nothing if there is none. The name, in parentheses, may hold anything.
process() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    # shellcheck disable=SC2086 # fields
    set -- ${stat##*) }
    printf '%s %s' "$1" "${20}"
}

# Writes `process id, start time` of a process: ids are used again, both together are not.
remember_process() {
    local found
    found=$(process "$1")
    printf '%s %s\n' "$1" "${found#* }" >"$2"
}

# The id of the process of a file of `remember_process`, if it lives, and its state letter. One whose first thread has ended (Z) lives as long as it has
# others: they may still write.
living() {
    local pid started found
    [ -f "$1" ] && read -r pid started <"$1" || return 1
    found=$(process "$pid")
    [ -n "$found" ] && [ "${found#* }" = "$started" ] || return 1
    if [ "${found% *}" = Z ] && [ "$(find "/proc/$pid/task" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l)" -le 1 ]; then return 1; fi
    printf '%s %s' "$pid" "${found% *}"
}

is_dead() { ! living "$1" >/dev/null; }

# SIGKILL to the process of such a file, and waits for its end.
kill_process() {
    local found
    if found=$(living "$1"); then
        kill -KILL "${found% *}" 2>/dev/null || true
        eventually is_dead "$1" || fail "process ${found% *} does not end after SIGKILL"
    fi
    rm -f "$1"
}
