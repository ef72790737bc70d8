#!/bin/bash
# `make run`: fetches the demo model once, then runs all stages on input/demo.yaml.
# usage: tools/demo.sh [key=value ...]   NP ranks (2), REALIGN the program (build/realign)
set -u
cd "$(dirname "$0")/.." || exit 1
realign=${REALIGN:-build/realign}
ranks=${NP:-2}
model=$(tools/fetch-demo-model.sh) || exit 1
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh
# Each rank gets its share of the cores for its threads.
threads=$(($(nproc) / ranks))
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"
exec mpirun -n "$ranks" "$realign" run input/demo.yaml model="$model" "$@"
