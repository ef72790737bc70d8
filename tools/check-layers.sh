#!/bin/bash
# Checks the include layers: a file includes only headers of its own module or of modules to its left.
#   core <- params <- tensor <- text, data, oracle <- backend <- model <- loss <- engine <- infer <- report <- stage <- main
# Also: no MPI in model and loss, no instruction-set intrinsics and no CUDA outside backend. Prints every violation with file and line.
set -u
cd "$(dirname "$0")/.." || exit 1
mapfile -t files < <(find include/realign src -name '*.[ch]' -o -name '*.cu' | sort)
awk '
BEGIN {
    n = split("core params tensor text data oracle backend model loss engine infer report stage main", order, " ")
    for (i = 1; i <= n; i++) level[order[i]] = i
    own("core", "agreement comm error file h5 hash log mem rng runctl timer version")
    own("params", "settings yamldoc")
    own("tensor", "dtype hfdir modelfile tensor")
    own("text", "tokenizer unicode")
    own("data", "prefdata store")
    own("oracle", "oracle policy verdicts chat oracle_http oracle_exec")
    own("backend", "backend pack")
    own("model", "model arch lora")
    own("loss", "loss head")
    own("engine", "engine wire gold grid optimizer optimiser checkpoint schedule cost split plan")
    own("infer", "infer generate judge score")
    own("report", "report html plot table")
    own("stage", "stage stages tools")
}
function own(module, headers,   part, k, i) {
    k = split(headers, part, " ")
    for (i = 1; i <= k; i++) owner[part[i]] = module
}
function bad(text) {
    printf "%s:%d: %s\n", FILENAME, FNR, text
    failed = 1
}
FNR == 1 {
    path = FILENAME
    if (path ~ /^src\/main\.c$/) module = "main"
    else if (path ~ /^src\//) { split(path, part, "/"); module = part[2] }
    else { name = path; sub(/.*\//, "", name); sub(/\.h$/, "", name); module = owner[name]
           if (module == "") bad("the table in tools/check-layers.sh does not say which module owns this header") }
    if (module != "" && !(module in level)) bad("unknown module " module)
}
/^[ \t]*#[ \t]*include[ \t]*<realign\// {
    header = $0; sub(/.*<realign\//, "", header); sub(/\.h>.*/, "", header)
    theirs = owner[header]
    if (theirs == "") bad("<realign/" header ".h>: the table in tools/check-layers.sh does not say which module owns it")
    else if (level[theirs] > level[module]) bad(module " includes <realign/" header ".h> of " theirs ", which stands to its right")
}
/^[ \t]*#[ \t]*include[ \t]*"/ && /\.\.\// {
    header = $0; sub(/^[^"]*"/, "", header); sub(/".*/, "", header)
    for (m in level) if (header ~ "(^|/)" m "/" && level[m] > level[module]) bad(module " includes \"" header "\" of " m)
}
(module == "model" || module == "loss") && (/MPI_[A-Z]/ || /<mpi\.h>/ || /<realign\/comm\.h>/) { bad("MPI in " module) }
module != "backend" && (/immintrin\.h|arm_neon\.h/ || /_mm(256|512)?_[a-z]/ || /__m(128|256|512)/) { bad("intrinsics outside src/backend") }
module != "backend" && /cuda_runtime|cuda_bf16|cublasLt|cudasim/ { bad("CUDA outside src/backend") }
END { exit failed }
' "${files[@]}"
