#!/bin/bash
# Runs every test and adds up their TAP. Called by `make test`, which builds them first.
# usage: tests/run.sh [word ...]     only files whose name contains one of the words
#   BUILD   the build folder (build)            REALIGN  the program (BUILD/realign)
#   SHARED  folder with shared data (../shared) TEST_TIMEOUT  seconds a test may take (300; 3 times that under sanitizers)
# One line a test; the output of those that fail; every skip with its reason; last line "N passed, N failed[, N skipped]".
# A program that prints no plan, not as many results as planned, exits with an error or runs out of time has failed.
set -u
cd "$(dirname "$0")/.." || exit 1
export BUILD=${BUILD:-build}
REALIGN=$(readlink -f "${REALIGN:-$BUILD/realign}")
SHARED=$(readlink -f "${SHARED:-${REALIGN_SHARED:-../shared}}")
export REALIGN SHARED REALIGN_SHARED=$SHARED OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" LC_ALL=C.UTF-8
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh
export OMPI_MCA_mpi_yield_when_idle="${OMPI_MCA_mpi_yield_when_idle:-1}" # waiting ranks leave the cores to working ones
demo_model=${XDG_CACHE_HOME:-$HOME/.cache}/realign/SmolLM2-135M-Instruct.Q4_1.gguf # where tools/fetch-demo-model.sh puts it
[ -z "${REALIGN_DEMO_GGUF:-}" ] || demo_model=$REALIGN_DEMO_GGUF
if [ -f "$demo_model" ]; then export REALIGN_DEMO_GGUF=$demo_model REALIGN_SMOLLM2="${REALIGN_SMOLLM2:-$demo_model}"; fi
limit=${TEST_TIMEOUT:-300}
case $BUILD in
    *san*)
        limit=$((limit * 3))
        export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:detect_stack_use_after_return=0:allocator_may_return_null=1}"
        export LSAN_OPTIONS="${LSAN_OPTIONS:-suppressions=$PWD/tools/lsan.supp:print_suppressions=0}"
        export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}" ;;
esac

log=$(mktemp) || exit 1
passed=0 failed=0 skipped=0 skips=() failures=()

# Ends what a test left behind: everything in the session it was started in.
end_session() { # session id
    local stat line fields
    for stat in /proc/[0-9]*/stat; do
        { read -r line < "$stat"; } 2> /dev/null || continue
        read -ra fields <<< "${line##*) }" # state ppid pgrp session ...
        [ "${fields[3]:-}" = "$1" ] || continue
        stat=${stat%/stat}
        kill -KILL "${stat#/proc/}" 2> /dev/null
    done
}

session=
trap '[ -z "$session" ] || end_session "$session"; rm -f "$log"' EXIT
trap 'exit 130' INT TERM

# Runs a command in a session of its own under the time limit; output to $log, status in $status.
run_limited() {
    setsid timeout --kill-after=10 "$limit" "$@" > "$log" 2>&1 < /dev/null &
    session=$!
    wait "$session"
    status=$?
    end_session "$session"
    session=
}

# Counts the TAP lines of $log: sets ok, bad, skip, planned, and appends to `skips`. cmocka writes skips as "not ok N # SKIP name"
# after our "# SKIP: reason" line; shell tests write "ok N - name # SKIP reason".
count_tap() { # name of the test
    local kind text
    ok=0 bad=0 skip=0 planned=-1
    while IFS=$'\t' read -r kind text; do
        case $kind in
            plan) planned=$(((planned < 0 ? 0 : planned) + text)) ;;
            ok) ok=$((ok + 1)) ;;
            bad) bad=$((bad + 1)) ;;
            skip) skip=$((skip + 1)) skips+=("$1: $text") ;;
        esac
    done < <(awk '
        /^1\.\.[0-9]+/ { sub(/^1\.\./, ""); print "plan\t" $1 + 0; if (/# *[Ss][Kk][Ii][Pp]/) print "skip\t" $0; next }
        /^# SKIP:/ { reason = substr($0, 9); next }
        /^(not )?ok/ && /# *SKIP/ {
            text = $0; sub(/^(not )?ok *[0-9]* *(- *)?(# *SKIP *)?/, "", text); sub(/ *# *SKIP */, ": ", text)
            print "skip\t" text (reason != "" ? " (" reason ")" : ""); reason = ""; next
        }
        /^ok/ { print "ok\t-"; next }
        /^not ok/ { print "bad\t-" }' "$log")
}

run_test() { # name, command ...
    local name=$1 start=$EPOCHREALTIME seconds why='' status ok bad skip planned
    shift
    run_limited "$@"
    seconds=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    count_tap "$name"
    if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
        why="ran out of time ($limit s)"
    elif [ "$planned" -lt 0 ]; then
        why="printed no TAP plan (exit status $status)"
    elif [ $((ok + bad + skip)) -ne "$planned" ]; then
        why="planned $planned results, gave $((ok + bad + skip)) (exit status $status)"
    elif [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
        why="exit status $status"
    fi
    [ -z "$why" ] || bad=$((bad + 1))
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
    printf '%-4s %-44s %4d passed %s%s %7s s\n' "$([ "$bad" -eq 0 ] && echo ok || echo FAIL)" "$name" "$ok" \
        "$([ "$bad" -gt 0 ] && echo "$bad failed ")" "$([ "$skip" -gt 0 ] && echo "$skip skipped ")" "$seconds"
    if [ "$bad" -gt 0 ]; then
        failures+=("$name${why:+: $why}")
        [ -z "$why" ] || echo "     $why"
        tail -n 80 "$log" | sed 's/^/     | /'
    fi
}

wanted() { # file; the words of the command line follow in `words`
    [ -f "$1" ] || return 1 # a pattern without a match
    [ ${#words[@]} -eq 0 ] && return 0
    local word
    for word in "${words[@]}"; do case $1 in *"$word"*) return 0 ;; esac; done
    return 1
}

words=("$@")
for source in tests/unit/*.c tests/ops/*.c tests/fuzz/*.c; do
    wanted "$source" || continue
    run_test "${source%.c}" "$BUILD/${source%.c}"
done
# The CUDA backend on the host: tests/cudasim. The operators once more with it, and what tests/cuda has of its own.
for source in tests/ops/agree.c tests/ops/nonfinite.c; do
    wanted "$source" || continue
    run_test "${source%.c} cuda" "$BUILD/cudasim/${source%.c}" cuda
done
for source in tests/cuda/*.c; do
    wanted "$source" || continue
    run_test "${source%.c}" "$BUILD/cudasim/${source%.c}"
done
for source in tests/cuda/mpi/*.c; do
    wanted "$source" || continue
    for ranks in 1 2 3 4; do run_test "${source%.c} -n $ranks" mpirun -n $ranks "$BUILD/cudasim/${source%.c}"; done
done
for source in tests/mpi/*.c; do
    wanted "$source" || continue
    for ranks in 1 2 3 4; do run_test "${source%.c} -n $ranks" mpirun -n $ranks "$BUILD/${source%.c}"; done
done
for script in tests/cli/*.sh; do
    wanted "$script" || continue
    run_test "$script" bash "$script"
done

if [ ${#skips[@]} -gt 0 ]; then printf 'skipped: %s\n' "${skips[@]}"; fi
if [ ${#failures[@]} -gt 0 ]; then printf 'failed: %s\n' "${failures[@]}"; fi
if [ $((passed + failed + skipped)) -eq 0 ]; then
    echo "no test was run"
    failed=1
fi
if [ $skipped -gt 0 ]; then echo "$passed passed, $failed failed, $skipped skipped"; else echo "$passed passed, $failed failed"; fi
[ $failed -eq 0 ]
