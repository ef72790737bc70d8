#!/bin/bash
# Installs what tools/have-deps.sh reports as missing, with apt-get; says what to do where that cannot be done.
# usage: tools/deps.sh [group ...]
set -u
here=$(cd "$(dirname "$0")" && pwd)
if missing=$("$here/have-deps.sh" "$@"); then
    exit 0
fi
read -ra packages <<< "$missing"

advise() {
    echo "realign: missing: ${packages[*]}" >&2
    echo "realign: $*" >&2
    exit 1
}

command -v apt-get > /dev/null || advise "there is no apt-get here; load the modules that bring these (names are Debian's), or install them, and set" \
    "PKG_CONFIG_PATH, CC, DNNL_CFLAGS and DNNL_LIBS as needed. 'make info' prints what is found."
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo > /dev/null && sudo -n true 2> /dev/null; then
        as_root=(sudo -n)
    else
        advise "installing them takes root: run 'sudo make deps', or 'apt-get install ${packages[*]}' as root"
    fi
fi

echo "realign: installing ${packages[*]}"
install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}
# The package lists of a fresh machine are empty or old: fetch them, but go on with what is there when that fails.
"${as_root[@]}" apt-get update -q || echo "realign: 'apt-get update' failed; trying with the package lists at hand" >&2
if ! install "${packages[@]}"; then
    # One package that cannot be had should not keep the others away.
    for package in "${packages[@]}"; do install "$package" || true; done
fi
# Without a browser, the test that looks at the report is skipped: that alone is no failure.
needed=()
for group in "${@:-build}"; do [ "$group" = browser ] || needed+=("$group"); done
if [ ${#needed[@]} -gt 0 ] && ! left=$("$here/have-deps.sh" "${needed[@]}"); then
    packages=()
    read -ra packages <<< "$left"
    advise "apt-get could not install them (see above); is the network there?"
fi
if ! left=$("$here/have-deps.sh" "$@"); then echo "realign: still missing, and not needed: $left"; fi
