#!/bin/bash
# `make bench`: runs the programs of tests/bench one after the other, each with all cores; their tables go to the screen.
# usage: tools/bench.sh [word ...]   only those whose name contains a word
set -u
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build}
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}"
failed=0
for source in tests/bench/*.c tests/bench/*.sh; do
    [ -f "$source" ] || continue
    if [ $# -gt 0 ]; then
        wanted=0
        for word in "$@"; do case $source in *"$word"*) wanted=1 ;; esac; done
        [ $wanted -eq 1 ] || continue
    fi
    echo "== $source (OMP_NUM_THREADS=$OMP_NUM_THREADS)"
    case $source in
        *.sh) bash "$source" ;;
        */bench_pipeline.c) OMP_NUM_THREADS=1 mpirun -n 2 "$build/${source%.c}" ;;
        *) "$build/${source%.c}" ;;
    esac || { echo "== $source FAILED"; failed=1; }
done
exit $failed
