# Setting smt: report only. Two threads of one physical core share its units.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_smt="no shard shares its physical core (report only)"

want_smt() {
    local text n numbers list others_there
    if ! read_file /sys/devices/system/cpu/smt/active; then
        unknown /sys/devices/system/cpu/smt/active "not there"
        return
    fi
    if [ "$text" != 1 ]; then
        fine /sys/devices/system/cpu/smt/active "one thread per core"
        return
    fi
    for n in $shards; do
        if ! read_file "/sys/devices/system/cpu/cpu$n/topology/thread_siblings_list" || ! numbers_of "$text"; then continue; fi
        without "$numbers" "$n"
        others_there=""
        for one in $rest; do
            [[ " $shards " != *" $one "* ]] || others_there=$one
        done
        if [ -n "$others_there" ]; then
            advise "cpu$n" "$text" "one shard per physical core" "shards on core $n and core $others_there share one: each runs at some 60 %; choose --cores of different physical ones"
        fi
    done
    for one in "${rows[@]-}"; do
        [[ "$one" != smt$'\x1f'advice* ]] || return 0
    done
    fine /sys/devices/system/cpu/smt/active "on, no two shards on one core"
}
