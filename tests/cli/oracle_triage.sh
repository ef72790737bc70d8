#!/bin/bash
# realign triage with an http and an exec oracle: killed in the middle and started again it finishes, and nothing that was heard is asked again.
set -u
cd "$(dirname "$0")/../.." || exit 1
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 REALIGN_TEST_KEY=sk-test-7f3a9c1e5d2b8064
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh
REALIGN=${REALIGN:-build/realign}
work=$(mktemp -d) || exit 1
server=
trap '[ -z "$server" ] || kill "$server" 2> /dev/null; rm -rf "$work"' EXIT

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

cat > "$work/policy.yaml" << 'YAML'
name: friendly
text: |
  Responses are to be friendly.
YAML
cat > "$work/make.py" << 'PY'
import json, sys
sys.path.insert(0, "tests/support")
from chat_server import response_text
for row in range(int(sys.argv[1])):
    print(json.dumps({"prompt": f"question {2 * row} and question {2 * row + 1}", "chosen": response_text(2 * row), "rejected": response_text(2 * row + 1)}))
PY
cat > "$work/compare.py" << 'PY'
"""triage.jsonl and the server's log against the truth: rows, most repeats."""
import collections, json, sys
sys.path.insert(0, "tests/support")
from chat_server import response_text, verdict
triage, log, rows, most = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
lines = [json.loads(line) for line in open(triage)]
assert len(lines) == rows, len(lines)
for line in lines:
    want = [verdict(response_text(2 * line["id"] + k)) for k in (0, 1)]
    assert [line["c_w"], line["c_l"]] == want, (line, want)
answered = collections.Counter(e["item"] for e in map(json.loads, open(log)) if e["event"] == "answered")
repeats = sum(n - 1 for n in answered.values())
assert len(answered) == 2 * rows and repeats <= most, (len(answered), repeats)
PY
python3 -S "$work/make.py" 1000 > "$work/rows.jsonl"
: > "$work/server"
python3 -S tests/support/chat_server.py "$work/server" --key $REALIGN_TEST_KEY --faults 0.1 --delay 0.02 > "$work/port" &
server=$!
for ((i = 0; i < 200; i++)); do [ -s "$work/port" ] && break; sleep 0.05; done
triage() { # run directory, settings: the words of a run against the server
    echo triage data.path="$work/rows.jsonl" policy="$work/policy.yaml" run.dir="$work/$1" oracle.kind=http oracle.http.url="http://127.0.0.1:$(cat "$work/port")/v1" \
        oracle.http.model=m oracle.http.key_env=REALIGN_TEST_KEY oracle.http.backoff=20ms oracle.http.timeout=3s "${@:2}"
}

echo "1..6"
read -ra words <<< "$(triage killed oracle.http.concurrency=8)"
"$REALIGN" "${words[@]}" > "$work/log" 2>&1 &
runner=$!
for ((i = 0; i < 600; i++)); do [ "$(grep -c '"answered"' "$work/server")" -gt 500 ] && break; sleep 0.05; done
kill -KILL $runner
wait $runner 2> /dev/null
heard=$(grep -c '"answered"' "$work/server")
[ ! -e "$work/killed/triage.h5" ] && "$REALIGN" "${words[@]}" > "$work/log" 2>&1 && asked=$(($(grep -c '"answered"' "$work/server") - 2000)) &&
    echo "$heard verdicts were heard before the kill, $asked of them asked again" >> "$work/log" && [ "$heard" -lt 2000 ] &&
    python3 -S "$work/compare.py" "$work/killed/triage.jsonl" "$work/server" 1000 "$heard" >> "$work/log" 2>&1 && [ "$asked" -le $((heard / 2)) ]
check "killed after $heard of 2000 verdicts and started again, triage finishes; ${asked:-?} were asked again" $?

read -ra words <<< "$(triage priced oracle.cache="$work/no-cache" oracle.http.price_prompt=2 oracle.http.price_answer=8 oracle.http.budget=1999)"
before=$(wc -l < "$work/server")
"$REALIGN" "${words[@]}" > "$work/log" 2>&1
[ $? -eq 1 ] && grep -q "2000 requests, about .* prompt tokens, at most 1.6e+04 answer tokens, about [0-9.]* at the given prices" "$work/log" &&
    grep -q "oracle.http.budget: 1999 requests are not enough" "$work/log" && [ "$(wc -l < "$work/server")" -eq "$before" ]
check "the cost is told before anything is asked, and a budget that cannot be enough ends it there" $?

before=$(wc -l < "$work/server")
read -ra words <<< "$(triage again oracle.cache="$work/killed/verdicts" oracle.http.concurrency=2)"
"$REALIGN" "${words[@]}" > "$work/log" 2>&1 && cmp "$work/killed/triage.jsonl" "$work/again/triage.jsonl" >> "$work/log" 2>&1 && [ "$(wc -l < "$work/server")" -eq "$before" ]
check "another run with its cache asks nothing" $?

: > "$work/server"
read -ra words <<< "$(triage ranks oracle.http.concurrency=8)"
mpirun -n 3 "$REALIGN" "${words[@]}" > "$work/log" 2>&1 && cmp "$work/killed/triage.jsonl" "$work/ranks/triage.jsonl" >> "$work/log" 2>&1 &&
    python3 -S "$work/compare.py" "$work/ranks/triage.jsonl" "$work/server" 1000 0 >> "$work/log" 2>&1
check "three ranks share the work, and each item is asked once" $?

read -ra words <<< "$(triage stopped oracle.http.concurrency=4)"
: > "$work/server"
"$REALIGN" "${words[@]}" > "$work/log" 2>&1 &
runner=$!
for ((i = 0; i < 400; i++)); do [ "$(grep -c '"answered"' "$work/server")" -gt 50 ] && break; sleep 0.05; done
begin=$(date +%s%N)
kill -TERM $runner
wait $runner
status=$? took=$((($(date +%s%N) - begin) / 1000000))
echo "exit code $status after $took ms" >> "$work/log"
[ $status -eq 75 ] && [ $took -lt 1500 ] && "$REALIGN" "${words[@]}" >> "$work/log" 2>&1 && cmp "$work/killed/triage.jsonl" "$work/stopped/triage.jsonl" >> "$work/log" 2>&1
check "SIGTERM stops it within a second with exit code 75; the same command goes on" $?

grep -rqF $REALIGN_TEST_KEY "$work/killed" "$work/ranks" "$work/again" "$work/all-logs"
[ $? -eq 1 ] # grep found nothing, and read everything
check "the key is in no file and no log" $?
exit $failed
