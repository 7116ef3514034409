#!/usr/bin/env bash
# Builds the C interface (libtramline) and installs it: shared and static library, header, pkg-config files, examples.
#
#   scripts/install_capi.sh [--prefix DIR] [--uninstall]
#
#   --prefix      where to (default /usr/local): DIR/lib, DIR/include, DIR/lib/pkgconfig, DIR/share/doc/tramline
#   --uninstall   remove what an installation with this prefix put there
#
# Honours CARGO_TARGET_DIR, and DESTDIR for packagers: files go below $DESTDIR, what is written in them names the prefix alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/setup.sh

ABI=0 # the number of the soname, as in client/capi/build.rs

prefix=/usr/local
uninstall=no
while [ $# -gt 0 ]; do
    case "$1" in
        --prefix)
            [ $# -ge 2 ] && [ -n "$2" ] || fail "$1 needs a directory (see --help)"
            prefix="$2"
            shift
            ;;
        --uninstall) uninstall=yes ;;
        -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) fail "unknown argument '$1' (see --help)" ;;
    esac
    shift
done
# It is written into the pkg-config files, which are read elsewhere.
case "$prefix" in /*) ;; *) fail "the prefix '$prefix' is not an absolute path" ;; esac
prefix="${prefix%/}"

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
[ -n "$version" ] || fail "Cargo.toml says no version"
root="${DESTDIR:-}$prefix"
lib="$root/lib"
doc="$root/share/doc/tramline"
files=("$lib/libtramline.so.$version" "$lib/libtramline.so.$ABI" "$lib/libtramline.so" "$lib/libtramline.a" "$root/include/tramline.h"
    "$lib/pkgconfig/tramline.pc" "$lib/pkgconfig/tramline-static.pc" "$doc/C.md"
    "$doc/examples/produce.c" "$doc/examples/consume.c" "$doc/examples/queue.c" "$doc/examples/busy_poll.c")

if [ "$uninstall" = yes ]; then
    rm -f -- "${files[@]}"
    rmdir --ignore-fail-on-non-empty -- "$doc/examples" "$doc" 2>/dev/null || true
    say "removed libtramline $version from $root"
    exit 0
fi

# Asked before the build, so that nobody waits minutes for a refusal.
mkdir -p -- "$lib/pkgconfig" "$root/include" "$doc/examples" 2>/dev/null && [ -w "$lib" ] && [ -w "$root/include" ] \
    || fail "$root cannot be written. Run:  sudo $0 --prefix $prefix  or choose a directory of your own with --prefix."

need_build_tools
say "building libtramline $version (minutes the first time, seconds later)"
# The profile: `release` ends the process at a panic, this one catches it at the border.
cargo build --locked --profile capi --package tramline-capi
built="$(target_dir)/capi"

# Under another name first: a program that runs with the old library must not find a half new one.
put() {
    local mode="$1" from="$2" to="$3"
    install -m "$mode" -- "$from" "$to.new"
    mv -f -- "$to.new" "$to"
}
put 755 "$built/libtramline.so" "$lib/libtramline.so.$version"
ln -sfn "libtramline.so.$version" "$lib/libtramline.so.$ABI"
ln -sfn "libtramline.so.$ABI" "$lib/libtramline.so"
put 644 "$built/libtramline.a" "$lib/libtramline.a"
put 644 client/capi/include/tramline.h "$root/include/tramline.h"
for name in tramline tramline-static; do
    filled="$lib/pkgconfig/$name.pc.filled"
    # The prefix may hold what sed takes for something else; a pkg-config file wants spaces escaped.
    escaped=$(printf '%s' "$prefix" | sed 's/ /\\ /g; s/[\\&|]/\\&/g')
    sed "s|@PREFIX@|$escaped|; s|@VERSION@|$version|" "client/capi/$name.pc.in" >"$filled"
    put 644 "$filled" "$lib/pkgconfig/$name.pc"
    rm -f -- "$filled"
done
put 644 docs/C.md "$doc/C.md"
for example in produce consume queue busy_poll; do
    put 644 "client/capi/examples/$example.c" "$doc/examples/$example.c"
done

say "libtramline $version is installed in $root"
[ -z "${DESTDIR:-}" ] || exit 0
# The loader looks in these by itself, through its cache.
case "$prefix" in
    /usr | /usr/local)
        if [ "$(id -u)" -eq 0 ] && command -v ldconfig >/dev/null 2>&1; then ldconfig; fi
        printf 'Try:  cc %s/examples/consume.c -o consume $(pkg-config --cflags --libs tramline)\n' "$prefix/share/doc/tramline"
        ;;
    *)
        printf 'Try:  export PKG_CONFIG_PATH=%s/lib/pkgconfig LD_LIBRARY_PATH=%s/lib\n' "$prefix" "$prefix"
        printf '      cc %s/examples/consume.c -o consume $(pkg-config --cflags --libs tramline)\n' "$prefix/share/doc/tramline"
        ;;
esac
