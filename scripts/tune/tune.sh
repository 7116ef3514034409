#!/usr/bin/env bash
# Brings a host into the state in which Tramline's numbers hold, and back. docs/TUNING.md says what each setting buys and what it costs.
#
#   scripts/tune/tune.sh check|apply|revert|list [options]
#
#   check     says of each setting whether it is as the profile wants it; changes nothing
#   apply     changes what is not, after keeping what was there; a second one changes nothing. Settings of the kernel are gone with a restart
#             of the machine: scripts/systemd/tramline-tune.service applies them at each one
#   revert    puts back what apply found, also after several of them
#   list      the settings by name, with what they are for
#
#   --profile latency|throughput   default latency: shards' cores are kept free of all other work, and nothing sleeps deeply
#   --cores LIST                   cores of the shards, as for `tramline serve --cpus`; default: all but the last one
#   --disk DIR                     the data directory, by which the disk is found; default /var/lib/tramline
#   --nic NAME[,NAME]              network cards; default: all that are devices
#   --only NAME[,NAME]             these settings alone
#   --dry-run                      apply and revert print the commands and change nothing
#   --root DIR                     works on a copy of the trees /sys, /proc, /etc and /var below DIR
#   --ethtool PROGRAM              the program that reads and sets how network cards gather interrupts; default: ethtool, not used with --root
#
# States: ok; differs (apply would change it); changed; back; advice (yours to decide: this script does not touch it); kept (the kernel does not let
# it be changed); unknown (not on this machine, with the reason); failed.
# Exit codes: 0 all as wanted, 1 something differs (check) or could not be changed, 2 wrong usage, 3 not root.
# shellcheck disable=SC2154 # variables of the parts
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for part in base lists devices wants store verbs table; do
    # shellcheck source=/dev/null
    . "$here/lib/$part.sh"
done

# In the order in which they are shown and applied.
settings=(io_uring limits governor cstates clocksource smt boot workqueue irq_default irq_disk irq_net irqbalance
    disk_queue hugepages swappiness numa_balancing kernel_noise net_core tcp nic_coalescing nic_queues)
for one in "${settings[@]}"; do
    # shellcheck source=/dev/null
    . "$here/settings/$one.sh"
done

read_options "$@"
case "$verb" in
    list) list_settings; exit 0 ;;
    check) find_machine; collect_wants; verb_check ;;
    apply) needs_root; find_machine; collect_wants; open_store; verb_apply ;;
    revert) needs_root; open_store; verb_revert ;;
esac
show_rows
exit "$outcome"
