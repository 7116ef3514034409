# Sourced by the experiments: reads their arguments into variables. Needs `takes` (the names of options that have a value, and of the variables that get it); what
# stands behind `--` goes to `flags`. Help is the comment at the top of the script. Not here: whether a value is a good one.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # `takes` and `flags` are those of whoever sources it

program=$(basename "$0")
wrong_usage() { printf '%s: %s (see --help)\n' "$program" "$*" >&2; exit 2; }

read_arguments() {
    while [ $# -gt 0 ]; do
        case "$1" in
            -h | --help) awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; exit 0 ;;
            --) flags=("${@:2}"); return ;;
        esac
        [[ "$1" == --?* && " $takes " == *" ${1#--} "* ]] || wrong_usage "unknown argument '$1'"
        [ $# -ge 2 ] || wrong_usage "$1 needs a value"
        declare -g "${1#--}=$2"
        shift 2
    done
}
