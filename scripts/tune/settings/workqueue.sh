# Setting workqueue: the kernel's own jobs that may run anywhere stay off the shards' cores.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_workqueue="the kernel's unbound work runs on cores without shards"

want_workqueue() {
    local at=/sys/devices/virtual/workqueue/cpumask mask
    if [ -z "$spare" ]; then
        unknown "$at" "the shards have all cores"
        return
    fi
    mask_of "$spare"
    want mask "$at" "$mask"
}
