# Setting boot: report only. What has to stand on the kernel's command line; no boot loader is touched.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_boot="the scheduler, its tick and RCU leave the shards' cores alone (report only: it prints what to add)"

want_boot() {
    local text one name is missing=""
    if ! read_file /proc/cmdline; then
        unknown /proc/cmdline "not there"
        return
    fi
    if [ -z "$others" ]; then
        unknown /proc/cmdline "the shards have all cores: none is left for what would be kept away from them"
        return
    fi
    # Throughput gains nothing by a tick less, and loses a core's share of the kernel's own work.
    if [ "$profile" = throughput ]; then
        fine /proc/cmdline "nothing needed for throughput"
        return
    fi
    for name in isolcpus nohz_full rcu_nocbs; do
        is=""
        for one in $text; do
            [ "${one%%=*}" != "$name" ] || is=${one#*=}
        done
        covers_shards "$is" && continue
        case "$name" in
            isolcpus) missing+=" isolcpus=managed_irq,domain,$shards_list" ;;
            *) missing+=" $name=$shards_list" ;;
        esac
    done
    if [ -z "$missing" ]; then
        fine /proc/cmdline "isolcpus, nohz_full, rcu_nocbs: $shards_list"
    else
        advise /proc/cmdline - "${missing# }" "add to the kernel's command line:${missing}"
    fi
}

# Whether a parameter's cores (flags before them left out) hold all the shards'.
covers_shards() {
    local part list="" numbers
    for part in ${1//,/ }; do
        [[ ! "$part" =~ ^[0-9] ]] || list+=",$part"
    done
    numbers_of "${list#,}" || return 1
    without "$shards" "$numbers"
    [ -z "$rest" ]
}
