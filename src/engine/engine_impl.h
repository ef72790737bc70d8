/* What the engine's files share. */
#ifndef RA_ENGINE_IMPL_H
#define RA_ENGINE_IMPL_H
#include <realign/wire.h>
#include <realign/engine.h>

/* What a pass leaves of a micro-batch. */
typedef struct {
    int32_t items, responses;
    double *logp, *loss, *dot; /* (responses), (items), (items); one block */
} ra_outcome;

struct ra_engine {
    ra_model *m;
    const ra_grid *grid;
    ra_engine_config config;
    ra_timers *timers;
    ra_schedule schedule; /* of the last pass */
    int32_t slots;        /* of activations, each with its micro-batch */
    ra_activations *acts;
    ra_microbatch **mb; /* (slots) */
    ra_wire *wire;
    int32_t inboxes;
    ra_head *head; /* on the last stage */
    const void *ref_head;
    void *dx;                        /* (rows, hidden) R: the gradient that the head begins */
    void *row_dot;                   /* (rows) double, backend memory */
    double *logp, *kl, *coefficient; /* (head rows) */
    double *host_dot;                /* (rows) */
    ra_outcome *outcome;             /* (count of the pass) */
    ra_err err;                      /* the first of the pass's callbacks that failed */
    char *why;
};

/* engine_sizes.c */
/* The schedule of a pass. */
ra_pipeline_kind ra_engine_kind(const ra_engine_config *config, const ra_pass_shape *pass);
ra_keeping ra_engine_keeping(const ra_engine_config *config, int32_t slots);
/* Of the residual stream of a pack, which stages send each other. */
size_t ra_engine_stream_bytes(const ra_model *m, int32_t rows);

/* slots.c: what one slot of a schedule computes. */
void ra_engine_forward(ra_engine *e, const ra_pass *pass, const ra_slot *slot, const ra_objective *objective);
void ra_engine_backward(ra_engine *e, const ra_pass *pass, const ra_slot *slot, const ra_objective *objective);
void ra_engine_backward_weight(ra_engine *e, const ra_pass *pass, const ra_slot *slot);

#endif
