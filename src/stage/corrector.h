/* Who writes corrections: a column of the data, a local model, or an endpoint. One interface: candidates go in, each a row and an attempt, texts come out. A text depends on
 * question, sample and attempt alone. */
#ifndef RA_STAGE_CORRECTOR_H
#define RA_STAGE_CORRECTOR_H
#include "candidates.h"

#include <realign/engine.h>
#include <realign/policy.h>
#include <realign/prefdata.h>
#include <realign/settings.h>

typedef enum {
    RA_TEXT_WHOLE,
    RA_TEXT_CUT,    /* it ended at the limit on its length, or the question left no room for one */
    RA_TEXT_FAILED, /* the endpoint gave none */
    RA_TEXT_NONE    /* the row has none */
} ra_text_end;

typedef struct {
    ra_row *row; /* owned by the caller */
    int attempt; /* from 0 */
    char *text;  /* [out] white space at both ends cut; NULL where there is none; free with free */
    ra_text_end end;
} ra_candidate;

/* ---- the question (correct_question.c) ---- */
/* What the corrector is told: correct.prompt or the built-in instruction, the policy in its place. From malloc. RA_ERR_ARG where the policy has no words for it. */
ra_err ra_correct_instruction(const ra_settings *s, const ra_policy *policy, char **out);
/* The last user turn of the question about `row`: instruction, with show_rejected both answers, the user's message. Appends to `out`. */
void ra_correct_write_question(const char *instruction, bool show_rejected, const ra_row *row, ra_buf *out);
/* An answer as it counts: without a block of reasoning at its beginning, white space at both ends cut. *open: the reasoning does not end. */
char *ra_correct_clean_answer(const char *text, bool *open);

/* ---- a corrector ---- */
typedef struct {
    const ra_settings *s;
    const ra_grid *grid;
    const char *source; /* "column", "model", "endpoint" */
    const ra_policy *policy;
    ra_candidates *candidates;   /* NULL for a column */
    bool (*halt)(void *context); /* asked often while it works */
    void *context;
} ra_corrector_config;

typedef struct ra_corrector ra_corrector;
/* Collective over grid->world. The model is opened when a text is first asked for. */
ra_err ra_corrector_open(const ra_corrector_config *config, ra_corrector **out);
void ra_corrector_close(ra_corrector *c);
/* Stage 0's of each replica. Fills text and end of all n: from the candidates that are known, else asked for. RA_ERR_STOPPED where `halt` said so: what was finished is kept in the
 * candidates. */
ra_err ra_corrector_write(ra_corrector *c, ra_candidate *candidate, int n);
/* On the other stages, once they were called with RA_CALL_CORRECTOR: takes part in one call of ra_corrector_write that asks a local model. */
ra_err ra_corrector_follow(ra_corrector *c);
const char *ra_corrector_name(const ra_corrector *c); /* for people, without a key: "model /path" */
const char *
ra_corrector_identity(const ra_corrector *c);  /* what its texts depend on besides sample and attempt; the same on all ranks */
int ra_corrector_batch(const ra_corrector *c); /* candidates it likes to get at once */
int64_t ra_corrector_asked(const ra_corrector *c);       /* candidates that were not known, so far */
const char *ra_corrector_problem(const ra_corrector *c); /* why an endpoint gave no text, the last time; "" when it always did */

#endif
