/* steps.tsv: one row a step, and the progress line. */
#ifndef RA_TRAIN_LOG_H
#define RA_TRAIN_LOG_H
#include "run_context.h"
#include <stdio.h>

/* Sums over the samples of a step, reduced over ranks. */
typedef struct {
    double loss; /* of eq. 6: weights included */
    double tokens;
    double count[RA_ACTIONS], sum[RA_ACTIONS]; /* samples and unweighted losses by action; Retain: KL */
    double margin[RA_ACTIONS], correct[RA_ACTIONS];
    double drift; /* log p_theta - log p_ref of y_w of Retain samples */
} ra_step_sums;

/* Adds a computed micro-batch. Margins: Invert r(y_l) - r(y_w), pair r(y_w) - r(y_l), Punish -(r(y_w) + r(y_l)) / 2 or r(y_c) - r(y_w); correct where positive. */
void ra_step_sums_add(ra_step_sums *sums, const ra_run *run, const ra_microbatch *mb);

typedef struct {
    FILE *file; /* rank 0 */
    char *path;
    double last_norm; /* gradient norm of the last row that was kept; NaN: none */
} ra_steps_file;

/* Rank 0. Opens dir/steps.tsv with the rows up to `step` kept (0: anew). */
ra_err ra_steps_open(const ra_run *run, int64_t step, ra_steps_file *out);
typedef struct {
    int64_t step, epoch, samples;
    double lr, norm, seconds;
} ra_step_info;
/* Writes and flushes a row. Every column but the last two is bitwise repeatable for a layout. */
ra_err ra_steps_write(ra_steps_file *f, const ra_step_info *info, const ra_step_sums *sums);
void ra_steps_close(ra_steps_file *f);
#endif
