/* weights.h5 and hidden.bin: what weighing leaves for training. */
#ifndef RA_WEIGHTS_FILE_H
#define RA_WEIGHTS_FILE_H
#include "run_context.h"
#include <realign/file.h>

typedef struct {
    int64_t n;
    double *raw;       /* (n) <g_J, grad L_i> / gamma; NaN where the sample is no conflict */
    double *weight;    /* (n) normalised; 0 where the sample is no conflict */
    double *reference; /* (n, RA_ROLES) log p_ref; NaN where it was not needed */
    int32_t *length;   /* (n, RA_ROLES) scored tokens */
    int64_t *hidden;   /* (n) first row in hidden.bin of a Retain sample's y_w; -1 elsewhere */
    int64_t hidden_rows, hidden_bytes;
    double average /* weight of a conflict */, length_correlation, target_norm, self_check;
    int64_t conflicts, positive, gold;
    uint64_t key;
} ra_weights;

ra_weights ra_weights_new(int64_t n);
void ra_weights_free(ra_weights *w);
/* Collective. */
ra_err ra_weights_write(const ra_run *run, const ra_weights *w);
/* Collective in its errors; every rank reads. RA_ERR_DATA where the weights were made from other data or settings. */
ra_err ra_weights_read(const ra_run *run, ra_weights *w);
/* Not collective. True when dir/weights.h5 was made from the same `key` and hidden.bin is as long as it says. */
bool ra_weights_up_to_date(const ra_run *run, uint64_t key);
/* Hash of what the weights depend on: data, triage, model and the settings that enter them. */
uint64_t ra_weights_key(const ra_run *run);
#endif
