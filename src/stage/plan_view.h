/* What `realign plan` knows, and how it is shown. */
#ifndef RA_STAGE_PLAN_VIEW_H
#define RA_STAGE_PLAN_VIEW_H
#include "memory.h"

typedef struct {
    ra_plan_request request;
    ra_plan plan;
    double rows, flops,
        work; /* rows of packs, necessary FLOPs, all FLOPs: of a step; of weighing all samples, or a mean one where nothing is prepared */
    ra_pipeline_kind kind;
    int32_t micro_batches;         /* of a replica in its longest pass */
    double theory, bubble;         /* for even stages; with this split's costs */
    ra_schedule_costs *cost, mean; /* (virtual stages) FLOPs of a pack */
} ra_plan_stage;

typedef struct {
    const ra_settings *s;
    int32_t ranks;
    ra_arch arch;
    ra_backend types;
    ra_run run;           /* its data, or what stands in for them */
    bool prepared;        /* there is a store */
    const char *guess;    /* what is made up, in words; NULL: nothing */
    ra_buf files;         /* where the data are not prepared: their files */
    double samples, rows; /* that train, and their rows; made up where `prepared` is not so: only their ratio means something */
    double steps,
        epoch_flops; /* of an epoch of training, at most: conflicts of weight 0 will be left out; 0 where nothing is prepared */
    ra_plan_stage stage[RA_MEMORY_STAGES];
    size_t limit;      /* 0: none */
    const char *whose; /* the limit's name */
    ra_buf fits;       /* what would fit, where a stage does not */
} ra_plan_view;

/* True when every rank stays within the limit, or there is none. */
bool ra_plan_view_fits(const ra_plan_view *v, ra_memory_stage stage);
/* Appends the text for a terminal. */
void ra_plan_view_text(const ra_plan_view *v, ra_buf *out);
ra_err ra_plan_view_json(const ra_plan_view *v, const char *path);

#endif
