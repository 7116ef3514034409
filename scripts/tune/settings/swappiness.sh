# Setting swappiness: a page of a shard that was swapped out costs as much as a hundred writes.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_swappiness="the kernel swaps only where it must"

# Not 0: that lets it kill processes rather than swap.
want_swappiness() { want word /proc/sys/vm/swappiness "1|0"; }
