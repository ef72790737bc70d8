#!/bin/bash
# The http oracle against a server that fails at random: nothing lost, invented or asked twice; its limits, its secrets, TLS, and how it stops.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
ask=$BUILD/tests/cli/ask_oracle
work=$(mktemp -d) || exit 1
server=
trap '[ -z "$server" ] || kill "$server" 2> /dev/null; rm -rf "$work"' EXIT
export REALIGN_TEST_KEY=sk-test-7f3a9c1e5d2b8064
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
    python3 -S tests/support/chat_server.py "$work/server" --key $REALIGN_TEST_KEY "$@" > "$work/port" 2> "$work/server.err" &
    server=$!
    local i
    for ((i = 0; i < 200; i++)); do [ -s "$work/port" ] && break; sleep 0.05; done
    url=http://127.0.0.1:$(cat "$work/port")/v1
}
run() { # out, items, settings: asks with the key and short waits; the exit code is the program's
    timeout 60 "$ask" http "$work/$1" "$2" "${usual[@]}" oracle.http.url="$url" "${@:3}" > "$work/log" 2>&1
}
# The time limit is long: an answer that comes after it was answered all the same, and would be asked for again.
usual=(oracle.http.model=m oracle.http.key_env=REALIGN_TEST_KEY oracle.http.backoff=20ms oracle.http.timeout=3s)
verdicts() { # as check_verdicts.py, with the name of the output for its path
    local out=$1
    shift
    python3 -S tests/support/check_verdicts.py "$work/$out" "$@" >> "$work/log" 2>&1
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

echo "1..24"
serve --faults 0.2 --seed 11
run many 10000 oracle.http.concurrency=48 oracle.http.answer_limit=64KiB && verdicts many 10000 --log "$work/server"
check "10,000 verdicts from a server that fails two times in ten" $?
says "malformed" "unusable answers" "server busy or failing"
check "it says what went wrong" $?

serve --faults 0.1 --seed 12 --delay 0.02
"$ask" http "$work/killed" 2000 "${usual[@]}" oracle.http.url="$url" oracle.http.concurrency=32 > "$work/log" 2>&1 &
runner=$!
for ((i = 0; i < 400; i++)); do [ "$(wc -l 2> /dev/null < "$work/killed")" -gt 300 ] 2> /dev/null && break; sleep 0.02; done
kill -KILL $runner
wait $runner 2> /dev/null
before=$(wc -l < "$work/killed")
run killed 2000 oracle.http.concurrency=32 && [ "$before" -lt 2000 ] && verdicts killed 2000 --log "$work/server" --repeats 32
check "killed after $before of 2000 verdicts and started again: it finishes, at most the requests in flight are asked again" $?

serve --delay 0.02
run plain 200 oracle.http.concurrency=4 && verdicts plain 200 --log "$work/server" --in-flight 4 --requests 200
check "without faults each item takes one request; concurrency is kept" $?
: > "$work/server"
run rate 60 oracle.http.rate=40 && verdicts rate 60 --log "$work/server" --rate 40
check "the rate is kept" $?
: > "$work/server"
code 1 run budget 100 oracle.http.budget=25 && says "budget of 25 requests" oracle.http.budget && [ "$(wc -l < "$work/budget")" -eq 25 ] &&
    [ "$(grep -c '"request"' "$work/server")" -eq 25 ]
check "the budget stops the work; what was paid for is kept" $?

serve --mode retry-after
cat > "$work/pause.py" << 'PY'
import json, sys
times = [e["t"] for e in map(json.loads, open(sys.argv[1])) if e["event"] == "request"]
assert len(times) == 9 and times[1] - times[0] >= 0.95, times[:2]
PY
run after 8 oracle.http.concurrency=1 && verdicts after 8 && python3 "$work/pause.py" "$work/server" >> "$work/log" 2>&1
check "Retry-After is honoured" $?
serve --mode wait-long
code 1 run long 8 && says 86400 oracle.http.wait_limit
check "a server that asks for a day's wait ends the work" $?
serve --mode quota
code 1 run quota 8 && says insufficient_quota "waiting does not help" && [ "$(grep -c '"request"' "$work/server")" -le 8 ]
check "a spent quota is not asked again" $?
serve --mode 401
code 1 run wrong 8 && says "HTTP 401" "Incorrect API key provided" '*****'
check "a refused key ends the work with the server's message" $?
serve --mode 400
code 1 run model 8 && says "HTTP 400" "does not exist"
check "so does an unknown model" $?
serve --mode 302
code 1 run elsewhere 8 && says "HTTP 302" "not followed"
check "redirects are not followed" $?
serve --mode down
code 1 run down 8 oracle.http.retries=2 && says "HTTP 503" "Loading model" "3 attempts"
check "a server that answers nothing ends the work" $?
serve --mode item-3-500
run poison 200 oracle.http.retries=3 && verdicts poison 200 --undecided 3 && says "1 undecided" "HTTP 500"
check "an item that the server fails on is undecided, the others are not" $?
serve --mode item-3-filtered
run filtered 50 && verdicts filtered 50 --undecided 3 && says "content_filter" && [ "$(grep -c '"item": 3, "in_flight"' "$work/server")" -eq 1 ]
check "so is one that a filter refuses, at once" $?
serve --mode item-3-huge
run huge 50 oracle.http.retries=2 && verdicts huge 50 --undecided 3 && says "more than 1048576 bytes"
check "an answer without end is cut off" $?
serve --mode logprobs
run probability 20 oracle.http.logprobs=5 && verdicts probability 20 && awk '{ if ($3 < 0.7462 || $3 > 0.7464 || $4 < 1.0785 || $4 > 1.0790) exit 1 }' "$work/probability"
check "probability and margin from log-probabilities" $? # yes: e^-0.5 + e^-3, no: e^-1.5
serve --mode tokens
run tokens 20 && says "it cut the prompt"
check "a prompt that was probably cut is told" $?

serve --mode hang
start=$(date +%s%N)
"$ask" http "$work/stopped" 50 "${usual[@]}" oracle.http.url="$url" oracle.http.timeout=30s > "$work/log" 2>&1 &
runner=$!
sleep 1
kill -TERM $runner
wait $runner
status=$?
took=$((($(date +%s%N) - start) / 1000000))
echo "exit code $status after $took ms" >> "$work/log"
[ $status -eq 75 ] && [ $took -lt 2000 ]
check "a signal stops it within a second, with requests in flight" $?

# Configuration that is refused before anything is sent.
refused() { # words of the message, --, settings
    local words=()
    while [ "$1" != -- ]; do words+=("$1"); shift; done
    shift
    code 1 timeout 20 "$ask" http "$work/none" 5 oracle.http.model=m "$@" > "$work/log" 2>&1 && says "${words[@]}" && [ ! -s "$work/none" ]
}
refused oracle.http.plain_http clear -- oracle.http.url=http://example.org/v1 && refused "user name" -- oracle.http.url=https://me:hush@example.org/v1 &&
    ! grep -q hush "$work/log" && refused "query" -- "oracle.http.url=https://h/v1?key=hush" && ! grep -q hush "$work/log" &&
    refused oracle.http.url -- oracle.http.key_env=REALIGN_TEST_KEY && refused NOT_SET_ANYWHERE "not set" -- oracle.http.url="$url" oracle.http.key_env=NOT_SET_ANYWHERE &&
    refused "not shown" -- oracle.http.url="$url" oracle.http.key_env=sk-hush-hush && ! grep -q hush "$work/log" && refused '"messages"' -- oracle.http.url="$url" 'oracle.http.extra={"messages": []}'
check "addresses, keys and requests that may not be" $?

# TLS, with a certificate that only we trust.
if command -v openssl > /dev/null; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$work/key.pem" -out "$work/cert.pem" -days 2 -subj /CN=localhost \
        -addext "subjectAltName=DNS:localhost" > "$work/log" 2>&1
    serve --cert "$work/cert.pem" --cert-key "$work/key.pem"
    port=$(cat "$work/port")
    url=https://localhost:$port/v1
    code 1 run untrusted 5 && says certificate oracle.http.ca_file && [ ! -s "$work/untrusted" ] && [ ! -s "$work/server" ]
    check "a certificate nobody trusts is refused, and nothing was sent" $?
    run trusted 50 oracle.http.ca_file="$work/cert.pem" && verdicts trusted 50
    check "with oracle.http.ca_file it is accepted" $?
    url=https://127.0.0.1:$port/v1
    code 1 run othername 5 oracle.http.ca_file="$work/cert.pem" && [ ! -s "$work/othername" ]
    check "but not for another name" $?
else
    for what in refused accepted name; do
        number=$((number + 1))
        echo "ok $number - a certificate of one's own: $what # SKIP openssl is not installed"
    done
fi

[ -s "$work/all-logs" ] && ! grep -qF "$REALIGN_TEST_KEY" "$work/all-logs" "$work"/many "$work"/plain
check "the key is in no log and no file" $?
exit $failed
