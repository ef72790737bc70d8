/* What the evaluation measures, and evaluate.h5 that holds it. */
#ifndef RA_STAGE_EVALUATE_H
#define RA_STAGE_EVALUATE_H
#include "responses.h"
#include "statistics.h"

enum { RA_BEFORE, RA_AFTER, RA_SIDES };

/* How far the trained model moved from the reference on the preferred responses of Retain samples: log p_theta(y_w|x) - log p_ref(y_w|x). */
typedef struct {
    int64_t n;             /* Retain samples */
    int64_t *sample;       /* (n) ids */
    double *reference;     /* (n) log p_ref(y_w|x) */
    double *trained;       /* (n) log p_theta(y_w|x) */
    int32_t *tokens;       /* (n) scored tokens */
    double mean;           /* of the difference, nat a sample */
    double mean_per_token; /* sum of differences / sum of tokens, nat */
    double mean_absolute;  /* of |difference|, nat a sample */
} ra_drift;

typedef struct {
    const ra_settings *s;
    const ra_comm *world;
    ra_grid grid;
    ra_oracle *oracle;
    ra_timers *timers;
    bool trained; /* is there an "after"? */
    ra_side side[RA_SIDES];
    ra_prompts prompts;
    ra_answers answers[RA_SIDES];
    ra_share tpa[RA_SIDES];
    ra_change change;
    int64_t *violations[RA_SIDES]; /* (rules) answers each rule decided against */
    int categories;
    const char **category;            /* (categories) in order of first appearance; borrowed from the prompts */
    int32_t *category_of;             /* (prompts) index, -1: none */
    ra_share *category_tpa[RA_SIDES]; /* (categories) */
    ra_change *category_change;       /* (categories) */
    ra_drift drift;
    bool has_drift, has_perplexity;
    ra_perplexity perplexity[RA_SIDES];
} ra_evaluation;

/* Perplexity is measured on chunks of so many tokens, each scored from its second token on (realign/infer.h). */
enum { RA_PERPLEXITY_WINDOW = 512 };

/* evaluate_drift.c. Collective. Retain samples come from the sample store and triage.h5 in run.dir, log p_ref from weights.h5 where it is there, else from the model. Without
 * a store or triage nothing is measured, and a line says so. */
ra_err ra_evaluate_drift(ra_evaluation *e);
void ra_drift_free(ra_drift *d);
/* evaluate_file.c. Collective. run.dir/evaluate.h5. */
ra_err ra_evaluation_write(const ra_evaluation *e);
/* evaluate_file.c. The tables for the log. */
void ra_evaluation_table(const ra_evaluation *e, ra_buf *out);

#endif
