# Sourced by tune.sh: sets of cores. As a list (`0-3,8`), as numbers in order (`0 1 2 3 8`), as the kernel's mask (`0000010f`).
# shellcheck shell=bash
# shellcheck disable=SC2034 # results are variables of the name of what they are

is_list() { [[ "$1" =~ ^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$ ]]; }

# A list's numbers in order in `numbers`; false where it is none, as with a range that goes down or more figures than the shell can count.
numbers_of() {
    numbers=""
    [ -n "$1" ] || return 0
    is_list "$1" || return 1
    local part first last n
    local -a has=()
    for part in ${1//,/ }; do
        [[ "$part" =~ ^0*[0-9]{1,4}(-0*[0-9]{1,4})?$ ]] || return 1
        first=$((10#${part%-*})) last=$((10#${part#*-}))
        [ "$first" -le "$last" ] && [ "$last" -lt 8192 ] || return 1
        for ((n = first; n <= last; n++)); do has[n]=1; done
    done
    numbers="${!has[*]}"
}

# Numbers in order as a list, as the kernel writes it, in `list`.
list_of() {
    list=""
    local n first="" last=""
    for n in $1 end; do
        if [ -n "$last" ] && [ "$n" = $((last + 1)) ]; then
            last=$n
            continue
        fi
        if [ -n "$first" ]; then
            [ "$first" = "$last" ] && list+=",$first" || list+=",$first-$last"
        fi
        first=$n last=$n
        [ "$n" = end ] && break
    done
    list=${list#,}
}

# Numbers as the kernel's mask of 32 bits a group, in `mask`.
mask_of() {
    local n top=0 group
    local -a groups=(0)
    for n in $1; do
        group=$((n / 32))
        groups[group]=$((${groups[group]:-0} | 1 << (n % 32)))
        [ "$group" -le "$top" ] || top=$group
    done
    mask=""
    for ((n = top; n >= 0; n--)); do
        printf -v group '%08x' "${groups[n]:-0}"
        mask+=",$group"
    done
    mask=${mask#,}
}

# A mask without commas, leading zeros and capitals, for comparing, in `bare_mask`.
bare_mask_of() {
    bare_mask=${1//,/}
    bare_mask=${bare_mask,,}
    while [[ "$bare_mask" == 0?* ]]; do bare_mask=${bare_mask#0}; done
}

# The numbers of $1 that are not among $2, in `rest`.
without() {
    rest=""
    local n
    for n in $1; do
        [[ " $2 " == *" $n "* ]] || rest+=" $n"
    done
    rest=${rest# }
}
