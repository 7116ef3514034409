# Setting irq_disk: a synced write is finished by a worker of the kernel on the core that takes the disk's interrupt; on a shard's core it waits for
# the shard.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_irq_disk="the disk's interrupts go to cores without shards"

want_irq_disk() {
    local one irq
    if [ -z "$disks" ]; then
        unknown /proc/irq "$why_no_disk"
        return
    fi
    if [ -z "$spare" ]; then
        unknown /proc/irq "the shards have all cores"
        return
    fi
    for one in $disks; do
        if ! irqs_of "/sys/block/$one" "$one"; then
            unknown "/sys/block/$one" "$why_no_irqs"
            continue
        fi
        for irq in $irqs; do
            is_quiet_irq "$irq" || want irq "/proc/irq/$irq/smp_affinity_list" "$spare_list"
        done
    done
}
