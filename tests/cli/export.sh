#!/bin/bash
# Exports of two fixtures, read back here, and by transformers and peft where $REALIGN_PYTHON (python3) has them.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
shared=${SHARED:-${REALIGN_SHARED:-../shared}}
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh

if [ ! -f "$shared/fixtures/llama31/reference.h5" ]; then
    echo "1..1"
    echo "ok 1 - exports # SKIP $shared/fixtures is absent"
    exit 0
fi
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
python=${REALIGN_PYTHON:-python3}
status=0
for model in llama31 gemma2; do
    mkdir "$out/$model"
    timeout 100 mpirun -n 2 "$BUILD/tests/cli/export_fixture" "$shared/fixtures/$model" "$out/$model" || status=1
    if command -v "$python" > /dev/null; then
        timeout 200 "$python" tests/cli/export_check.py "$shared/fixtures/$model" "$out/$model" || status=1
    else
        echo "1..1"
        echo "ok 1 - $model: exports in transformers and peft # SKIP there is no $python"
    fi
done
exit $status
