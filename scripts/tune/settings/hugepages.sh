# Setting hugepages: the slabs ask for huge pages; nobody else is to get them unasked.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_hugepages="who asks gets huge pages, without a stall while they are made"

want_hugepages() {
    local at=/sys/kernel/mm/transparent_hugepage
    # `always` gives them to the slabs too; its costs are those of the other programs here.
    want choice "$at/enabled" "madvise|always"
    want choice "$at/defrag" "defer+madvise|madvise"
    # Joining pages in the background locks them for moments.
    [ "$profile" = throughput ] || want word "$at/khugepaged/defrag" 0
}
