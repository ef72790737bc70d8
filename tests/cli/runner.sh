#!/bin/bash
# tests/run.sh itself: what it must count as failed, what it must end, what its last line says.
set -u
cd "$(dirname "$0")/../.." || exit 1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/tests/cli" "$dir/tools"
cp tests/run.sh "$dir/tests/"
cp tools/mpi-env.sh tools/lsan.supp "$dir/tools/"

n=0
check() { # status, name
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; sed 's/^/# /' "$dir/out"; fi
}
# Runs the runner on one script read from stdin; leaves its output in $dir/out and its last line in $last.
run_one() {
    rm -f "$dir"/tests/cli/*
    cat > "$dir/tests/cli/one.sh"
    TEST_TIMEOUT=2 BUILD=build bash "$dir/tests/run.sh" > "$dir/out" 2>&1
    status=$?
    last=$(tail -n 1 "$dir/out")
}
expect() { # last line, status, name
    [ "$last" = "$1" ] && [ "$status" -eq "$2" ]
    check $? "$3"
}

echo "1..11"
run_one <<< 'echo 1..2; echo "ok 1 - a"; echo "ok 2 - b"'
expect "2 passed, 0 failed" 0 "good tests pass"
run_one <<< 'echo 1..2; echo "ok 1 - a"; echo "not ok 2 - b"'
expect "1 passed, 1 failed" 1 "a failed test fails"
run_one <<< 'echo 1..2; echo "ok 1 - a"; echo "ok 2 - b # SKIP no reason"'
expect "1 passed, 0 failed, 1 skipped" 0 "skips are counted"
grep -q '^skipped: tests/cli/one.sh: b: no reason$' "$dir/out"
check $? "the reason of a skip is shown"
run_one <<< 'echo "ok 1 - a"'
expect "1 passed, 1 failed" 1 "no plan is a failure"
run_one <<< 'echo 1..3; echo "ok 1 - a"'
expect "1 passed, 1 failed" 1 "missing results are a failure"
run_one <<< 'echo 1..1; echo "ok 1 - a"; kill -SEGV $$'
expect "1 passed, 1 failed" 1 "a crash is a failure"
run_one <<< 'echo 1..1; echo "not ok 1 # SKIP cmocka_style"'
expect "0 passed, 0 failed, 1 skipped" 0 "a skip as cmocka writes it"
run_one <<< "set -m; echo 1..1; echo \$\$ > $dir/pid; sleep 60 & echo \$! > $dir/child; wait"
expect "0 passed, 1 failed" 1 "a test that hangs is ended and has failed"
alive() { grep -q '^State:[^Z]*$' "/proc/$1/status" 2> /dev/null; } # a zombie that nobody has collected yet is dead
! alive "$(cat "$dir/child")" && ! alive "$(cat "$dir/pid")"
check $? "nothing it started is left"
rm -f "$dir"/tests/cli/*
! BUILD=build bash "$dir/tests/run.sh" > "$dir/out" 2>&1 && [ "$(tail -n 1 "$dir/out")" = "0 passed, 1 failed" ]
check $? "no tests at all is a failure"
