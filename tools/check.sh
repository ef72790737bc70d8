#!/bin/bash
# `make check`: everything about the sources that is not a test. Runs all checks and fails if one did.
# usage: tools/check.sh path-of-the-program
set -u
cd "$(dirname "$0")/.." || exit 1
realign=${1:-build/realign}
failed=0
verdict() { # status, name
    if [ "$1" -eq 0 ]; then echo "check: $2: good"; else echo "check: $2: FAILED"; failed=1; fi
}

mapfile -t c_files < <(find include src tests -name '*.[ch]' -o -name '*.cu' -o -name '*.cc' | sort)
mapfile -t scripts < <(find tools tests .ci -type f \( -name '*.sh' -o -name '*.sbatch' -o -path '.ci/run' \) | sort)

ugly=$(for file in "${c_files[@]}"; do clang-format --dry-run -Werror "$file" > /dev/null 2>&1 || echo "  $file"; done)
[ -z "$ugly" ] || echo "$ugly"
verdict "$([ -z "$ugly" ]; echo $?)" "formatting ('make format' mends it)"

tools/check-layers.sh
verdict $? "include layers"

codespell --quiet-level=2 --ignore-words=tools/codespell.words --skip='*.jsonl,*.json,*.tsv,*.txt,*.gz' \
    README.md Makefile doc include src tests tools input/*.yaml .ci
verdict $? "spelling (tools/codespell.words lists the exceptions)"

shellcheck -x "${scripts[@]}"
verdict $? "shell scripts"

if [ -x "$realign" ] && markdown=$(mktemp) && "$realign" parameters --markdown > "$markdown" 2> /dev/null; then
    diff -u doc/parameters.md "$markdown"
    verdict $? "doc/parameters.md ('$realign parameters --markdown > doc/parameters.md' mends it)"
    rm -f "$markdown"
else
    echo "$realign parameters --markdown does not work"
    verdict 1 "doc/parameters.md"
fi

long=$(wc -l "${c_files[@]}" "${scripts[@]}" | awk '$2 != "total" && $1 > 600 {print "  " $2 ": " $1 " lines; 600 are allowed"}')
[ -z "$long" ] || echo "$long"
verdict "$([ -z "$long" ]; echo $?)" "file sizes"

# The words are put together here so that this file does not contain them.
markers=$(grep -nE "\b(TO""DO|FIX""ME|XX""X|HA""CK)\b" "${c_files[@]}" "${scripts[@]}" Makefile README.md doc/*.md)
[ -z "$markers" ] || echo "$markers"
verdict "$([ -z "$markers" ]; echo $?)" "left-over markers"

exit $failed
