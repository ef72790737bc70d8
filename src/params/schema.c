/* THE table of every key. A new key is a row here; nothing else has to be told about it. */
#include "schema.h"

#include <string.h>

#define ANY_REAL 1e30
#define ANY_INT 9007199254740992.0 /* 2^53: whole numbers up to here are exact in double */
#define RANGE(from, to) .low = (from), .high = (to)
#define ABOVE(from, to) .low = (from), .high = (to), .above_low = true

const ra_section ra_schema_sections[] = {
    {"model", "Model"},
    {"data.path", "Preference data"},
    {"policy", "Policy and oracle"},
    {"correct.source", "Corrections"},
    {"method", "Method"},
    {"weights.enabled", "Impact weights"},
    {"lora.enabled", "Adapters"},
    {"train.epochs", "Training"},
    {"pack.tokens", "Packs"},
    {"checkpoint.every", "Checkpoints and result"},
    {"max_new_tokens", "Generation"},
    {"eval.path", "Evaluation and report"},
    {"backend", "Machine"},
    {"grid.pipeline", "Grid"},
    {"run.dir", "Run"},
};

const ra_key ra_schema[] = {
    {.name = "model",
     .type = RA_KEY_TEXT,
     .fallback = "",
     .unit = "path",
     .help = "The aligned model to begin from: a Hugging Face directory or a GGUF file."},
    {.name = "reference",
     .type = RA_KEY_TEXT,
     .fallback = "=model",
     .unit = "path",
     .help = "The frozen reference p_ref. TRACE begins at the reference, so leave it unless you know why."},
    {.name = "tokenizer",
     .type = RA_KEY_TEXT,
     .fallback = "=model",
     .unit = "path",
     .help = "Where the tokenizer is, when it is not with the model: a directory, a tokenizer's file or a GGUF file "
             "(doc/tokenizers.md)."},
    {.name = "template",
     .type = RA_KEY_TEXT,
     .fallback = "auto",
     .unit = "",
     .help = "Chat template: auto recognises the tokenizer's own; else a known name such as chatml, smollm2, qwen2.5, llama3.1 "
             "or plain (doc/templates.md has all)."},
    {.name = "template_date",
     .type = RA_KEY_TEXT,
     .fallback = "26 Jul 2024",
     .unit = "",
     .help = "The day that Llama-3.1 and 3.2 templates name in the system turn. Never the day of the run: data prepared on "
             "another day "
             "would be other data."},
#include "schema_data.h"

    {.name = "policy",
     .type = RA_KEY_TEXT,
     .fallback = "",
     .unit = "path",
     .help = "The new policy: a YAML file of rules, labels or text (doc/policies.md)."},
    {.name = "oracle.kind",
     .type = RA_KEY_LIST,
     .fallback = "auto",
     .words = "auto|rules|labels|judge|http|exec",
     .unit = "kinds",
     .help = "Who judges (doc/oracles.md): rules over the text, labels (columns of the data), judge (a local model), http (an "
             "endpoint), exec (a program); several are combined. auto takes the rules or labels that the policy file holds, "
             "else a judge."},
    {.name = "oracle.combine",
     .type = RA_KEY_WORD,
     .fallback = "all",
     .words = "all|any|majority|first",
     .unit = "",
     .help = "What several oracles make of a response: compliant where all, any, or more than half say so; first takes the first "
             "that can tell. Where those that cannot tell could change the outcome, it is undecided."},
    {.name = "oracle.threshold",
     .type = RA_KEY_REAL,
     .fallback = "0.5",
     ABOVE(0, 1),
     .unit = "probability",
     .help =
         "A judge's verdict is compliant from this probability on. Another value judges anew from the cache and asks nothing."},
    {.name = "oracle.noise",
     .type = RA_KEY_REAL,
     .fallback = "0",
     RANGE(0, 1),
     .unit = "probability",
     .help =
         "Turn each verdict of the triage round with this probability, drawn by seed and text, to study how robust the method "
         "is. The evaluation judges without it."},
    {.name = "oracle.cache",
     .type = RA_KEY_TEXT,
     .fallback = "=run.dir/verdicts",
     .unit = "path",
     .help =
         "Directory that keeps the verdicts of judges, endpoints and programs, so that nothing is asked twice; runs may share "
         "one, also at the same time."},
    {.name = "oracle.undecided_limit",
     .type = RA_KEY_INT,
     .fallback = "100",
     RANGE(0, ANY_INT),
     .unit = "responses",
     .help = "More responses than this that the oracle cannot judge end the run; fewer are counted, reported and left out."},
#include "schema_oracle.h"

#include "schema_correct.h"

    {.name = "method",
     .type = RA_KEY_WORD,
     .fallback = "trace",
     .words = "trace|dpo",
     .unit = "",
     .help = "trace: triage, impact weights, hybrid loss. dpo: plain DPO on the pairs as they are."},
    {.name = "seed",
     .type = RA_KEY_INT,
     .fallback = "1",
     RANGE(0, ANY_INT),
     .unit = "",
     .help = "Everything random derives from it: order of samples, gold batch, adapters, sampling, held-out split."},
    {.name = "beta",
     .type = RA_KEY_REAL,
     .fallback = "0.3",
     ABOVE(0, 1000),
     .unit = "",
     .help = "Strength of the implicit reward (eq. 1, 2)."},
    {.name = "alpha_kl",
     .type = RA_KEY_REAL,
     .fallback = "0.1",
     RANGE(0, ANY_REAL),
     .unit = "",
     .help = "Weight of the KL anchor on Retain samples (eq. 6)."},
    {.name = "gamma",
     .type = RA_KEY_REAL,
     .fallback = "1",
     ABOVE(0, ANY_REAL),
     .unit = "",
     .help = "The Hessian is taken as gamma times the identity (eq. 4)."},
    {.name = "invert_loss",
     .type = RA_KEY_WORD,
     .fallback = "dpo",
     .words = "dpo|ipo",
     .unit = "",
     .help = "Loss of inverted pairs: eq. 1 (dpo) or eq. 1' (ipo)."},
    {.name = "tau",
     .type = RA_KEY_REAL,
     .fallback = "0.1",
     ABOVE(0, ANY_REAL),
     .unit = "",
     .help = "IPO's tau; read only with invert_loss: ipo."},
    {.name = "npo_scale",
     .type = RA_KEY_REAL,
     .fallback = "1",
     ABOVE(0, ANY_REAL),
     .unit = "",
     .help = "Factor on the Punish loss (eq. 2); the NPO paper's own form is 2 / beta."},

    {.name = "weights.enabled",
     .type = RA_KEY_BOOL,
     .fallback = "true",
     .unit = "",
     .help = "Score conflicts by their alignment impact; false gives every conflict the same weight."},
    {.name = "weights.normalise",
     .type = RA_KEY_WORD,
     .fallback = "l1",
     .words = "l1|mean",
     .unit = "",
     .help =
         "l1: weights sum to 1 over the conflicts, as published. mean: they average 1, which makes the conflict loss stronger "
         "against the KL term by the number of conflicts."},
    {.name = "weights.parameters",
     .type = RA_KEY_WORD,
     .fallback = "full",
     .words = "full|adapter",
     .unit = "",
     .help = "The gradients that are compared: of all matrices, or of the adapters alone (at their start only B has one)."},
    {.name = "weights.direction",
     .type = RA_KEY_WORD,
     .fallback = "dot",
     .words = "dot|cosine",
     .unit = "",
     .help = "dot: eq. 5. cosine: divided by both gradient norms, which takes the sample's length out."},
    {.name = "gold.size",
     .type = RA_KEY_INT,
     .fallback = "66",
     RANGE(3, 1000000),
     .unit = "pairs",
     .help = "Size of the gold batch that gives g_J: a third each from Retain, Invert and Punish."},

    {.name = "lora.enabled",
     .type = RA_KEY_BOOL,
     .fallback = "false",
     .unit = "",
     .help = "Train low-rank adapters in place of all parameters."},
    {.name = "lora.rank", .type = RA_KEY_INT, .fallback = "32", RANGE(1, 4096), .unit = "", .help = "Rank r of the adapters."},
    {.name = "lora.alpha",
     .type = RA_KEY_REAL,
     .fallback = "16",
     ABOVE(0, ANY_REAL),
     .unit = "",
     .help = "The adapter's product is scaled by alpha / r."},
    {.name = "lora.targets",
     .type = RA_KEY_LIST,
     .fallback = "q_proj,v_proj",
     .unit = "names",
     .help =
         "Projections that carry an adapter, by their Hugging Face names: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
         "down_proj."},
    {.name = "lora.dropout",
     .type = RA_KEY_REAL,
     .fallback = "0",
     RANGE(0, 0),
     .unit = "",
     .help = "Always 0: with dropout the log-ratios would not be 0 at step 0, and no run would repeat bitwise. The key is here "
             "so that "
             "settings taken from elsewhere are refused with this reason.",
     .why = "dropout would move the model off the reference at step 0 and break bitwise repeats"},

    {.name = "train.epochs",
     .type = RA_KEY_REAL,
     .fallback = "1",
     ABOVE(0, 1000000),
     .unit = "",
     .help = "Passes over the samples; 0.5 is half of one."},
    {.name = "train.max_steps",
     .type = RA_KEY_INT,
     .fallback = "0",
     RANGE(0, ANY_INT),
     .unit = "steps",
     .help = "Stop after so many steps; 0 leaves it to the epochs."},
    {.name = "train.batch",
     .type = RA_KEY_INT,
     .fallback = "8",
     RANGE(1, 1000000),
     .unit = "samples",
     .help = "Samples an optimiser step, over all ranks; the three sets are mixed by shuffling."},
    {.name = "train.lr", .type = RA_KEY_REAL, .fallback = "1e-4", ABOVE(0, 10), .unit = "", .help = "Peak learning rate."},
    {.name = "train.warmup",
     .type = RA_KEY_INT,
     .fallback = "100",
     RANGE(0, ANY_INT),
     .unit = "steps",
     .help = "Steps of linear warm-up to the peak rate."},
    {.name = "train.schedule",
     .type = RA_KEY_WORD,
     .fallback = "cosine",
     .words = "cosine|linear|constant",
     .unit = "",
     .help = "Course of the rate after the warm-up."},
    {.name = "train.min_lr_ratio",
     .type = RA_KEY_REAL,
     .fallback = "0",
     RANGE(0, 1),
     .unit = "",
     .help = "The rate ends at this share of its peak."},
    {.name = "train.clip",
     .type = RA_KEY_REAL,
     .fallback = "1.0",
     RANGE(0, ANY_REAL),
     .unit = "",
     .help = "Longest gradient (2-norm over all parameters); 0 does not clip."},
    {.name = "train.weight_decay",
     .type = RA_KEY_REAL,
     .fallback = "0",
     RANGE(0, 10),
     .unit = "",
     .help = "Decoupled weight decay of AdamW; norms and biases are left out."},
    {.name = "train.beta1",
     .type = RA_KEY_REAL,
     .fallback = "0.9",
     RANGE(0, 0.999999),
     .unit = "",
     .help = "AdamW's decay of the first moment."},
    {.name = "train.beta2",
     .type = RA_KEY_REAL,
     .fallback = "0.999",
     RANGE(0, 0.99999999),
     .unit = "",
     .help = "AdamW's decay of the second moment."},
    {.name = "train.eps",
     .type = RA_KEY_REAL,
     .fallback = "1e-8",
     ABOVE(0, 1),
     .unit = "",
     .help = "AdamW's epsilon, added to the root of the second moment."},
    {.name = "train.stop_gradient_norm",
     .type = RA_KEY_REAL,
     .fallback = "0",
     RANGE(0, ANY_REAL),
     .unit = "",
     .help = "Stop when the gradient norm falls to this (epsilon of METHOD section 5); 0 is off."},
    {.name = "train.kl",
     .type = RA_KEY_BOOL,
     .fallback = "true",
     .unit = "",
     .help = "Anchor Retain samples by the KL term; false trains without it, for comparison."},

    {.name = "pack.tokens",
     .type = RA_KEY_INT,
     .fallback = "1024",
     RANGE(16, 16777216),
     .unit = "tokens",
     .help = "Token budget of a pack. Packs hold whole samples without padding; a longer sample gets a pack of its own."},
    {.name = "pack.minimum",
     .type = RA_KEY_INT,
     .fallback = "4",
     RANGE(1, 65536),
     .unit = "packs",
     .help = "A step's samples are dealt into at least so many packs, so that they can be shared by as many ranks without a "
             "change in "
             "the result."},

    {.name = "checkpoint.every",
     .type = RA_KEY_INT,
     .fallback = "100",
     RANGE(0, ANY_INT),
     .unit = "steps",
     .help = "Steps between checkpoints; 0 writes one at the end and at a stop only."},
    {.name = "checkpoint.keep",
     .type = RA_KEY_INT,
     .fallback = "2",
     RANGE(1, 1000000),
     .unit = "files",
     .help = "Keep the last so many checkpoints."},
    {.name = "checkpoint.keep_best",
     .type = RA_KEY_BOOL,
     .fallback = "false",
     .unit = "",
     .help = "Keep the one with the lowest loss as well."},
    {.name = "output.merge",
     .type = RA_KEY_BOOL,
     .fallback = "false",
     .unit = "",
     .help = "Write adapters merged into the model, in place of a PEFT directory."},
    {.name = "output.dtype",
     .type = RA_KEY_WORD,
     .fallback = "auto",
     .words = "auto|fp32|bf16|fp16",
     .unit = "",
     .help = "Element type of the model that is written; auto keeps that of the input (bf16 for a quantised one)."},

    {.name = "max_new_tokens",
     .type = RA_KEY_INT,
     .fallback = "128",
     RANGE(1, 1048576),
     .unit = "tokens",
     .help = "The longest response that is generated."},
    {.name = "generate.temperature",
     .type = RA_KEY_REAL,
     .fallback = "0",
     RANGE(0, 100),
     .unit = "",
     .help = "0 is greedy; else the logits are divided by it and a token is drawn."},
    {.name = "generate.top_p",
     .type = RA_KEY_REAL,
     .fallback = "1",
     ABOVE(0, 1),
     .unit = "",
     .help = "Draw from the smallest set of tokens with this total probability."},
    {.name = "generate.batch",
     .type = RA_KEY_INT,
     .fallback = "32",
     RANGE(1, 65536),
     .unit = "sequences",
     .help = "Sequences that a rank decodes at once; in a pipeline (grid.pipeline) so many in each of as many groups as there "
             "are stages; the groups take "
             "turns."},

    {.name = "eval.path",
     .type = RA_KEY_TEXT,
     .fallback = "",
     .unit = "path",
     .help = "Prompts for the evaluation, JSON Lines of any schema above or with a prompt alone; empty: the held-out rows."},
    {.name = "eval.limit",
     .type = RA_KEY_INT,
     .fallback = "0",
     RANGE(0, ANY_INT),
     .unit = "prompts",
     .help = "Use the first so many prompts; 0 uses all."},
    {.name = "eval.perplexity_path",
     .type = RA_KEY_TEXT,
     .fallback = "",
     .unit = "path",
     .help = "Neutral plain text whose perplexity is measured before and after; empty skips it."},
    {.name = "report.samples",
     .type = RA_KEY_INT,
     .fallback = "12",
     RANGE(0, 10000),
     .unit = "texts",
     .help = "Responses shown in the report, hidden until asked for."},

    {.name = "backend",
     .type = RA_KEY_WORD,
     .fallback = "auto",
     .words = "auto|ref|cpu|cuda",
     .unit = "",
     .help = "Where the operators run: ref is the slow yardstick in double precision; cuda is there in programs built with "
             "CUDA=1; auto "
             "takes the fastest there is."},
    {.name = "precision",
     .type = RA_KEY_WORD,
     .fallback = "auto",
     .words = "auto|fp32|bf16|fp64|tf32",
     .unit = "",
     .help =
         "Precision of products; master weights and sums are fp32. auto takes bf16 on GPUs, and on processors only where they "
         "multiply it natively. fp64 is for backend: ref, tf32 for backend: cuda."},

#include "schema_grid.h"

    {.name = "run.dir",
     .type = RA_KEY_TEXT,
     .fallback = "output/run",
     .unit = "path",
     .help = "The run directory. With a parameter file the default is output/NAME of it."},
    {.name = "run.threads",
     .type = RA_KEY_INT,
     .fallback = "0",
     RANGE(0, 4096),
     .unit = "threads",
     .help = "OpenMP threads a rank; 0 shares the cores of the node among its ranks (or follows OMP_NUM_THREADS)."},
    {.name = "run.wall_limit",
     .type = RA_KEY_TIME,
     .fallback = "0",
     RANGE(0, ANY_REAL),
     .unit = "seconds",
     .help = "Stop in order, with a checkpoint and exit code 75, before this much time has passed; 0 is no limit."},
    {.name = "run.stop_margin",
     .type = RA_KEY_TIME,
     .fallback = "60",
     RANGE(0, ANY_REAL),
     .unit = "seconds",
     .help = "Stop this long before the limit, so that the checkpoint can be written."},
    {.name = "run.stop_file",
     .type = RA_KEY_TEXT,
     .fallback = "=run.dir/stop",
     .unit = "path",
     .help = "The run stops in order when this file appears."},
    {.name = "run.resume",
     .type = RA_KEY_WORD,
     .fallback = "auto",
     .words = "auto|never|must",
     .unit = "",
     .help = "auto: go on from what the run directory holds, where it fits. never: begin afresh. must: refuse to begin afresh."},
    {.name = "run.log_level",
     .type = RA_KEY_WORD,
     .fallback = "info",
     .words = "quiet|info|debug",
     .unit = "",
     .help = "How much is said on stderr."},
};
const int ra_schema_count = sizeof ra_schema / sizeof *ra_schema,
          ra_schema_section_count = sizeof ra_schema_sections / sizeof *ra_schema_sections;
_Static_assert(sizeof ra_schema / sizeof *ra_schema <= RA_KEY_MOST, "raise RA_KEY_MOST");

int ra_schema_find(const char *name)
{
    for (int i = 0; i < ra_schema_count; i++) {
        if (strcmp(ra_schema[i].name, name) == 0) return i;
    }
    return -1;
}

bool ra_schema_is_group(const char *name)
{
    size_t n = strlen(name);
    for (int i = 0; i < ra_schema_count; i++) {
        if (strncmp(ra_schema[i].name, name, n) == 0 && ra_schema[i].name[n] == '.') return true;
    }
    return false;
}

const char *ra_schema_section(const char *name)
{
    for (int i = 0; i < ra_schema_section_count; i++) {
        if (strcmp(ra_schema_sections[i].first, name) == 0) return ra_schema_sections[i].title;
    }
    return NULL;
}

const char *ra_schema_nearest(const char *name)
{
    const char *names[RA_KEY_MOST];
    for (int i = 0; i < ra_schema_count; i++) names[i] = ra_schema[i].name;
    return ra_nearest_name(name, names, ra_schema_count);
}

static void add_range(const ra_key *key, const char *noun, ra_buf *out)
{
    if (key->low == key->high) {
        ra_buf_addf(out, "%g alone", key->low);
        return;
    }
    ra_buf_addf(out, "%s %s %.10g", noun, key->above_low ? "above" : "from", key->low);
    if (key->high < ANY_INT) ra_buf_addf(out, " to %.10g", key->high);
    if (key->high >= ANY_INT && !key->above_low) ra_buf_adds(out, " up");
}

static void add_words(const ra_key *key, const char *before, ra_buf *out)
{
    ra_buf_adds(out, before);
    for (const char *at = key->words; *at; at += strcspn(at, "|"), at += *at == '|') {
        ra_buf_addf(out, "%s%.*s", at == key->words ? "" : ", ", (int)strcspn(at, "|"), at);
    }
}

void ra_schema_accepted(const ra_key *key, ra_buf *out)
{
    switch (key->type) {
    case RA_KEY_TEXT: ra_buf_adds(out, "one text"); break;
    case RA_KEY_URL: ra_buf_adds(out, "an address without user name, password, query or fragment"); break;
    case RA_KEY_ENV: ra_buf_adds(out, "the name of an environment variable: capitals, digits and _"); break;
    case RA_KEY_MAP: ra_buf_adds(out, "a map {name: value, ...}"); break;
    case RA_KEY_LIST:
        ra_buf_adds(out, "one value or a list of values");
        if (key->words) add_words(key, ": ", out);
        break;
    case RA_KEY_BOOL: ra_buf_adds(out, "true or false"); break;
    case RA_KEY_INT: add_range(key, "a whole number", out); break;
    case RA_KEY_REAL: add_range(key, "a number", out); break;
    case RA_KEY_BYTES:
        add_range(key, "a size", out);
        ra_buf_adds(out, " bytes, with a unit such as 512MiB or 2GiB (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)");
        break;
    case RA_KEY_TIME: ra_buf_adds(out, "a time from 0 up, in seconds or as 10min, 1h30min or 23:59:00 (ms, s, min, h, d)"); break;
    case RA_KEY_WORD: add_words(key, "one of ", out); break;
    }
}
