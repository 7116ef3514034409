# Sourced by tune.sh: check, apply, revert. Each looks at one path at a time: what it holds, what it should, and what came of it in one row.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154,SC2015 # variables of tune.sh's other parts; what stands behind && cannot fail

verb_check() {
    local i kind path value is shown
    for i in "${!want_paths[@]}"; do
        setting=${want_settings[i]} kind=${want_kinds[i]} path=${want_paths[i]} value=${want_values[i]}
        look "$kind" "$path" "$value"
        shown "$kind" "$value"
        if is_as_wanted "$kind" "$value"; then
            row "$setting" ok "$path" "$is" "$shown"
        elif is_refused "$path"; then
            row "$setting" kept "$path" "$is" "$shown" "$why_refused"
        else
            row "$setting" differs "$path" "$is" "$shown"
            outcome=1
        fi
    done
}

why_refused="the kernel does not let it be moved"

verb_apply() {
    # What an apply before this one wanted and this one does not: another profile, other cores, another disk.
    local entry part entries
    for part in "${parts[@]}"; do
        entries_in "$part"
        for entry in "${entries[@]}"; do
            is_still_wanted "$entry" || put_back "$entry"
        done
    done
    local i changed=""
    for i in "${!want_paths[@]}"; do
        apply_one "${want_settings[i]}" "${want_kinds[i]}" "${want_paths[i]}" "${want_values[i]}"
    done
    finish_changed
}

# Of a setting that is not looked at, everything is.
is_still_wanted() {
    local i path
    is_selected "$(cat "$1/setting" 2>/dev/null)" || return 0
    path_of "$1"
    for i in "${!want_paths[@]}"; do
        case "${want_kinds[i]}" in
            line) [ "${want_paths[i]%:*}" != "$path" ] || return 0 ;;
            *) [ "${want_paths[i]}" != "$path" ] || return 0 ;;
        esac
    done
    return 1
}

apply_one() {
    local setting=$1 kind=$2 path=$3 value=$4 is shown new
    look "$kind" "$path" "$value"
    shown "$kind" "$value"
    if is_as_wanted "$kind" "$value"; then
        row "$setting" ok "$path" "$is" "$shown"
        return
    fi
    new_of "$kind" "$value"
    local before=$is entry was_kept=no
    entry_of "$kind" "$path"
    if [ -d "$entry" ]; then
        was_kept=yes
        if ! is_whole "$entry"; then
            fail_one "$before" "$why_damaged ${entry#"$root"}"
            return
        fi
        if [ "$kind" = whole ] && ! is_ours "$entry" "$root$path"; then
            fail_one "$before" "it was changed since: it is left as it is. Remove it, and apply makes it anew"
            return
        fi
    fi
    if [ "$dry_run" = yes ]; then
        command_of "$kind" "$path" "$new"
        row "$setting" differs "$path" "$is" "$shown"
        changed+=" $setting"
        return
    fi
    if ! keep_before "$setting" "$kind" "$path"; then
        fail_one "$before" "what is there could not be kept in $store: nothing was changed"
        return
    fi
    if put "$kind" "$path" "$new" && look "$kind" "$path" "$value" && is_as_wanted "$kind" "$value"; then
        case "$kind" in
            irq) no_more_refused "$path" ;;
            line) note_wrote "$path" "$new" alone ;;
        esac
        row "$setting" changed "$path" "$before" "$is"
        changed+=" $setting"
        return
    fi
    look "$kind" "$path" "$value"
    # Nothing was changed, so there is nothing to give back; what an earlier apply has kept is still to be.
    [ "$was_kept" = yes ] || [ "$is" != "$before" ] || forget "$entry"
    if [ "$kind" = irq ]; then
        keep_refused "$path"
        row "$setting" kept "$path" "$before" "$shown" "$why_refused"
    else
        fail_one "$is" "writing it was refused${why_not_put:+: $why_not_put}"
    fi
}

# With the names of apply_one.
fail_one() {
    row "$setting" failed "$path" "$1" "$shown" "$2"
    outcome=1
}

# Writes one value. In a copy of the trees no kernel answers, so the copy gets what a kernel would show.
put() {
    local kind=$1 path=$2 new=$3 text
    why_not_put=""
    case "$kind" in
        coalesce) why_not_put=$("$ethtool" -C "${path%:*}" "${path#*:}" "$new" 2>&1) && why_not_put="" ;;
        line) note_wrote "$path" "$new" also && put_file "${path%:*}" with_line "${path##*:}" "$new" ;;
        whole) put_file "$path" printf '%s\n' "$new" ;;
        choice)
            if [ -z "$root" ]; then
                put_value "$path" "$new"
            else
                read_file "$path"
                case " ${text//[\[\]]/ } " in *" $new "*) ;; *) why_not_put="there is no '$new' among '$text'"; return 1 ;; esac
                put_text "$path" "$(sed "s/[][]//g; s/\(^\|[[:space:]]\)$new\([[:space:]]\|$\)/\1[$new]\2/" "$root$path"; printf x)"
            fi
            ;;
        *) put_value "$path" "$new" ;;
    esac
}

put_value() { put_text "$1" "$2"$'\n'x; }

# With an x behind it, which the shell's substitution would else cut the line's end from.
put_text() {
    stays "$1" || { why_not_put="it $why_leaves"; return 1; }
    why_not_put=$({ printf '%s' "${2%x}" >"$root$1"; } 2>&1) && why_not_put="" || { why_not_put=${why_not_put##*: }; return 1; }
}

# A file of the system gets what a command prints, which may read it from its standard input. It changes at once or not at all, and keeps its owner
# and mode; one that is a link stays one.
put_file() {
    local path=$1 real new entry
    shift
    real_of "$path" || { why_not_put="it $why_leaves"; return 1; }
    new="$real.tramline-new"
    entry_of whole "$path"
    why_not_put=$({
        rm -f "$new" &&
            if [ -e "$real" ]; then cp -p "$real" "$new" && "$@" <"$real" >"$new"; else "$@" </dev/null >"$new" && chmod 644 "$new"; fi &&
            { ! is_ours "$entry" "$real" || note_left "$entry" "$new"; } &&
            sync "$new" && mv -f "$new" "$real"
    } 2>&1) && why_not_put="" || { why_not_put=${why_not_put##*: }; rm -f "$new"; return 1; }
}

# A value comes in the environment: what is given with -v loses its backslashes.
with_line() { name=$1 value=$2 awk "$line_program"; }

# shellcheck disable=SC2016 # names of awk
line_program='index($0, ENVIRON["name"] "=") == 1 { if (!done) print ENVIRON["name"] "=" ENVIRON["value"]; done = 1; next }
{ print } END { if (!done) print ENVIRON["name"] "=" ENVIRON["value"] }'

# The command that does the same by hand. The file's first state is kept under a name that revert does not take for its own.
command_of() {
    local quoted path=$2 new real by_hand
    case "$1" in
        coalesce)
            quoted "$3"; new=$quoted
            quoted "$ethtool"
            printf '%s -C %s %s %s\n' "$quoted" "${path%:*}" "${path#*:}" "$new"
            return
            ;;
        line) path=${path%:*} ;;
        whole) ;;
        *)
            quoted "$root$path"; path=$quoted
            quoted "$3"
            printf "printf '%%s\\\\n' %s >%s\n" "$quoted" "$path"
            return
            ;;
    esac
    real_of "$path" || return 0
    quoted "$store/by-hand"; by_hand=$quoted
    quoted "$store/by-hand/${path//\//%}"; path=$quoted
    quoted "$real.tramline-new"; new=$quoted
    quoted "$real"; real=$quoted
    quoted "$3"
    if [ -e "$root${2%:*}" ]; then
        printf 'mkdir -p %s && { [ -e %s ] || cp -p %s %s; } && cp -p %s %s && ' "$by_hand" "$path" "$real" "$path" "$real" "$new"
    else
        printf 'touch %s && chmod 644 %s && ' "$new" "$new"
    fi
    if [ "$1" = line ]; then
        printf "name=%s value=%s awk '%s' <%s >%s" "${2##*:}" "$quoted" "${line_program//$'\n'/ }" "$real" "$new"
    else
        printf "printf '%%s\\\\n' %s >%s" "$quoted" "$new"
    fi
    printf ' && mv -f %s %s\n' "$new" "$real"
}

verb_revert() {
    local entry part entries changed="" found=no
    for part in "${parts[@]}"; do
        entries_in "$part"
        for entry in "${entries[@]}"; do
            # One that does not say whose it is, is everybody's.
            [ ! -s "$entry/setting" ] || is_selected "$(cat "$entry/setting")" || continue
            found=yes
            put_back "$entry"
        done
    done
    [ "$dry_run" = yes ] || [ -n "$only" ] || rm -rf "${store:?}/boot/refused"
    [ "$found" = yes ] || printf 'nothing to revert: no value is kept in %s\n' "$store"
    finish_changed
}

# Puts back what was kept in one folder.
put_back() {
    local entry=$1 setting kind path before text is now shown="as before" why_leaves
    if ! is_whole "$entry"; then
        path_of "$entry"
        setting=$(cat "$entry/setting" 2>/dev/null)
        [[ " ${settings[*]} " == *" $setting "* ]] || setting=-
        fail_one - "$why_damaged ${entry#"$root"}"
        return
    fi
    setting=$(cat "$entry/setting") kind=$(cat "$entry/kind") path=$(cat "$entry/path")
    if [ "$kind" != coalesce ] && ! stays "$path"; then
        fail_one - "it $why_leaves"
        return
    fi
    case "$kind" in line | whole) put_file_back; return ;; esac
    before=$(cat "$entry/before"; printf x)
    squeezed "${before%x}"
    local old=$squeezed
    [ "$kind" != choice ] || { chosen_of "${before%x}"; old=$chosen; }
    if [ "$kind" != coalesce ] && [ ! -e "$root$path" ]; then
        row "$setting" unknown "$path" - "$old" "not there any more"
        [ "$dry_run" = yes ] || forget "$entry"
        return
    fi
    look "$kind" "$path"
    now=$is
    if [ "$dry_run" = yes ]; then
        [ "$now" = "$old" ] || command_of "$kind" "$path" "$old"
        row "$setting" differs "$path" "$now" "$old"
        return
    fi
    if [ "$now" != "$old" ]; then
        case "$kind" in
            choice | coalesce) put "$kind" "$path" "$old" ;;
            *) put_text "$path" "$before" ;;
        esac
        look "$kind" "$path"
    fi
    if [ "$is" = "$old" ]; then
        row "$setting" back "$path" "$is" "$old"
        forget "$entry"
    else
        row "$setting" failed "$path" "$is" "$old" "writing it was refused${why_not_put:+: $why_not_put}"
        outcome=1
    fi
    changed+=" $setting"
}

# A file that somebody changed after apply is not ours to overwrite.
put_file_back() {
    local real new
    real_of "$path"
    if ! is_ours "$entry" "$real"; then
        fail_one changed "it was changed since: put it back by hand from ${entry#"$root"}/before, then remove that folder"
        return
    fi
    new="$real.tramline-new"
    if [ "$dry_run" = yes ]; then
        quoted "$entry/before"; before=$quoted
        quoted "$real"; real=$quoted
        quoted "$new"; new=$quoted
        if [ -f "$entry/before" ]; then printf 'cp -p %s %s && mv -f %s %s\n' "$before" "$new" "$new" "$real"; else printf 'rm -f %s\n' "$real"; fi
        row "$setting" differs "$path" changed "as before"
        return
    fi
    # That there was no file is written down: a copy that is missing is no sign of it.
    if why_not_put=$({
        rm -f "$new"
        if [ "$(cat "$entry/was")" = absent ]; then
            rm -f "$real"
        else
            cp -p "$entry/before" "$new" && cmp "$entry/before" "$new" && sync "$new" && mv -f "$new" "$real"
        fi
    } 2>&1); then
        row "$setting" back "$path" "as before" "as before"
        forget "$entry"
        changed+=" $setting"
    else
        rm -f "$new"
        fail_one changed "writing it was refused: ${why_not_put##*: }"
    fi
}

# Some settings are taken in only when a service is told.
finish_changed() {
    case "$changed " in
        *" irqbalance "*)
            if [ "$dry_run" = yes ] && [ -n "$root" ]; then
                printf '# then restart irqbalance, where this copy is the machine\n'
            elif [ "$dry_run" = yes ]; then
                printf 'systemctl try-restart irqbalance\n'
            elif [ -n "$root" ] || ! command -v systemctl >/dev/null || ! systemctl try-restart irqbalance 2>/dev/null; then
                printf 'restart irqbalance, if it runs: it reads its file only then\n'
            fi
            ;;
    esac
}
