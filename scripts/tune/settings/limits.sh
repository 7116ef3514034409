# Setting limits: of those who start a node from a shell; the systemd unit has its own.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_limits="locked memory and open files of who starts a node by hand"

want_limits() {
    # Of the whole machine: 10,000 connections per shard, segments, and what else runs here.
    want least /proc/sys/fs/file-max 1000000
    want least /proc/sys/fs/nr_open 1048576
    want whole /etc/security/limits.d/90-tramline.conf "# Made by Tramline's scripts/tune; \`tune.sh revert\` removes it. Counts from the next login on.
* soft memlock unlimited
* hard memlock unlimited
* soft nofile 1048576
* hard nofile 1048576
root soft memlock unlimited
root hard memlock unlimited
root soft nofile 1048576
root hard nofile 1048576"
}
