# Sourced by tune.sh: what the settings say. A file in settings/ has a sentence, and `want_NAME`, which calls
#
#   want KIND PATH VALUE             PATH is to hold VALUE; several with | between them are as good, and the first one is what is set
#   unknown WHERE REASON             it is not on this machine
#   advise WHERE IS WANTED REASON    it is not as it should be, and somebody has to decide about it
#   fine WHERE IS                    what would have been advised is so already
#
# Kinds: word (a value), choice (the one in brackets), least (a number, or more), least3 (the last of three numbers, or more), mask and list (cores),
# irq (a list that the kernel may refuse), line (the line NAME=VALUE of a settings file; PATH:NAME), whole (a file that is ours alone), coalesce
# (CARD:PARAMETER of ethtool). Not here: changing anything.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154,SC2015 # variables of tune.sh's other parts; what stands behind && cannot fail

want_settings=() want_kinds=() want_paths=() want_values=()
rows=()
# The setting whose `want_NAME` runs.
setting=""

# One row of the table.
row() { rows+=("$1"$'\x1f'"$2"$'\x1f'"$3"$'\x1f'"$4"$'\x1f'"$5"$'\x1f'"${6-}"); }

want() {
    local kind=$1 path=$2 file=$2 why_leaves shown
    [ "$kind" != line ] || file=${path%:*}
    # That is no matter of the machine: the copy is not made well.
    if [ "$kind" != coalesce ] && ! stays "$file"; then
        shown "$kind" "$3"
        row "$setting" failed "$path" - "$shown" "it $why_leaves"
        outcome=1
        return
    fi
    if ! is_there "$kind" "$path"; then
        unknown "$path" "$why_not_there"
        return
    fi
    want_settings+=("$setting") want_kinds+=("$kind") want_paths+=("$path") want_values+=("$3")
}

unknown() { row "$setting" unknown "$1" - - "$2"; }
advise() { row "$setting" advice "$1" "$2" "$3" "$4"; }
fine() { row "$setting" ok "$1" "$2" "$2"; }

is_there() {
    local text
    why_not_there="not there"
    case "$1" in
        whole) why_not_there="there is no folder $(dirname "$2")"; [ -d "$root$(dirname "$2")" ] ;;
        line) [ -f "$root${2%:*}" ] ;;
        coalesce) read_coalesce "${2%:*}" "${2#*:}" ;;
        *)
            [ -e "$root$2" ] || return 1
            why_not_there="cannot be read"
            read_file "$2"
            ;;
    esac
}

collect_wants() {
    for setting in "${settings[@]}"; do
        is_selected "$setting" && "want_$setting"
    done
}

list_settings() {
    local one about
    for one in "${settings[@]}"; do
        about="about_$one"
        printf '%-16s %s\n' "$one" "${!about}"
    done
}

# What PATH holds, in `is`, in the form in which KIND is compared and shown.
look() {
    local text chosen squeezed
    is=""
    case "$1" in
        coalesce) read_coalesce "${2%:*}" "${2#*:}" && is=$coalesce; return ;;
        line) ! stays "${2%:*}" || is=$(sed -n "s/^${2##*:}=//p" "$root${2%:*}" 2>/dev/null | tail -n 1); return ;;
        whole) is=absent; [ ! -f "$root$2" ] || is=other; ! read_file "$2" || [ "$text" != "$3" ] || is=present; return ;;
    esac
    read_file "$2" || return 1
    case "$1" in
        choice) chosen_of "$text"; is=$chosen ;;
        *) squeezed "$text"; is=$squeezed ;;
    esac
}

# Whether `is` is as VALUE wants it.
is_as_wanted() {
    local one last
    case "$1" in
        # Of more than 18 figures (the kernel's "no limit" has 19) it is enough in any case, and the shell could not compare them.
        least | least3) last=${is##* }; [[ "$last" =~ ^[1-9][0-9]{18,}$ ]] || { [[ "$last" =~ ^[0-9]{1,18}$ ]] && [ "$last" -ge "$2" ]; } ;;
        mask) local bare_mask want_bare; bare_mask_of "$2"; want_bare=$bare_mask; bare_mask_of "$is"; [ "$bare_mask" = "$want_bare" ] ;;
        list | irq) local numbers want_numbers; numbers_of "$2"; want_numbers=$numbers; numbers_of "$is" && [ "$numbers" = "$want_numbers" ] ;;
        whole) [ "$is" = present ] ;;
        # Anything may stand in it.
        line) [ "$is" = "$2" ] ;;
        *)
            local -a good
            IFS='|' read -r -a good <<<"$2"
            for one in "${good[@]}"; do
                [ "$is" != "$one" ] || return 0
            done
            return 1
            ;;
    esac
}

# What is written for VALUE, in `new`. Only least3 keeps a part of what is there.
new_of() {
    case "$1" in
        least3) local -a three; read -r -a three <<<"$is"; new="${three[0]:-4096} ${three[1]:-131072} $2" ;;
        line | whole) new=$2 ;;
        *) new=${2%%|*} ;;
    esac
}

# As it is shown: a file of ours not with all its lines.
shown() { case "$1" in whole) shown=present ;; least | least3) shown=">= $2" ;; line) shown=$2 ;; *) shown=${2//|/ or } ;; esac; }

# One parameter of a card in `coalesce`; false, with the reason, where it cannot be had.
read_coalesce() {
    local told line
    coalesce="" why_not_there="the card does not say"
    if [ -z "$ethtool" ]; then
        [ -z "$root" ] || { why_not_there="a copy of the trees has no card to ask"; return 1; }
        ethtool=$(command -v ethtool) || { ethtool=""; why_not_there="ethtool is not installed"; return 1; }
    fi
    told=$("$ethtool" -c "$1" 2>/dev/null) || return 1
    case "$2" in
        adaptive-rx) line=$(sed -n 's/^Adaptive RX: *\([a-z/]*\).*/\1/p' <<<"$told") ;;
        adaptive-tx) line=$(sed -n 's/^Adaptive RX:.*TX: *\([a-z/]*\).*/\1/p' <<<"$told") ;;
        *) line=$(sed -n "s/^$2: *//p" <<<"$told") ;;
    esac
    line=${line//[[:space:]]/}
    [ -n "$line" ] && [ "$line" != n/a ] && coalesce=$line
}
