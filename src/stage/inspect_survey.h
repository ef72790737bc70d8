/* What `realign inspect` finds in preference data: counts, lengths, problems, and how they are printed. */
#ifndef RA_STAGE_INSPECT_SURVEY_H
#define RA_STAGE_INSPECT_SURVEY_H
#include "prepare_sample.h"
#include "triage.h"

enum { RA_SURVEY_BUCKETS = 24, RA_SURVEY_TURNS = 12, RA_SURVEY_SHOWN = 8, RA_SURVEY_BATCH = 1024 };
enum { RA_TEXT_PROMPT, RA_TEXT_CHOSEN, RA_TEXT_REJECTED, RA_TEXTS };

/* A histogram over powers of two for each of the texts of a row. */
typedef struct {
    int64_t bucket[RA_TEXTS][RA_SURVEY_BUCKETS]; /* [k]: lengths 2^(k-1) to 2^k - 1; [0]: none */
    int64_t longest[RA_TEXTS], total[RA_TEXTS], rows;
} ra_lengths;

/* Rows with one thing in common: how many, and the first of them. */
typedef struct {
    int64_t n, row[RA_SURVEY_SHOWN];
    char *why[RA_SURVEY_SHOWN]; /* or NULL */
} ra_survey_rows;

typedef struct {
    bool show_text;
    double held_out_share;
    ra_lengths characters, tokens;
    int64_t turns[RA_SURVEY_TURNS + 1]; /* by messages of the prompt; the last one: so many or more */
    int64_t rows, corrections, without_category, good, bad, prompts, held_out, held_out_prompts;
    ra_survey_rows problem[RA_PROBLEMS], identical, repeated;
    ra_category_list categories;
    int64_t in_category[RA_MOST_CATEGORIES];
    int64_t *usable_of; /* by entry of data.path */
    char *keys;         /* columns of the first usable row */
    ra_buf examples;
    ra_duplicates *seen, *seen_prompts;
    ra_hash hash[RA_SURVEY_BATCH], prompt[RA_SURVEY_BATCH]; /* of rows that were not looked up yet */
    int64_t id[RA_SURVEY_BATCH];
    bool is_held_out[RA_SURVEY_BATCH];
    int waiting;
} ra_survey;

void ra_survey_begin(ra_survey *v, int n_origins);
void ra_survey_free(ra_survey *v);
/* Any row. `sample`: its tokens, or NULL. */
void ra_survey_add(ra_survey *v, const ra_row *row, ra_row_status status, bool held_out, const ra_sample *sample);
/* Prints it; `name` is what was inspected. */
void ra_survey_print(ra_survey *v, const char *name, const ra_prefdata *data);

#endif
