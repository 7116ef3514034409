# Setting irq_default: where interrupts go that are set up from now on.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_irq_default="new interrupts go to cores without shards"

want_irq_default() {
    local at=/proc/irq/default_smp_affinity mask
    if [ -z "$spare" ]; then
        unknown "$at" "the shards have all cores"
        return
    fi
    mask_of "$spare"
    want mask "$at" "$mask"
}
