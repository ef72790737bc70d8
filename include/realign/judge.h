/* The `judge` kind of oracle: a local model is asked whether a response complies with a policy that is given as text (doc/judge.md). Its answer is one token: the verdict
 * comes from the logits of the yes and no tokens after the question. A kind as <realign/oracle.h> has it; callers deal items to the replicas of a grid. In a pipeline every stage
 * opens the judge and holds its part of the model; stage 0 judges, after it has called the others (ra_grid_call with RA_CALL_ORACLE), which answer with ops->follow.
 *
 * A margin depends on the item alone, not on what is judged beside it or before it, wherever a row of the backend's products does not depend on the other rows. */
#ifndef REALIGN_JUDGE_H
#define REALIGN_JUDGE_H
#include <realign/engine.h>
#include <realign/oracle.h>
#include <realign/settings.h>
#include <stdint.h>

/* Texts are borrowed until ra_judge_open returns. */
typedef struct {
    const char *model;                  /* a Hugging Face directory or a GGUF file */
    const char *tokenizer;              /* where it is; usually the model */
    const char *chat_template;          /* "auto": the tokenizer's own, or plain text where it has none; or a known name */
    const char *backend, *precision;    /* as ra_backend_open takes them */
    int threads;                        /* 0: as OpenMP decides */
    const ra_grid *grid;                /* copied, its communicators must outlive the oracle; NULL: this rank alone */
    const char *const *yes, *const *no; /* words; each counts as it is and after a space, where that is one token */
    int n_yes, n_no;
    int32_t max_tokens;  /* the longest text the judge reads; the model's positions bound it too */
    int32_t pack_tokens; /* rows of a pack */
    double threshold;    /* least probability of yes that complies; not part of the identity, for margins do not depend on it */
    bool (*stop)(
        void *
            context); /* asked before each item; true: end with RA_ERR_STOPPED. NULL: never. It and its context must outlive the oracle */
    void *stop_context;
    double least_share; /* of all probability that must lie on yes and no together; below: cannot tell */
} ra_judge_config;

/* The values of oracle.judge.*, backend and run.threads; texts belong to `s`. The threshold is left at 0.5: it belongs to all oracles that have probabilities. */
void ra_judge_config_read(const ra_settings *s, ra_judge_config *out);

/* What stage 0 calls the other stages of its replica to (ra_grid_call). */
enum { RA_CALL_END, RA_CALL_ORACLE, RA_CALL_CORRECTOR };

/* Opens everything but the weights, which are read when the first item is judged: with a full cache of verdicts they never are. `policy_text`: what the judge reads as the
 * policy. Errors name the key, file and what would be accepted. ops->close frees the state and logs a summary. */
ra_err ra_judge_open(const ra_judge_config *config, const char *policy_text, const ra_oracle_ops **ops, void **state);

/* What a margin depends on but for policy, prompt and response: model (contents of its files), tokenizer, backend and precision, the words of the question with the
 * template around them, answer tokens, limits. A key for caches; owned by the state. */
const char *ra_judge_identity(const void *state);

/* The answer tokens: yes tokens, then no tokens; *n of them, *n_yes the first. Owned by the state. */
const int32_t *ra_judge_answers(const void *state, int *n_yes, int *n);

/* The verdict that a margin means under a threshold: what the judge itself says, and what a cache must say. */
ra_verdict ra_judge_verdict(float margin, double threshold);

typedef struct {
    int64_t items, unjudged; /* unjudged: verdict -1 */
    int64_t cut;             /* conversations that lost their beginning to max_tokens */
    int64_t too_long;        /* unjudged for their length */
    int64_t spelled_apart;   /* texts that held special tokens, which were broken up */
    int64_t uncertain;       /* less than half of the probability on yes and no */
    int64_t without_answer;  /* unjudged: less than least_share */
    int64_t tokens, rows;    /* of all texts; and computed, what is shared once */
    double seconds;          /* in the model */
} ra_judge_counts;
ra_judge_counts ra_judge_counted(const void *state);

#endif
