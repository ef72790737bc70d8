#!/bin/bash
# Prints the Debian packages that are missing for the given groups (all groups without any); status 1 if there are some.
# usage: tools/have-deps.sh [build|test|demo|check|browser ...]
set -u
here=$(cd "$(dirname "$0")" && pwd)
groups=" ${*:-build test demo check browser} "
missing=()

have() { # kind, name
    case $1 in
        cmd)
            if [ "$2" = gcc ] && [ -n "${CC:-}" ]; then command -v "${CC%% *}" > /dev/null; else command -v "$2" > /dev/null; fi ;;
        pc) command -v pkg-config > /dev/null && pkg-config --exists "$2" ;;
        header)
            local compiler flags
            read -ra compiler <<< "${CC:-gcc}" # it may be several words: ccache gcc
            read -ra flags <<< "${DNNL_CFLAGS:-}"
            printf '#include <%s>\n' "$2" | "${compiler[@]}" "${flags[@]}" -E - > /dev/null 2>&1 ;;
        cxx-header) printf '#include <%s>\n' "$2" | ${CXX:-g++} -x c++ -E - > /dev/null 2>&1 ;;
        file) [ -e "$2" ] ;;
    esac
}

while read -r group package kind name; do
    case $group in '' | '#'*) continue ;; esac
    case $groups in *" $group "*) have "$kind" "$name" || missing+=("$package") ;; esac
done < "$here/packages.txt"

[ ${#missing[@]} -eq 0 ] && exit 0
echo "${missing[@]}"
exit 1
