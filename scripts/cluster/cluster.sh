#!/usr/bin/env bash
# Three or five nodes on this machine, each in a network namespace and on a disk of its own, and faults for them. Needs root.
#
#   scripts/cluster/cluster.sh [--dir DIR] VERB ..
#
#   up [--nodes 3|5] [--rack-each] [--apart] [--binary FILE] [--disk BYTES] [-- SERVE FLAGS]
#                                builds it and waits until every node is ready; prints its directory, and a line per node.
#                                --apart: each node is a cluster of its own, for what is tried on the network and the disks alone
#   down                         ends the nodes and removes everything; also what a failed `up` left, also twice
#   status                       a line per node
#   kill N                       SIGKILL          term N   SIGTERM, an orderly end
#   stop N                       SIGSTOP          cont N   SIGCONT
#   start N [M ..]               again, on the same directories; none is ready before a majority of all runs
#   cut A B [--one-way]          packets between them vanish; one way: those that A sends to B
#   isolate N                    cuts N off from all other nodes, both ways; clients still reach it
#   lossy A B PERCENT [--one-way]
#                                so many packets of a hundred vanish, as in 5% or 0.5%; 0% ends it
#   delay A B TIME [--jitter TIME] [--one-way]
#                                TCP between them takes so long in each direction, as in 2ms; one way: what A sends. For new connections.
#   heal                         ends all cuts, losses and delays
#   slow-disk N [BYTES/S or FACTORx]
#                                reads and writes at most so fast (default 1000000), or so many times slower than the disk was just measured
#   normal-disk N                ends that
#   fill-disk N                  takes all free space of the node's disk
#   free-disk N                  gives it back
#   exec N CMD ..                runs a command in the namespace of a node
#   logs N [-f]                  what the node wrote to its standard error
#
# N, A, B are numbers of nodes; for cut, lossy and exec also `client`, the place of clients, which reaches every node. Node N has the address
# 10.7.0.N, with clients' port 7410, port 7401 for metrics and port 7700 for other nodes; clients have 10.7.0.254.
# --dir: where the cluster keeps its disks, logs and process ids. `up` makes a temporary one and prints it; the other verbs need it, or
# TRAMLINE_CLUSTER_DIR in the environment.
# Exit codes: 0 done, 1 failed, 2 wrong usage, 3 cannot be had on this machine (not root, a program or a controller is missing).
# shellcheck disable=SC2015 # `usage` does not come back
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/cluster/lib/base.sh
. "$here/lib/base.sh"
# shellcheck source=scripts/cluster/lib/net.sh
. "$here/lib/net.sh"
# shellcheck source=scripts/cluster/lib/disk.sh
. "$here/lib/disk.sh"
# shellcheck source=scripts/cluster/lib/node.sh
. "$here/lib/node.sh"
# shellcheck source=scripts/cluster/lib/whole.sh
. "$here/lib/whole.sh"

dir="${TRAMLINE_CLUSTER_DIR:-}"
while [ $# -gt 0 ]; do
    case "$1" in
        --dir)
            [ $# -ge 2 ] && [ -n "$2" ] || usage "--dir needs a directory"
            dir="$2"
            shift 2
            ;;
        -h | --help) sed -n '2,/^# Exit codes/s/^# \{0,1\}//p' "$0"; exit 0 ;;
        -*) usage "unknown argument '$1'" ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] || usage "no verb"
verb="$1"
shift

case "$verb" in
    up) up "$@" ;;
    down) no_more "$@"; down ;;
    status) no_more "$@"; opened; status ;;
    start)
        # Those of one cluster together: none is ready before a majority runs.
        opened
        [ $# -gt 0 ] || usage "start needs the number of a node, or of several"
        for one in "$@"; do node start "$one"; done
        for one in "$@"; do launch "$one"; done
        for one in "$@"; do await_ready "$one"; done
        ;;
    kill | term | stop | cont)
        opened
        node "$verb" "${1:-}"
        no_more "${@:2}"
        "node_$verb" "$1"
        ;;
    cut | lossy | delay) opened; "fault_$verb" "$@" ;;
    isolate) opened; node isolate "${1:-}"; no_more "${@:2}"; fault_isolate "$1" ;;
    heal) no_more "$@"; opened; fault_heal ;;
    slow-disk) opened; node slow-disk "${1:-}"; no_more "${@:3}"; disk_slow "$1" "${2:-1000000}" ;;
    normal-disk | fill-disk | free-disk)
        opened
        node "$verb" "${1:-}"
        no_more "${@:2}"
        "disk_${verb%-disk}" "$1"
        ;;
    exec)
        opened
        place exec "${1:-}"
        [ $# -ge 2 ] || usage "exec needs a command, as in: exec client tramctl --server 10.7.0.1:7410 topic list"
        unlocked
        exec nsenter --net="$(netns_file "$1")" "${@:2}"
        ;;
    logs)
        opened
        node logs "${1:-}"
        unlocked
        case "${2:-}" in
            "") exec cat "$dir/$1/log" ;;
            -f) no_more "${@:3}"; exec tail -n +1 -f "$dir/$1/log" ;;
            *) usage "logs takes a node, and -f to go on" ;;
        esac
        ;;
    *) usage "unknown verb '$verb'" ;;
esac
