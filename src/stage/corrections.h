/* Corrections y_c of Punish pairs (METHOD eq. 2c): what the stage `correct` leaves in the run directory, and how weighing and training come to see it. */
#ifndef RA_STAGE_CORRECTIONS_H
#define RA_STAGE_CORRECTIONS_H
#include <realign/oracle.h>
#include <realign/settings.h>
#include <realign/store.h>
#include <stdint.h>

/* What became of a Punish pair: corrected, or why it fell back to eq. 2; values of the dataset /outcome. */
typedef enum {
    RA_CORRECTION_USED,
    RA_CORRECTION_EMPTY, /* no text, or none that gives a token to score */
    RA_CORRECTION_TOO_LONG, /* cut at correct.max_new_tokens, or it does not fit data.max_tokens; or the question does not fit the corrector */
    RA_CORRECTION_REFUSED,   /* the oracle: not compliant */
    RA_CORRECTION_UNDECIDED, /* the oracle cannot tell */
    RA_CORRECTION_FAILED,    /* the endpoint did not answer */
    RA_CORRECTION_MISSING,   /* the row has no correction */
    RA_CORRECTION_OUTCOMES
} ra_correction_outcome;
/* "corrected", "empty", "too long", "not compliant", "undecided", "endpoint failed", "none in the data". */
const char *ra_correction_outcome_name(ra_correction_outcome outcome);

/* Of a Punish pair. prompt_count, cut, count and skip are those of a sample (realign/store.h) that has the correction; 0 where the pair fell back. */
typedef struct {
    int64_t id;
    int32_t prompt_count, cut, count[RA_ROLES], skip[RA_ROLES];
    float probability, margin; /* of the last candidate that was judged; NaN: none was */
    int16_t rule;              /* that decided over it; -1: none */
    int8_t verdict;            /* on it: 1 compliant, 0 not, -1 undecided or none */
    int8_t outcome;            /* ra_correction_outcome, of the last candidate */
    int8_t attempts;           /* candidates that were tried */
} ra_correction_row;

typedef struct {
    int64_t n;
    ra_correction_row *row; /* (n) ascending in id; from malloc */
    int32_t *
        token; /* (tokens) of the pairs that are used, side by side in the order of the rows: prompt, y_w, y_l, y_c; from malloc */
    int64_t tokens;
} ra_corrections;
void ra_corrections_free(ra_corrections *c);

/* ---- what a run uses (corrections.c) ---- */
/* correct.source, with `auto` resolved by what the store holds: "none", "column", "model" or "endpoint". */
const char *ra_corrections_source(const ra_settings *s, const ra_store *store);
/* Of what must be the same when corrections are used as when they were made: samples, actions (n), triage and the settings that say how they are made. `store`: as it was opened. */
uint64_t ra_corrections_key(const ra_settings *s, const ra_store *store, const int8_t *action, const char *triage_key);
/* Not collective. From here on the store shows the corrections that may be used: those of dir/corrections.h5 that the oracle found compliant; none with source none, or where no pair is
 * punished. RA_ERR_IO where the file is missing, RA_ERR_DATA where it was made from something else. */
ra_err ra_corrections_apply(const ra_settings *s, const char *dir, ra_store *store, const int8_t *action, const char *triage_key);

/* ---- corrections.h5 (corrections_file.c) ---- */
typedef struct {
    const char *dir, *used_yaml;
    const char *source, *corrector; /* who wrote them, in words */
    const char *depends_on;         /* what the stage made them from, one line */
    uint64_t key;                   /* ra_corrections_key */
    const ra_oracle *oracle;        /* NULL: without names of rules */
    int64_t candidates, judged, compliant;
} ra_corrections_about;

/* Not collective: one rank writes. n > 0. */
ra_err ra_corrections_write(const ra_corrections_about *about, const ra_comm *comm, const ra_corrections *c);
/* Not collective. Checks checksums and bounds. */
ra_err ra_corrections_read(const char *dir, ra_corrections *out, uint64_t *key);
/* Not collective. Is there a sound corrections.h5 with this line, and a corrections.jsonl? Otherwise `why` says what is not so. */
bool ra_corrections_are_current(const char *dir, const char *depends_on, ra_buf *why);

#endif
