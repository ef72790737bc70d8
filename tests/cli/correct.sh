#!/bin/bash
# Corrections at the shell: from an endpoint and from a model, killed and stopped in the middle; what is asked, where the key goes, and a whole run with its report.
set -u
cd "$(dirname "$0")/../.." || exit 1
export OMP_NUM_THREADS=1
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh
export OMPI_MCA_mpi_yield_when_idle=1
REALIGN=${REALIGN:-build/realign}
work=$(mktemp -d) || exit 1
server=
trap '[ -z "$server" ] || kill "$server" 2> /dev/null; rm -rf "$work"' EXIT
export REALIGN_TEST_KEY=sk-test-51d0c7ab93e4
export PYTHONDONTWRITEBYTECODE=1

number=0 failed=0
check() { # description, exit status of what was tried
    number=$((number + 1))
    cat "$work/log" >> "$work/all-logs"
    if [ "$2" -eq 0 ]; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1"
        tail -n 30 "$work/log" | sed 's/^/# /'
        failed=1
    fi
}
serve() { # arguments of the server; sets $url and the empty $work/server
    [ -z "$server" ] || { kill "$server"; wait "$server"; } 2> /dev/null
    : > "$work/port"
    : > "$work/server"
    python3 -S tests/support/correct_server.py "$work/server" --key $REALIGN_TEST_KEY "$@" > "$work/port" 2> "$work/server.err" &
    server=$!
    local i
    for ((i = 0; i < 200; i++)); do [ -s "$work/port" ] && break; sleep 0.05; done
    url=http://127.0.0.1:$(cat "$work/port")/v1
}
common=(model="$work/model" policy="$work/policy.yaml" data.path="$work/rows.jsonl" template=chatml backend=cpu precision=fp32 run.threads=1 generate.batch=2
    pack.tokens=256 gold.size=9 train.batch=4 train.max_steps=2 checkpoint.every=0)
by_endpoint=(correct.source=endpoint correct.attempts=2 correct.model=writer correct.key_env=REALIGN_TEST_KEY oracle.http.backoff=20ms oracle.http.concurrency=4)
by_model=(correct.source=model correct.temperature=1 correct.max_new_tokens=200)
fresh() { # a run directory that is prepared and triaged
    cp -R "$work/triaged" "$work/$1"
}
correct() { # ranks, run directory, settings
    timeout 100 mpirun -n "$1" "$REALIGN" correct run.dir="$work/$2" "${common[@]}" "${@:3}" > "$work/log" 2>&1
}
same() { # run directories: the same corrections
    cmp "$work/$1/corrections.jsonl" "$work/$2/corrections.jsonl" >> "$work/log" 2>&1
}
# Starts corrections on one rank, waits for $1 candidates and sends a signal; the exit code is left in $code.
signal() { # candidates, signal, run directory, settings
    local lines
    "$REALIGN" correct run.dir="$work/$3" "${common[@]}" "${@:4}" > "$work/log" 2>&1 &
    local runner=$!
    for _ in $(seq 2000); do
        lines=$(cat "$work/$3"/candidates/*.jsonl 2> /dev/null | wc -l)
        [ "$lines" -ge "$1" ] && break
        sleep 0.01
    done
    kill "-$2" $runner
    wait $runner 2> /dev/null
    code=$?
    candidates=$(cat "$work/$3"/candidates/*.jsonl 2> /dev/null | wc -l)
    echo "exit code $code, $candidates candidates" >> "$work/log"
}
asked() { # are requests of the server's log as the expression says? `r`: list of requests
    python3 -S -c "
import json, sys
r = [json.loads(line) for line in open('$work/server')]
sys.exit(not ($1))" >> "$work/log" 2>&1
}

echo "1..13"
"${BUILD:-build}/tests/cli/make_correct_run" "$work" > "$work/log" 2>&1
"$REALIGN" prepare run.dir="$work/triaged" "${common[@]}" >> "$work/log" 2>&1 && "$REALIGN" triage run.dir="$work/triaged" "${common[@]}" >> "$work/log" 2>&1
check "samples and their triage" $?

serve
fresh one
correct 1 one "${by_endpoint[@]}" correct.url="$url" && grep -q 'corrected (eq. 2c)' "$work/log" && grep -q 'endpoint failed' "$work/log" && grep -q 'empty\|too long' "$work/log"
check "an endpoint that answers well, badly, not at all, too long, and is filtered" $?
asked "len(r) > 30 and all(q['model'] == 'writer' and q['max_tokens'] == 512 and q['temperature'] == 0.3 and 0 <= q['seed'] < 2**31 for q in r) \
    and all(q['authorization'] == 'Bearer $REALIGN_TEST_KEY' for q in r) and len({q['seed'] for q in r if q['kind'] != 'busy'}) == sum(q['kind'] != 'busy' for q in r)"
check "model, limits, key; a seed of its own for every candidate, and none is asked for twice" $?
asked "all('Write no bad words' in q['messages'][-1]['content'] and '<message>' in q['messages'][-1]['content'] and 'a bad' not in str(q['messages']) for q in r) \
    and any(len(q['messages']) == 3 for q in r)"
check "policy, conversation and message are told, the rejected answers are not" $?
grep -q '"correction":"a deed"' "$work/one/corrections.jsonl" && ! grep -q 'think' "$work/one/corrections.jsonl"
check "reasoning before an answer is not part of it" $?
fresh two
serve
correct 2 two "${by_endpoint[@]}" correct.url="$url" && same one two
check "the same on two ranks" $?
fresh shown
serve
correct 1 shown "${by_endpoint[@]}" correct.url="$url" oracle.http.url=http://127.0.0.1:9/v1 oracle.http.key_env=REALIGN_TEST_KEY correct.key_env= correct.show_rejected=true
asked "len(r) > 30 and all('a bad' in q['messages'][-1]['content'] for q in r) and all(q['authorization'] is None for q in r)"
check "correct.show_rejected shows them; a key stays with the server it was given for" $?

serve --delay 0.05
fresh killed
signal 20 KILL killed "${by_endpoint[@]}" correct.url="$url"
[ "$code" -eq 137 ] && [ "$candidates" -lt 45 ] && printf '{"key": "torn' >> "$work/killed/candidates/rank-00000.jsonl" && correct 2 killed "${by_endpoint[@]}" correct.url="$url" &&
    same one killed && asked "(lambda good: len(good) - len(set(good)) <= 4)([q['key'] for q in r if q['kind'] in ('good', 'bad', 'cut', 'thought', 'empty')])"
check "killed in the middle, with a torn line: goes on, and asks again only what was in flight" $?
fresh stopped
signal 20 TERM stopped "${by_endpoint[@]}" correct.url="$url"
[ "$code" -eq 75 ] && [ ! -f "$work/stopped/corrections.h5" ] && correct 1 stopped "${by_endpoint[@]}" correct.url="$url" && same one stopped
check "SIGTERM: exit code 75, and the same command finishes" $?
serve --broken
fresh broken
correct 1 broken "${by_endpoint[@]}" correct.url="$url" oracle.http.retries=1
[ $? -eq 1 ] && grep -q 'answers nothing' "$work/log" && [ ! -f "$work/broken/corrections.h5" ]
check "a server that answers nothing is an error, not a fall-back" $?

fresh model-one
correct 2 model-one "${by_model[@]}"
status=$?
fresh model-killed
signal 8 KILL model-killed "${by_model[@]}"
fresh model-term
[ $status -eq 0 ] && [ "$code" -eq 137 ] && correct 1 model-killed "${by_model[@]}" && same model-one model-killed &&
    signal 8 TERM model-term "${by_model[@]}" && [ "$code" -eq 75 ] && correct 2 model-term "${by_model[@]}" && same model-one model-term
check "a model, killed and stopped in the middle of a batch: the same in the end" $?

timeout 200 mpirun -n 2 "$REALIGN" run run.dir="$work/model-one" "${common[@]}" "${by_model[@]}" > "$work/log" 2>&1 && grep -q 'correct: .*up to date' "$work/log" &&
    grep -q 'Punish (2[0-9] corrected)\|Punish (1[0-9] corrected)' "$work/log" && grep -q 'Corrections' "$work/model-one/report.html" && grep -q 'not compliant' "$work/model-one/report.html"
check "a whole run takes them up; the report counts them" $?

grep -q "$REALIGN_TEST_KEY" "$work/server" && ! grep -rqF "$REALIGN_TEST_KEY" "$work/all-logs" "$work/one" "$work/killed" "$work/stopped"
check "the key is in no log and no file" $?
exit $failed
