# Sourced by cluster.sh: the cluster as a whole comes, goes, and is told about.
# shellcheck shell=bash
# shellcheck disable=SC2015 # `A && B || fail`: it does not come back
# shellcheck disable=SC2154 # `dir` and `here` are cluster.sh's

up() {
    local binary="" rack=no apart=no
    nodes=3
    disk_bytes=2147483648
    while [ $# -gt 0 ]; do
        case "$1" in
            --nodes | --binary | --disk)
                [ $# -ge 2 ] || usage "$1 needs a value"
                case "$1" in
                    --nodes) nodes="$2" ;;
                    --binary) binary="$2" ;;
                    --disk) disk_bytes="$2" ;;
                esac
                shift
                ;;
            --rack-each) rack=yes ;;
            --apart) apart=yes ;;
            --) shift; break ;;
            *) usage "up does not know '$1'; flags of the broker come behind --" ;;
        esac
        shift
    done
    [ "$nodes" = 3 ] || [ "$nodes" = 5 ] || usage "'$nodes' nodes: there can be 3 or 5"
    # Below, the broker's own reserve leaves nothing to write to.
    [[ "$disk_bytes" =~ ^[1-9][0-9]{0,13}$ ]] && [ "$disk_bytes" -ge 268435456 ] || usage "'$disk_bytes' is no size of a disk: bytes, at least 268435456"
    need_root
    need_programs
    [ -n "$binary" ] || binary=$(default_binary)
    [ -x "$binary" ] || usage "'$binary' is no program"
    binary="$(cd "$(dirname "$binary")" && pwd)/$(basename "$binary")"

    if [ -z "$dir" ]; then dir=$(mktemp -d --tmpdir tramline-cluster-XXXXXXXX); else mkdir -p "$dir"; fi
    dir=$(cd "$dir" && pwd)
    # Before anything is made: whatever happens next, `down` knows where to look. Names of the machine (namespaces, groups) come from it.
    [ -z "$(ls -A "$dir")" ] || fail "$dir is not empty: take another directory, or  $0 --dir $dir down  if a cluster is in it"
    id="tl$(od -An -N4 -tx1 /dev/urandom | tr -d ' \n')"
    say "$id" >"$dir/id"
    locked
    say "dir=$dir"
    trap 'complain "it is not whole; remove it with:  $0 --dir $dir down"' EXIT
    say "$nodes" >"$dir/nodes"
    say "$binary" >"$dir/binary"
    printf '%s\n' "$@" | sed '/^$/d' >"$dir/flags"
    [ "$rack" = no ] || : >"$dir/rack"
    [ "$apart" = no ] || : >"$dir/apart"
    mkdir "$dir/faults"

    local number
    net_up
    for number in $(seq "$nodes"); do
        disk_up "$number"
    done
    # The others join the first one.
    node_start 1
    for number in $(seq 2 "$nodes"); do launch "$number"; done
    for number in $(seq 2 "$nodes"); do await_ready "$number"; done
    trap - EXIT
    status
}

# Goes by what is there, not by what should be: `up` may have ended anywhere.
down() {
    [ -n "$dir" ] || usage "which cluster? Give --dir DIR (what 'up' printed), or set TRAMLINE_CLUSTER_DIR"
    need_root
    [ -f "$dir/id" ] || { say "there is no cluster in $dir: nothing to do"; return; }
    [ -s "$dir/nodes" ] || say 5 >"$dir/nodes"
    opened
    local number file
    for number in $(seq "$nodes"); do
        kill_process "$dir/$number/pid"
        group_end "$number"
    done
    for file in "$dir"/faults/proxy-*; do
        [ -d "$file" ] || continue
        kill_process "$file/pid"
    done
    net_down
    for number in $(seq "$nodes"); do
        disk_down "$number"
        rm -rf "${dir:?}/$number"
    done
    rm -rf "$dir/faults" "$dir"/{nodes,binary,flags,rack,apart,lock}
    # Last: until here a second `down` finds its way.
    rm -f "$dir/id"
    # Somebody may have put something beside it.
    rmdir "$dir" 2>/dev/null || true
}

status() {
    local number state pid words
    for number in $(seq "$nodes"); do
        state=$(node_state "$number")
        pid=none
        [ "$state" = dead ] || read -r pid _ <"$dir/$number/pid"
        words="node=$number state=$state pid=$pid client=$(address "$number"):7410 admin=$(address "$number"):7401"
        words+=" disk=$(disk_state "$number") cut_from=$(senders cut "$number") lossy_from=$(senders lossy "$number")"
        say "$words delayed_from=$(senders delay "$number") dropped=$(dropped "$number")"
    done
}

disk_state() {
    local words=""
    [ ! -e "$dir/$1/slow" ] || words="slow:$(<"$dir/$1/slow")"
    [ ! -e "$dir/$1/full" ] || words+="${words:+,}full"
    say "${words:-normal}"
}

# From whom a place receives with that fault, with commas, and how much of it.
senders() {
    local sender rest found=""
    while read -r sender rest; do
        found+="${found:+,}$sender${rest:+:$rest}"
    done < <(faults_at "$1" "$2")
    say "${found:-none}"
}
