/* The new policy as a programmatic oracle, pi_new(x, y) in {0, 1} (METHOD section 1). One interface for every kind; a batch goes in, verdicts come
 * out in order. The kinds here judge by text (`rules`) or by columns of the data (`labels`); judge models, endpoints and programs sit behind the same functions:
 * a kind is a table of functions, ra_oracle_ops. Not collective throughout; one thread at a time. */
#ifndef REALIGN_ORACLE_H
#define REALIGN_ORACLE_H
#include <realign/error.h>
#include <realign/policy.h>
#include <realign/prefdata.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ra_oracle ra_oracle;

typedef struct {
    const char *prompt;   /* the last user turn */
    const char *response; /* UTF-8 */
    const char *category; /* or NULL */
    const json_t *source; /* the row, or NULL when judging generated text */
    int response_index;   /* 0/1: which response_k of the row this is; -1 for generated text */
    const ra_message
        *turns; /* the conversation before the response, `prompt` being its last turn; NULL: `prompt` is all there is */
    int n_turns;
} ra_oracle_item;

typedef struct {
    int8_t compliant; /* 1 compliant, 0 not, -1 the oracle cannot tell (an error is counted by the caller) */
    int16_t
        rule; /* index of the deciding rule: the first violated one; -1 where compliant by default, or where the kind knows no rules */
    float probability; /* of compliance; 0 or 1 for programmatic kinds */
    float margin;      /* log-odds of compliance as the oracle gave them, before any threshold; 0 for programmatic kinds */
} ra_verdict;

/* ---- a kind ---- */
/* Takes the verdict on items[item] as soon as it is known, in any order, each item at most once; copies it. Called from the thread that called `judge`. */
typedef void (*ra_verdict_sink)(void *context, int item, const ra_verdict *verdict);

typedef struct {
    const char *name; /* "rules", "labels", "judge", "http", "exec" */
    bool judges_text; /* needs no row (ra_oracle_item.source) */
    bool costly;      /* verdicts are worth a cache on disk and a progress line */
    int batch;        /* items it likes to get at once; more is allowed */
    /* Judges all n items and hands every verdict to the sink. An item that could not be judged (an answer that cannot be read, even after retries) is handed over with compliant = -1,
     * never with a guess. An error ends the call: what was handed over before it stays valid. */
    ra_err (*judge)(void *state, const ra_oracle_item *items, int n, ra_verdict_sink sink, void *context);
    const char *(*problem)(const void *state); /* why the last item with -1 could not be judged; "" when there was none */
    void (*close)(void *state);
} ra_oracle_ops;

/* A kind, opened. */
typedef struct {
    const ra_oracle_ops *ops;
    void *state;
    char *identity; /* from malloc: what its verdicts depend on besides item and policy: model, endpoint, form of the prompt */
    ra_rule_names rules; /* what ra_verdict.rule points into; borrowed from the policy */
} ra_oracle_member;

/* The kinds of this layer. `policy` must outlive the member. RA_ERR_ARG where the policy lacks that body. */
ra_err ra_rules_open(const ra_policy *policy, ra_oracle_member *out);
ra_err ra_labels_open(const ra_policy *policy, ra_oracle_member *out);

/* ---- the oracle ---- */
/* Takes the policy and the members over, in every case. */
ra_err ra_oracle_new(ra_policy *policy, const ra_oracle_member *member, int n, ra_oracle **out);
void ra_oracle_close(ra_oracle *oracle);
/* n verdicts in order. An item that cannot be judged (a column is missing, a pattern hits its limit) has verdict -1 and names the
 * rule; ra_oracle_problem says why the last one could not. */
ra_err ra_oracle_judge(ra_oracle *oracle, const ra_oracle_item *items, int n, ra_verdict *verdicts);
const char *ra_oracle_problem(const ra_oracle *oracle); /* "" when there was none */
const ra_policy *ra_oracle_policy(const ra_oracle *oracle);
int ra_oracle_rule_count(const ra_oracle *oracle);
const char *ra_oracle_rule_name(const ra_oracle *oracle, int rule); /* NULL: no such rule */
const char *ra_oracle_kind(const ra_oracle *oracle);                /* "rules", "labels", "judge" ... */
/* Can it judge text alone (generations)? The labels kind cannot. */
bool ra_oracle_judges_text(const ra_oracle *oracle);
uint64_t ra_oracle_hash(const ra_oracle *oracle); /* identity for caches: kind + policy content */

#endif
