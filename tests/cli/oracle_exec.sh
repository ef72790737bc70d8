#!/bin/bash
# The exec oracle with a program that crashes, hangs, answers twice, out of order and garbage: nothing lost or invented, nobody left behind.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
ask=$BUILD/tests/cli/ask_oracle
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1
python=$(python3 -c "import sys; print(sys.executable)")

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
run() { # out, items, arguments of the program in one word, settings
    local out=$1 n=$2 arguments=$3
    shift 3
    timeout 60 "$ask" exec "$work/$out" "$n" "oracle.exec.command=$python,-S,tests/support/exec_judge.py,$work/$out.starts,${arguments// /,}" "$@" > "$work/log" 2>&1
}
verdicts() {
    local out=$1
    shift
    python3 -S tests/support/check_verdicts.py "$work/$out" "$@" >> "$work/log" 2>&1 && ! grep -q MANGLED "$work/log"
}
says() { # words that the log must hold
    local word
    for word in "$@"; do grep -qF -- "$word" "$work/log" || { echo "the log does not say: $word" >> "$work/log"; return 1; }; done
}
code() { # expected exit code, command
    local want=$1 got
    shift
    "$@"
    got=$?
    [ $got -eq "$want" ] || { echo "exit code $got, not $want" >> "$work/log"; return 1; }
}
gone() { # out: does none of the processes live that the program noted?
    local pid state left=
    while read -r pid; do
        { read -r _ _ state _ < "/proc/$pid/stat"; } 2> /dev/null || continue
        [ "$state" = Z ] || left+=" $pid" # a grandchild's remains are for init
    done < "$work/$1.starts"
    [ -z "$left" ] || { echo "left behind:$left" >> "$work/log"; return 1; }
}
starts() { wc -l < "$work/$1.starts"; }

echo "1..14"
run plain 400 "" oracle.exec.workers=2 && verdicts plain 400 && [ "$(starts plain)" -eq 2 ] && gone plain
check "a program that behaves" $?
awk '$1 % 5 == 0 && ($3 != ($2 ? "0.750000" : "0.250000") || $4 != ($2 ? "1.098612" : "-1.098612")) || $1 % 5 && ($3 != $2 || $4 != 0) { exit 1 }' "$work/plain"
check "its probabilities and margins" $?
run hostile 800 "--faults 0.08" oracle.exec.workers=3 oracle.exec.timeout=1s && verdicts hostile 800 && gone hostile &&
    says "lines that are no answer" "unknown ids" "second answers" "answers without sense" "asked again"
check "one that crashes, hangs, and talks nonsense: $(starts hostile) starts" $?
run poison 100 "--mode poison" oracle.exec.attempts=2 && verdicts poison 100 --undecided 7,47,87 && says "3 undecided" "signal 11" && gone poison
check "an item that kills it is undecided; those beside it are not" $?
run undecided 10 "--mode null" && verdicts undecided 10 --undecided 3 && says "cannot tell: not my language"
check "null is a verdict of its own" $?
run once 20 "--mode once" && verdicts once 20 && [ "$(starts once)" -ge 20 ] && gone once
check "one that ends after each answer" $?
run newline 10 "--mode no-newline" && verdicts newline 10
check "a last line without its end counts" $?
run noise 300 "--mode noise" && verdicts noise 300 && says "oracle.exec[1]: note about 0" "no more of what the program says" &&
    [ "$(grep -c "note about" "$work/log")" -le 200 ] && ! grep -q $'\x1b' "$work/log"
check "what it says on standard error is passed on, with a bound" $?
code 1 run dies 10 "--mode dies-at-once" oracle.exec.restarts=3 && says "4 copies in a row ended without a verdict" "status 3" "no model here" && [ "$(starts dies)" -eq 4 ] && gone dies
check "one that cannot start its work is given up, with its last words" $?
code 1 run unread 10 "--mode dies-unread" oracle.exec.attempts=1 oracle.exec.restarts=2 && says "status 0"
check "so is one that ends in peace without an answer" $?
run hang 2 "--mode hang" oracle.exec.start_timeout=300ms oracle.exec.timeout=100ms oracle.exec.attempts=1 && verdicts hang 2 --undecided 0,1 && says "start_timeout" && gone hang
check "one that hangs is killed, its items are undecided" $?
run long 10 "--mode long-line" oracle.exec.attempts=2 && verdicts long 10 --undecided 3 && says "1 MiB" && gone long
check "a line without end is not swallowed" $?

# Stops: the program ignores SIGTERM, and left a child of its own.
"$ask" exec "$work/stop" 10 "oracle.exec.command=$python,-S,tests/support/exec_judge.py,$work/stop.starts,--mode,deaf" > "$work/log" 2>&1 &
runner=$!
for ((i = 0; i < 200; i++)); do [ -s "$work/stop.starts" ] && break; sleep 0.02; done
sleep 0.3
begin=$(date +%s%N)
kill -TERM $runner
wait $runner
status=$? took=$((($(date +%s%N) - begin) / 1000000))
echo "exit code $status after $took ms" >> "$work/log"
[ $status -eq 75 ] && [ $took -lt 1000 ] && gone stop && run children 10 "--mode children" && verdicts children 10 && gone children && [ "$(starts children)" -eq 2 ]
check "a signal ends it within a second, with all it started" $?

refused() { # words of the message, --, settings
    local words=()
    while [ "$1" != -- ]; do words+=("$1"); shift; done
    shift
    code 1 timeout 20 "$ask" exec "$work/none" 5 "$@" > "$work/log" 2>&1 && says "${words[@]}" && [ ! -s "$work/none" ]
}
: > "$work/not-executable"
refused oracle.exec.command "not given" -- && refused no-such-program-here -- oracle.exec.command=no-such-program-here &&
    refused not-executable -- "oracle.exec.command=$work/not-executable" && refused oracle.exec.workers -- oracle.exec.command=cat oracle.exec.workers=0
check "commands that cannot be" $?
exit $failed
