#!/bin/bash
# What the build finds on this machine; called by `make info`.
set -u
show() { printf '%-12s %s\n' "$1" "${2:-not found}"; }
version_of() { pkg-config --modversion "$1" 2> /dev/null; }

cc=${CC:-gcc}
show compiler "$(command -v "${cc%% *}" > /dev/null && $cc --version 2> /dev/null | head -n 1)"
show flags "${INFO_CFLAGS:-}"
show "Open MPI" "$(version_of ompi-c)${MPIRUN_NOTE:-} $(command -v mpirun || echo '(no mpirun)')"
show HDF5 "$(version_of hdf5-openmpi)"
# shellcheck disable=SC2086 # a list of words
show oneDNN "$(printf '#include <oneapi/dnnl/dnnl_version.h>\nDNNL_VERSION_MAJOR.DNNL_VERSION_MINOR.DNNL_VERSION_PATCH\n' |
    $cc ${DNNL_CFLAGS:-} -E -P - 2> /dev/null | tail -n 1 | tr -d ' ')"
for module in jansson yaml-0.1 libpcre2-8 libutf8proc libxxhash zlib libzstd libcurl cmocka; do show "$module" "$(version_of "$module")"; done
for tool in clang-format codespell shellcheck chromium python3 git; do show "$tool" "$(command -v "$tool")"; done

show processor "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
show cores "$(nproc)"
flags=" $(sed -n 's/^flags[^:]*: //p' /proc/cpuinfo | head -n 1) "
found=
for flag in avx2 fma avx512f avx512_vnni avx512_bf16 amx_tile amx_bf16 amx_int8; do
    case $flags in *" $flag "*) found="$found $flag" ;; esac
done
show instructions "${found# }"
show memory "$(awk '/^MemTotal/ {printf "%.1f GiB", $2 / 1048576}' /proc/meminfo)"
if missing=$("$(dirname "$0")/have-deps.sh"); then show missing nothing; else show missing "$missing"; fi
