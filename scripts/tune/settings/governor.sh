# Setting governor: cores run at their highest clock.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_governor="cores do not slow down while they wait"

want_governor() {
    local n at text found=no
    for n in $online; do
        at=/sys/devices/system/cpu/cpu$n/cpufreq
        [ -e "$root$at/scaling_governor" ] || continue
        found=yes
        if read_file "$at/scaling_available_governors" && [[ " $text " != *" performance "* ]]; then
            unknown "$at/scaling_governor" "there is no governor 'performance' here (there are: ${text% })"
        else
            want word "$at/scaling_governor" performance
        fi
    done
    [ "$found" = yes ] || unknown /sys/devices/system/cpu/cpu0/cpufreq "no core has one: a virtual machine, or the firmware decides"
}
