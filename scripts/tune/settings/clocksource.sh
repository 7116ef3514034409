# Setting clocksource: reading the clock costs 20 ns with tsc, a microsecond with hpet or acpi_pm, and every cycle of a shard reads it.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_clocksource="the clock is read without asking a device"

want_clocksource() {
    local text at=/sys/devices/system/clocksource/clocksource0
    if ! read_file "$at/current_clocksource"; then
        unknown "$at/current_clocksource" "not there"
        return
    fi
    local current=$text
    case "$current" in
        # Each is read in the process itself. That of a virtual machine knows what its host does with the time.
        tsc | kvm-clock | hyperv_clocksource_tsc_page | arch_sys_counter) want word "$at/current_clocksource" "$current" ;;
        *)
            read_file "$at/available_clocksource"
            case " $text " in
                *" tsc "*) want word "$at/current_clocksource" tsc ;;
                *) advise "$at/current_clocksource" "$current" tsc "the kernel does not offer tsc (it offers: ${text% }); look for 'tsc' in dmesg" ;;
            esac
            ;;
    esac
}
