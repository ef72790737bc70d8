#!/bin/bash
# tools/check-layers.sh finds what it is there to find.
set -u
cd "$(dirname "$0")/../.." || exit 1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/tools" "$dir/include/realign" "$dir/src/core" "$dir/src/model" "$dir/src/loss"
cp tools/check-layers.sh "$dir/tools/"
echo '#include <realign/error.h>' > "$dir/include/realign/settings.h"
echo '#include <realign/settings.h>' > "$dir/src/model/layer.c"

n=0
expect() { # status, words in the output, name
    local status=0
    n=$((n + 1))
    bash "$dir/tools/check-layers.sh" > "$dir/out" 2>&1 || status=1
    if [ "$status" -eq "$1" ] && { [ -z "$2" ] || grep -qF "$2" "$dir/out"; }; then echo "ok $n - $3"; else echo "not ok $n - $3"; sed 's/^/# /' "$dir/out"; fi
}
echo "1..6"
expect 0 "" "good layers"
echo '#include <realign/settings.h>' > "$dir/src/core/wrong.c"
expect 1 "src/core/wrong.c:1: core includes <realign/settings.h> of params" "a header from the right"
printf '\n#include "../model/layer.h"\n' > "$dir/src/core/wrong.c"
expect 1 'src/core/wrong.c:2: core includes "../model/layer.h" of model' "a private header from the right"
rm "$dir/src/core/wrong.c"
echo 'int f(void) { return MPI_Barrier(c); }' > "$dir/src/loss/dpo.c"
expect 1 "src/loss/dpo.c:1: MPI in loss" "MPI where none belongs"
echo '__m512 x = _mm512_setzero_ps();' > "$dir/src/loss/dpo.c"
expect 1 "src/loss/dpo.c:1: intrinsics outside src/backend" "intrinsics where none belong"
echo '#include <realign/nobody.h>' > "$dir/src/loss/dpo.c"
expect 1 "does not say which module owns" "a header of no module"
