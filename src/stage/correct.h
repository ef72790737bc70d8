/* What the files of the stage `correct` share. */
#ifndef RA_STAGE_CORRECT_H
#define RA_STAGE_CORRECT_H
#include "corrections.h"
#include "corrector.h"
#include "prepare_sample.h"

#include <realign/comm.h>

/* Sums over the ranks. */
typedef struct {
    int64_t pairs, outcome[RA_CORRECTION_OUTCOMES];
    int64_t candidates, asked, judged, compliant, undecided; /* asked: candidates that were not known */
} ra_correct_counts;

/* Results of one rank: rows of different sizes behind one another. */
typedef struct {
    ra_buf bytes;
    ra_correct_counts counts; /* `asked` is left to the corrector */
} ra_correct_results;

/* ---- checks (correct_check.c) ---- */
typedef struct {
    const char *dir; /* for messages */
    const ra_store *store;
    ra_sample_rules rules;
    ra_oracle *oracle;
    bool judges; /* it can judge texts that are not in the data */
    ra_job *job; /* (as many as are checked at once) */
} ra_correct_checker;

/* Not collective. outcome [out] (n): RA_CORRECTION_USED where the candidate fits and complies: then job[i].sample is the sample with it, until ra_job_end. verdict [out] (n): compliant
 * -1 and NaN where the oracle was not asked. RA_ERR_DATA where a row gives other tokens than the store holds. */
ra_err ra_correct_check(const ra_correct_checker *c, ra_candidate *candidate, int n, ra_correction_outcome *outcome,
                        ra_verdict *verdict, ra_correct_counts *counts);

/* ---- results (correct_results.c) ---- */
/* Adds a pair whose fate is known. `sample`: where it is corrected, else NULL; `text`: of the last candidate, or NULL; `rule`: name of the rule that decided, or NULL. */
void ra_correct_add(ra_correct_results *r, ra_correction_row *row, const ra_sample *sample, const ra_row *pair, const char *text,
                    const char *source, const char *rule);
/* Collective. Brings all results to rank 0, in ascending ids: *out (n = 0 on the others), and the lines of corrections.jsonl. */
void ra_correct_gather(const ra_comm *comm, ra_correct_results *mine, ra_corrections *out, ra_buf *lines);
/* Collective. */
void ra_correct_sum(const ra_comm *comm, ra_correct_counts *counts);
void ra_correct_table(const ra_correct_counts *counts, ra_buf *out);

#endif
