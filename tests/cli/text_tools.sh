#!/bin/bash
# realign tokenize and realign template: a line in, a line out, in order; a bad line ends with its number; what is unknown is named.
set -u
model=$SHARED/data/models/smollm2
echo "1..11"
skip=
[ -f "$model/tokenizer.json" ] || skip="no $model"
if [ -n "$skip" ]; then
    for i in 1 2 3 4 5 6 7 8 9 10 11; do echo "ok $i - text tools # SKIP $skip"; done
    exit 0
fi
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0
# Feeds standard input to the tool; status 0 or 1, the very lines on stdout, words on stderr.
expect() { # status, stdout, words in stderr, name, arguments ...
    local want_status=$1 want_out=$2 want_err=$3 name=$4 status=0
    shift 4
    n=$((n + 1))
    "$REALIGN" "$@" > "$dir/out" 2> "$dir/err" || status=1
    if [ "$status" -eq "$want_status" ] && [ "$(cat "$dir/out")" = "$want_out" ] &&
        { [ -z "$want_err" ] || grep -qF -- "$want_err" "$dir/err"; }; then
        echo "ok $n - $name"
    else
        echo "not ok $n - $name"
        sed 's/^/# /' "$dir/out" "$dir/err"
    fi
}
expect 0 $'[19556,905]\n[]\n[2]' "" "ids of three lines" tokenize --model "$model" < <(printf '"Hello world"\n""\n"<|im_end|>"\n')
expect 0 "[44,108,306,79,486,108,46]" "" "special text as plain text" tokenize --model "$model" --no-parse-special < <(printf '"<|im_end|>"\n')
expect 0 $'"Hello world"\n"<|im_end|>"' "" "decoding" tokenize --decode --model "$model" < <(printf '[19556,905]\n[2]\n')
expect 1 "[81]" "line 2" "a line that is not JSON" tokenize --model "$model" < <(printf '"a"\n{\n"b"\n')
expect 1 "" "--no-parse-special" "an unknown option names those there are" tokenize --model "$model" --plain < <(printf '"a"\n')
expect 0 '{"text":"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n","ids":[1,4093,198,26843,2,198,1,520,9531,198,10539,30,2,198],"response_start":10,"response_end":13}' \
        "" "a conversation and its response" template --model "$model" --template chatml < <(printf '{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Yes."}],"add_generation_prompt":false}\n')
printf '{"messages":[{"role":"user","content":"Hi"}]}\n{"messages":[{"role":"user"}]}\n' > "$dir/in"
expect 1 '{"text":"<|im_start|>user\nHi<|im_end|>\n","ids":[1,4093,198,26843,2,198],"response_start":null,"response_end":null}' \
    "line 2" "a message without content" template --model "$model" --template chatml < "$dir/in"
expect 1 "" "llama3.1" "an unknown template names the known ones" template --model "$model" --template vicuna < /dev/null
expect 0 $'{"error":"message 2 has role \\"critic\\", which the template alpaca does not know; accepted: user, assistant, and system in front"}\n{"text":"### Instruction:\\nHi\\n\\n","ids":[3757,20880,42,198,26843,1116],"response_start":null,"response_end":null}' \
    "" "a refused conversation does not end the others" template --model "$model" --template alpaca --keep-going < <(printf \
    '{"messages":[{"role":"user","content":"Hi"},{"role":"critic","content":"x"}]}\n{"messages":[{"role":"system","content":""},{"role":"user","content":"Hi"}]}\n')
expect 1 "" "<|start_header_id|>" "a template whose tokens are not there" template --model "$model" --template llama3.1 < /dev/null
expect 1 "" "writes no date" "a date for a template without one" template --model "$model" --date "1 Jan 2031" < /dev/null
exit 0
