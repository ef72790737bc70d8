/* What the files of the weigh stage share. */
#ifndef RA_WEIGH_H
#define RA_WEIGH_H
#include "memory.h"
#include "run_context.h"
#include "weights_file.h"
#include <realign/gold.h>
#include <realign/runctl.h>

typedef struct {
    ra_run run;
    ra_model *m;
    ra_engine *e;
    ra_weights w;
    bool conflicts_weighed;  /* method trace with weights.enabled */
    void *target, *target_a; /* g_J, trainable layout, R and A */
    ra_gold_pair *pair;
    int64_t pairs;
    ra_runctl control;
    struct {
        int32_t conflicts, retain; /* leading packs of either pass whose results are in w.raw and w.reference */
    } done;
    bool shared; /* every rank holds all of w.raw and w.reference; before, one replica each and the others 0 */
    int hidden_fd;
    int64_t samples_done, samples; /* of this rank, for the progress line */
    double begun;
} ra_weigh;

/* weigh_gold.c. Not collective. Draws the gold batch into g->pair; packs [out]: what it fills. */
ra_err ra_weigh_draw(ra_weigh *g, int32_t *packs);
/* Collective. g_J (eq. 5) into g->target. */
ra_err ra_weigh_target(ra_weigh *g);
/* weigh_pass.c. Collective. <g_J, grad L_i> / gamma of the conflicts, log p_ref, hidden.bin; afterwards every rank holds all of g->w.raw and g->w.reference.
 * RA_ERR_STOPPED after an orderly stop: what was done is in the part file. */
ra_err ra_weigh_samples(ra_weigh *g);
/* Not collective. Adds the passes that ra_weigh_samples will run on this rank. */
ra_err ra_weigh_list_passes(const ra_weigh *g, ra_pass_list *list);
/* A pass's `scored`. theta = theta_ref: the model's own log p is the reference's. */
ra_err ra_weigh_reference_is_own(void *context, int32_t index, ra_microbatch *mb, const double *logp, const void *hidden);

/* weigh_part.c: weigh.part.h5, what a stopped weighing has done. */
/* Collective. Writes what all ranks have. */
ra_err ra_weigh_part_write(const ra_weigh *g);
/* Collective. Takes up what an earlier start with the same key left: w.raw and w.reference of all stages of replica 0 hold it, g->done is set. Nothing where there is no such file. */
ra_err ra_weigh_part_read(ra_weigh *g);
/* Rank 0. */
void ra_weigh_part_remove(const ra_weigh *g);

#endif
