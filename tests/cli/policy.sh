#!/bin/bash
# realign policy check at the shell: the shipped policies agree with their examples, a disagreement is told and gives exit code 1, texts stay hidden.
set -u
cd "$(dirname "$0")/../.." || exit 1
REALIGN=${REALIGN:-build/realign}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

number=0 failed=0
check() { # description, exit status of what was tried
    number=$((number + 1))
    if [ "$2" -eq 0 ]; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1"
        sed 's/^/# /' "$work/log"
        failed=1
    fi
}
ends() { # wanted exit code, words of the command; the output is in log
    local wanted=$1 code
    shift
    "$REALIGN" "$@" > "$work/log" 2>&1
    code=$?
    echo "exit code $code" >> "$work/log"
    [ $code -eq "$wanted" ]
}
says() { # parts that the log must hold
    local part
    for part in "$@"; do grep -qF -- "$part" "$work/log" || return 1; done
}

cat > "$work/mixed.yaml" <<'YAML'
name: mixed
rules:
  - {name: no-shouting, forbid: {contains: HEY, ignore_case: false}}
examples:
  - {prompt: greet, response: "HEY you", compliant: false}
  - {prompt: greet, response: "hello secret-words", compliant: false, why: it should be warmer}
  - {prompt: greet, response: "good day", compliant: true}
YAML
cat > "$work/labels.yaml" <<'YAML'
name: labelled
labels: {forbid: [{name: drugs, harm: Drugs}]}
examples:
  - {prompt: p, response: r, compliant: false, harm: Drugs}
  - {prompt: p, response: r, compliant: true}
YAML
printf 'name: broken\nrulez: []\nexamples:\n  - {prompt: p}\n' > "$work/broken.yaml"

echo "1..9"
ends 0 policy check input/policies/pku_old.yaml && says "5 agree, 0 disagree" &&
    ends 0 policy check input/policies/pku_new.yaml && says "9 agree, 0 disagree, 0 undecided, 0 not judged"
check "the shipped policy shift agrees with its examples" $?
ends 1 policy check "$work/mixed.yaml" && says "2 agree, 1 disagree" "DISAGREES" "why: it should be warmer" "1 of 3 examples come out otherwise"
check "a disagreement gives exit code 1 and its reason" $?
! says "secret-words" && ends 1 policy check --show-text "$work/mixed.yaml" && says "secret-words"
check "texts are hidden unless asked for" $?
ends 0 policy check "$work/labels.yaml" && says "1 agree" "1 not judged" "neither \`harm:\` nor \`columns:\`"
check "an example without columns is passed over and counted" $?
ends 1 policy check "$work/broken.yaml" && says "broken.yaml:2: rulez" "broken.yaml:4: examples[1]: no response"
check "all mistakes of a file at once" $?
ends 1 policy check "$work/labels.yaml" oracle.kind=rules && says "has no \`rules:\`; it holds \`labels:\`"
check "a kind that the file does not serve" $?
ends 1 policy check && says "usage: realign policy check" && ends 1 policy verify "$work/mixed.yaml" && says "usage:" &&
    ends 1 policy check "$work/mixed.yaml" oracle.knd=rules && says "oracle.kind"
check "mistakes of the command line" $?
ends 1 policy check "$work/mixed.yaml" "oracle.kind=[rules, rules]" && says "rules is listed twice" &&
    ends 1 policy check "$work/mixed.yaml" "oracle.kind=[auto, rules]" && says "auto stands alone"
check "combinations that make no sense" $?
mkdir "$work/cache" && head -c 100 /dev/zero > "$work/cache/x.verdicts" && ends 0 inspect "$work/cache" &&
    says "cache of verdicts" "0 segments, 0 records" "1 foreign files"
check "inspect of a cache" $?
exit $failed
