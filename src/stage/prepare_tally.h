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
    int64_t longest; /* prompt and longest response, tokens */
    ra_tally_row first[RA_SAMPLE_STATES][RA_TALLY_SHOWN];
} ra_tally;

/* Not collective. */
void ra_tally_add(ra_tally *tally, const ra_job *job);
/* Collective. Every rank gets the sums; the first rows of each kind are the global ones, by row number. */
void ra_tally_merge(ra_tally *tally, const ra_comm *comm);
/* Lines of the table; `seconds` is the time that rendering, tokenising and writing took. */
void ra_tally_print(const ra_tally *tally, double seconds, ra_buf *out);

#endif
