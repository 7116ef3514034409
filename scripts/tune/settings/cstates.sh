# Setting cstates: how deeply an idle core may sleep, by how long it takes to wake.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_cstates="idle cores do not sleep so deeply that waking them costs"

# latency: 10 us leaves the shallow states (C1, C1E). throughput: 100 us takes only the deepest ones away (C6 of servers takes 130 to 170 us).
want_cstates() {
    local n at text limit_us=10 found=no
    [ "$profile" = latency ] || limit_us=100
    for n in $online; do
        for at in "$root/sys/devices/system/cpu/cpu$n/cpuidle"/state*; do
            if [ ! -e "$at/latency" ] || [ ! -e "$at/disable" ]; then continue; fi
            found=yes
            at=${at#"$root"}
            if ! read_file "$at/latency" || [[ ! "$text" =~ ^[0-9]{1,9}$ ]]; then
                unknown "$at/latency" "'$text' is no number of microseconds"
            elif [ "$text" -gt "$limit_us" ]; then
                want word "$at/disable" 1
            fi
        done
    done
    if [ "$found" = no ]; then
        unknown /sys/devices/system/cpu/cpu0/cpuidle "the kernel lists no idle states: a virtual machine, or idle=poll"
    elif [[ " ${want_settings[*]-} " != *" cstates "* ]]; then
        fine "/sys/devices/system/cpu/cpu*/cpuidle" "none above $limit_us us"
    fi
}
