#!/bin/bash
# What nobody asked for: ranks killed during training and during checkpoints, a full disk, files that one rank cannot read, damaged checkpoints. Every run ends by
# itself in bounded time with a reason, nothing that was good before is lost, and going on gives the bits of the uninterrupted run.
set -u
cd "$(dirname "$0")/../.." || exit 1
export OMP_NUM_THREADS=1
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh
export OMPI_MCA_mpi_yield_when_idle=1
REALIGN=$(readlink -f "${REALIGN:-build/realign}")
make_run=${BUILD:-build}/tests/cli/make_tiny_run
model=$(readlink -f "${SHARED:-../shared}/fixtures/llama31/reference")
if [ ! -d "$model" ]; then
    echo "1..0 # SKIP no model at $model"
    exit 0
fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
common=(model="$model" backend=cpu precision=fp32 run.threads=1 gold.size=9 train.batch=4 train.epochs=1000000 train.max_steps=120)

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
skip() { # description, reason
    number=$((number + 1))
    echo "ok $number - $1 # SKIP $2"
}
fresh() { # a weighed run directory
    rm -rf "${work:?}/$1"
    cp -R "$work/weighed" "$work/$1"
}
train() { # run directory, words: on 2 ranks, bounded
    local dir=$1
    shift
    timeout 60 mpirun -n 2 "$REALIGN" train run.dir="$work/$dir" "${common[@]}" "$@" > "$work/log" 2>&1
}
rows() { # steps that a run has taken
    [ -f "$work/$1/steps.tsv" ] && tail -n +2 "$work/$1/steps.tsv" | wc -l || echo 0
}
same() { # run directory: steps.tsv but for the times, and the weights, as the uninterrupted run's
    cut -f1-22 "$work/$1/steps.tsv" | cmp - <(cut -f1-22 "$work/whole/steps.tsv") >> "$work/log" 2>&1 &&
        cmp "$work/$1/model/model.safetensors" "$work/whole/model/model.safetensors" >> "$work/log" 2>&1
}
start() { # run directory, steps to wait for, words: in the background; $launcher is mpirun
    local dir=$1 steps=$2
    shift 2
    timeout 60 mpirun -n 2 "$REALIGN" train run.dir="$work/$dir" "${common[@]}" "$@" > "$work/log" 2>&1 &
    bound=$!
    for _ in $(seq 1000); do
        [ "$(rows "$dir")" -ge "$steps" ] && break
        kill -0 "$bound" 2> /dev/null || break
        sleep 0.01
    done
    launcher=$(pgrep -P "$bound")
}

"$make_run" "$work/weighed" "$model" 48 > "$work/log" 2>&1 &&
    mpirun -n 2 "$REALIGN" weigh run.dir="$work/weighed" "${common[@]}" > "$work/log" 2>&1 && fresh whole && train whole
check "an uninterrupted run" $?

fresh one
start one 30 checkpoint.every=10
kill -KILL "$(pgrep -P "$launcher" | tail -n 1)"
wait "$bound"
code=$?
[ $code -ne 0 ] && [ $code -ne 124 ] && [ -f "$work/one/checkpoints/latest" ]
check "kill -9 of one rank ends all (exit code $code)" $?
train one checkpoint.every=10 && grep -q 'resuming at step' "$work/log" && same one
check "and the run goes on from its last checkpoint to the same bits" $?

fresh all
kills=0
RANDOM=20
for round in 1 2 3 4 5; do # a checkpoint after every step: most of the time is spent in one
    start all $((round * 12)) checkpoint.every=1 checkpoint.keep=2
    sleep "0.0$((RANDOM % 9 + 1))"
    mapfile -t ranks < <(pgrep -P "$launcher")
    [ ${#ranks[@]} -gt 0 ] && kill -KILL "${ranks[@]}" "$launcher" 2> /dev/null && kills=$((kills + 1))
    wait "$bound"
done
train all checkpoint.every=1 checkpoint.keep=2 && same all && [ $kills -ge 3 ]
check "kill -9 of all ranks during checkpoints, $kills times: each resumes, to the same bits" $?

fresh cut
train cut checkpoint.every=40 run.stop_file="$work/none" && rm -r "$work/cut/model"
newest=$(find "$work/cut/checkpoints" -name 'step-*.h5' | sort | tail -n 1)
truncate -s 5000 "$newest"
train cut checkpoint.every=40 && grep -q "checkpoint not used: .*$(basename "$newest")" "$work/log" && grep -q 'resuming at step 80' "$work/log" && same cut
check "a truncated checkpoint: a warning names it, the one before is used" $?
for file in "$work/cut/checkpoints/"step-*.h5; do truncate -s 5000 "$file"; done
train cut checkpoint.every=40
[ $? -eq 1 ] && grep -q 'can be used; remove them to start anew' "$work/log"
check "no good checkpoint is left: an error, not a fresh start" $?

isolate=(unshare --mount)
[ "$(id -u)" -eq 0 ] || isolate=(unshare --mount --map-root-user)
mkdir "$work/small"
if ! "${isolate[@]}" mount -t tmpfs -o size=2m tmpfs "$work/small" 2> /dev/null; then
    skip "a full disk" "mounting a small tmpfs is not permitted here"
    skip "a model that one rank cannot read" "mounting is not permitted here"
    skip "hidden states that one rank cannot read" "mounting is not permitted here"
    exit $failed
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fresh rescued
# shellcheck disable=SC2016 # expanded inside the namespace
"${isolate[@]}" bash -c '
    small=$1 weighed=$2 rescued=$3 realign=$4
    shift 4
    mount -t tmpfs -o size=6m tmpfs "$small" && cp -R "$weighed/." "$small" || exit 1
    timeout 60 mpirun -n 2 "$realign" train run.dir="$small" checkpoint.every=20 checkpoint.keep=1000 "$@"
    code=$?
    cp -R "$small/checkpoints" "$small/steps.tsv" "$rescued"
    exit $code' - "$work/small" "$work/weighed" "$work/rescued" "$REALIGN" "${common[@]}" > "$work/log" 2>&1
[ $? -eq 1 ] && grep -q 'checkpoint of step' "$work/log" && train rescued checkpoint.every=20 && grep -q 'resuming at step' "$work/log" && same rescued
check "a full disk: clear end, and the checkpoints from before are good" $?

cat > "$work/blind" <<'SH'
#!/bin/bash
# Rank 1 sees an empty folder, or an empty file, in place of $BLIND.
[ "${OMPI_COMM_WORLD_RANK:-0}" = 1 ] || exec "$@"
# shellcheck disable=SC2016
exec $ISOLATE bash -c 'if [ -d "$BLIND" ]; then mount -t tmpfs tmpfs "$BLIND"; else mount --bind /dev/null "$BLIND"; fi && exec "$@"' - "$@"
SH
chmod +x "$work/blind"
cp -RL "$model" "$work/model"
fresh unread
ISOLATE="${isolate[*]}" BLIND=$work/model timeout 60 mpirun -n 2 "$work/blind" "$REALIGN" weigh run.dir="$work/unread" run.resume=never \
    "${common[@]}" model="$work/model" > "$work/log" 2>&1
[ $? -eq 1 ] && grep -q "rank 1: .*$work/model" "$work/log"
check "a model that one rank cannot read: all end, the rank and the file are named" $?
ISOLATE="${isolate[*]}" BLIND=$work/whole/hidden.bin timeout 60 mpirun -n 2 "$work/blind" "$REALIGN" train run.dir="$work/whole" \
    "${common[@]}" > "$work/log" 2>&1
[ $? -eq 1 ] && grep -q 'rank 1: .*hidden.bin' "$work/log"
check "hidden states that one rank cannot read: the same" $?
exit $failed
