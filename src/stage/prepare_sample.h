/* From a preference row to a sample: rendering, the prompt that all responses share, branches, truncation (METHOD section 8, traps 1 and 2). */
#ifndef RA_STAGE_PREPARE_SAMPLE_H
#define RA_STAGE_PREPARE_SAMPLE_H
#include <realign/prefdata.h>
#include <realign/store.h>
#include <realign/tokenizer.h>

typedef enum { RA_TRUNCATE_DROP, RA_TRUNCATE_LEFT, RA_TRUNCATE_RIGHT, RA_TRUNCATE_KEEP } ra_truncate;
ra_truncate ra_truncate_of(const char *word); /* a word of data.truncate */

typedef struct {
    const ra_template *tpl;
    int32_t bos; /* never cut off the left end of a prompt; -1: there is none */
    int64_t max_tokens;
    ra_truncate truncate;
} ra_sample_rules;

/* The token ids of one rendered response: [start, end) is the response with its closing token. */
typedef struct {
    const int32_t *id;
    int64_t start, end; /* end 0: there is no such response */
    bool closed;        /* the last one is a closing token */
    bool blank;         /* what else there is comes from the template */
} ra_branch;

/* A row that outlives its reader, and the sample made from it. */
typedef struct {
    int64_t id;
    int origin;
    uint64_t prompt_hash;
    ra_hash hash; /* of prompt and responses */
    int n_prompt;
    ra_message *message; /* (n_prompt + 1): the last one is for the response */
    const char *response[RA_ROLES];
    char *text; /* the block all strings of the row lie in */

    ra_sample sample; /* ids lie in rendered[] */
    ra_rendered rendered[RA_ROLES];
    int32_t *kept_prompt; /* where the prompt was cut after its BOS; else NULL */
    bool boundary_inside_token;
    bool over_long;    /* kept though longer than max_tokens */
    int64_t repeats;   /* the row with the same prompt and responses; -1: none comes before */
    bool identical;    /* both responses are the same text */
    bool prompt_again; /* an earlier row has the prompt */
    ra_sample_state
        without_correction; /* what the row's correction would have made of the sample, where it was left out for that; else RA_SAMPLE_OK */
    int64_t tokenised; /* tokens of all renderings */
    char why[200];     /* the sample's state is not usable, or `err` is a failure */
    ra_err err;
} ra_job;

/* Copies what the sample needs of `row`; for a row that is not RA_ROW_OK the sample is finished at once. */
void ra_job_begin(ra_job *job, const ra_row *row, ra_row_status status);
/* The sample cannot be used after all. */
void ra_job_refuse(ra_job *job, ra_sample_state state, const char *why);
/* Renders and tokenises, where the sample is not finished yet. May run in any thread; a failure is left in job->err and job->why. */
void ra_job_run(ra_job *job, const ra_sample_rules *rules);
/* Frees what the row needed; memory for renderings is kept for the next one. */
void ra_job_end(ra_job *job);
void ra_job_free(ra_job *job);

/* The sample of these branches, cut to rules->max_tokens; ids stay where they are, but for *kept_prompt. */
void ra_sample_split(const ra_branch branch[RA_ROLES], const ra_sample_rules *rules, ra_job *job);

#endif
