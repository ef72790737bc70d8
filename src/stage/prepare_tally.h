/* What became of the rows: counts, lengths, and the first rows of every kind that cannot be used, with the reason. */
#ifndef RA_STAGE_PREPARE_TALLY_H
#define RA_STAGE_PREPARE_TALLY_H
#include "prepare_sample.h"
#include <realign/comm.h>

enum { RA_TALLY_SHOWN = 8 };

typedef struct {
    int64_t id, state;
    char why[sizeof((ra_job *)0)->why];
} ra_tally_row;

typedef struct {
    int64_t rows, state[RA_SAMPLE_STATES];
    int64_t once, twice; /* tokens of usable samples with the prompt once, and once a response */
    int64_t tokenised;   /* of all rows that were rendered */
    int64_t corrections, truncated, cut, boundary_inside_token, skips;
    int64_t over_long, repeated, identical,
        prompt_again;                   /* usable all the same: where data.truncate, .duplicates, .identical are keep */
    int64_t held_out, held_out_prompts; /* of the usable ones: rows, and prompts that come for the first time */
    int64_t prompts;                    /* different ones, of the rows that are pairs */
    int64_t longest;                    /* prompt and longest response, tokens */
    ra_tally_row first[RA_SAMPLE_STATES][RA_TALLY_SHOWN], first_repeated[RA_TALLY_SHOWN], first_identical[RA_TALLY_SHOWN];
    int64_t *usable_of; /* (n_origins) usable rows of an entry of data.path */
    int n_origins;
} ra_tally;

void ra_tally_begin(ra_tally *tally, int n_origins);
void ra_tally_free(ra_tally *tally);

/* Not collective. */
void ra_tally_add(ra_tally *tally, const ra_job *job, bool held_out);
/* Collective. Every rank gets the sums; the first rows of each kind are the global ones, by row number. */
void ra_tally_merge(ra_tally *tally, const ra_comm *comm);
/* One line an entry of data.path: rows, those drawn, those usable; free each with free, and the block with free. Of a merged tally. */
char **ra_tally_sources(const ra_tally *tally, const ra_prefdata *data);
/* Lines of the table; `seconds` is the time that rendering, tokenising and writing took. */
void ra_tally_print(const ra_tally *tally, double seconds, ra_buf *out);

#endif
