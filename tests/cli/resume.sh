#!/bin/bash
# Orderly stops at the shell: signals, the wall-clock limit and the stop file end a training with exit code 75 and a checkpoint, and the same command goes on to the
# result that an uninterrupted run has, to the bit.
set -u
cd "$(dirname "$0")/../.." || exit 1
export OMP_NUM_THREADS=1
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh
export OMPI_MCA_mpi_yield_when_idle=1
REALIGN=${REALIGN:-build/realign}
make_run=${BUILD:-build}/tests/cli/make_tiny_run
model=${SHARED:-../shared}/fixtures/llama31/reference
if [ ! -d "$model" ]; then
    echo "1..0 # SKIP no model at $model"
    exit 0
fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
common=(model="$model" backend=cpu precision=fp32 run.threads=1 gold.size=9 train.batch=4 train.epochs=1000000)
steps=300 # of the first run, which tells how fast this machine is

echo "1..9"
number=0 failed=0
check() { # description, exit status of what was tried
    number=$((number + 1))
    if [ "$2" -eq 0 ]; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1"
        tail -n 30 "$work/log" | sed 's/^/# /'
        failed=1
    fi
}
fresh() { # a weighed run directory
    cp -R "$work/weighed" "$work/$1"
}
train() { # run directory, words: on 2 ranks, bounded
    local dir=$1
    shift
    timeout 100 mpirun -n 2 "$REALIGN" train run.dir="$work/$dir" "${common[@]}" train.max_steps="$steps" checkpoint.every=$((steps / 3)) "$@" \
        > "$work/log" 2>&1
}
rows() { # steps that a run has taken
    [ -f "$work/$1/steps.tsv" ] && tail -n +2 "$work/$1/steps.tsv" | wc -l || echo 0
}
same() { # run directory: steps.tsv but for the times, and the weights, as the uninterrupted run's
    cut -f1-22 "$work/$1/steps.tsv" | cmp - <(cut -f1-22 "$work/whole/steps.tsv") >> "$work/log" 2>&1 &&
        cmp "$work/$1/model/model.safetensors" "$work/whole/model/model.safetensors" >> "$work/log" 2>&1
}
# Starts a training, waits until it has taken 50 steps, sends a signal to mpirun or to the last rank; the exit code is left in $code.
signal() { # run directory, signal, mpirun|rank
    local launcher target
    mpirun -n 2 "$REALIGN" train run.dir="$work/$1" "${common[@]}" train.max_steps="$steps" checkpoint.every=$((steps / 3)) > "$work/log" 2>&1 &
    launcher=$!
    for _ in $(seq 400); do
        [ "$(rows "$1")" -ge 50 ] && break
        sleep 0.02
    done
    target=$launcher
    [ "$3" = mpirun ] || target=$(pgrep -P "$launcher" | tail -n 1)
    kill "-$2" "$target"
    wait "$launcher"
    code=$?
}
stopped() { # run directory: between the start and the end, with a checkpoint of just these steps
    local n
    n=$(rows "$1")
    [ "$n" -ge 1 ] && [ "$n" -lt "$steps" ] && [ -f "$work/$1/checkpoints/$(printf 'step-%08d.h5' "$n")" ]
}

"$make_run" "$work/weighed" "$model" 48 > "$work/log" 2>&1 &&
    mpirun -n 2 "$REALIGN" weigh run.dir="$work/weighed" "${common[@]}" > "$work/log" 2>&1 && fresh trial && train trial
trial=$?
# A signal takes up to a second from mpirun to a rank, and a busy machine holds up the sender: a run lasts at least five seconds.
steps=$(awk -F '\t' 'NR > 1 { seconds += $23; n++ } END { s = seconds > 0 ? int(5 * n / seconds) : 3000; print (s < 700 ? 700 : s > 50000 ? 50000 : s) }' \
    "$work/trial/steps.tsv")
[ $trial -eq 0 ] && fresh whole && train whole
check "an uninterrupted run" $?

fresh usr1
signal usr1 USR1 mpirun
[ "$code" -eq 75 ] && stopped usr1
check "SIGUSR1 to mpirun: exit code 75 and a checkpoint" $?
train usr1 && same usr1
check "goes on to the same bits" $?

fresh term
signal term TERM rank
[ "$code" -eq 75 ] && stopped term && train term && same term
check "SIGTERM to one rank: 75, a checkpoint, and on to the same bits" $?

fresh killed
signal killed TERM mpirun # mpirun hands it on, gives its ranks a second, and has an exit code of its own
[ "$code" -ne 0 ] && stopped killed && train killed && same killed
check "SIGTERM to mpirun: a checkpoint, and on to the same bits" $?

fresh limit
train limit run.wall_limit=0.6s run.stop_margin=0s
[ $? -eq 75 ] && grep -q 'wall-clock limit' "$work/log" && stopped limit && train limit && same limit
check "run.wall_limit: 75, a checkpoint, and on to the same bits" $?

fresh file
touch "$work/stop"
train file run.stop_file="$work/stop"
[ $? -eq 75 ] && grep -q 'stop file' "$work/log" && [ "$(rows file)" -eq 0 ]
check "a stop file that is there from the start: 75 before the first step" $?
rm "$work/stop"
(
    for _ in $(seq 400); do
        [ "$(rows file)" -ge 50 ] && break
        sleep 0.02
    done
    touch "$work/stop"
) &
train file run.stop_file="$work/stop"
[ $? -eq 75 ] && stopped file && rm "$work/stop" && train file run.stop_file="$work/stop" && same file
check "a stop file: 75, a checkpoint, and on to the same bits" $?

train whole run.resume=must && same whole && train usr1 run.resume=must train.lr=2e-3
[ $? -eq 1 ] && grep -q 'made from other data, another model or other settings' "$work/log"
check "a finished run started again changes nothing; other settings are refused" $?
exit $failed
