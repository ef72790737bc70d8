#!/bin/bash
# `make bundle` in a root directory that has nothing but glibc and a shell: it runs there, alone and on two ranks.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh
REALIGN=${REALIGN:-build/realign}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
if [ "$(id -u)" -ne 0 ] || ! chroot / true 2> /dev/null; then
    echo "1..0 # SKIP chroot needs root"
    exit 0
fi
case ${BUILD:-build} in *san*)
    echo "1..0 # SKIP a sanitizer's library is the builder's"
    exit 0 ;;
esac
echo "1..4"
number=0 failed=0
check() { # description, exit status of what was tried
    number=$((number + 1))
    if [ "$2" -eq 0 ]; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1"
        sed 's/^/# /' "$work/log"
        failed=1
    fi
}

tools/bundle.sh "$REALIGN" "$work/root/bundle" > "$work/log" 2>&1
check "a bundle is made" $?
[ "$(du -m "$work/root/bundle.tar.gz" | cut -f1)" -lt 60 ]
check "its archive is under 60 MB" $?

# a shell, the tools that its scripts call, and glibc
root=$work/root
mkdir -p "$root"/{bin,lib64,lib,tmp,dev,etc,proc}
for tool in sh dirname; do cp -L "$(command -v $tool)" "$root/bin/"; done
for file in $(ldd "$root"/bin/* "$root/bundle/bin/realign" "$root/bundle/bin/orterun" | grep -oE '/[^ ]*/(ld-linux[^ ]*|lib(c|m|dl|rt|pthread|resolv|util|nsl)\.so[^ ]*)' | sort -u); do
    mkdir -p "$root${file%/*}" && cp -L "$file" "$root$file"
done
for file in $(ldd "$root"/bin/* | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u); do mkdir -p "$root${file%/*}" && cp -Ln "$file" "$root$file"; done
mknod -m 666 "$root/dev/null" c 1 3 2> /dev/null || : > "$root/dev/null"
echo 'root:x:0:0:root:/:/bin/sh' > "$root/etc/passwd"
inside() { timeout 60 chroot "$root" /bin/sh -c "$1" > "$work/log" 2>&1; }
inside '/bundle/realign version' && grep -q realign "$work/log"
check "it runs where there is nothing but glibc" $?
: > "$root/x.jsonl"
inside 'cd /tmp && /bundle/mpirun -n 2 --allow-run-as-root --oversubscribe /bundle/realign prepare run.dir=/tmp/run data.path=/x.jsonl' || # the file is empty, which prepare says after it has begun
    grep -q '2 ranks' "$work/log"
check "its launcher starts two ranks" $?
exit $failed
