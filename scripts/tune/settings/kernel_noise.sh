# Setting kernel_noise: what the kernel does on every core every so often. For latency only.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_kernel_noise="the kernel's own timers come seldom (latency)"

want_kernel_noise() {
    if [ "$profile" = throughput ]; then
        fine /proc/sys/kernel/nmi_watchdog "not looked at for throughput"
        return
    fi
    # An interrupt per core and some seconds, by a counter that profilers want as well.
    want word /proc/sys/kernel/nmi_watchdog 0
    # Folding of memory statistics: once in ten seconds instead of every one.
    want least /proc/sys/vm/stat_interval 10
    # Timers of sleeping tasks move to busy cores, which are the shards'.
    want word /proc/sys/kernel/timer_migration 0
}
