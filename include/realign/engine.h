/* The engine: micro-batches through the model with either ending of the backward pass, gradients reduced over the data dimension, the optimiser. */
#ifndef REALIGN_ENGINE_H
#define REALIGN_ENGINE_H
#include <realign/comm.h>
#include <realign/loss.h>
#include <realign/model.h>
#include <realign/timer.h>

/* ---- grid: data x pipeline. Ranks of one stage share a data communicator; today one stage holds all layers. ---- */
typedef struct {
    ra_comm world, data;
    int32_t stage, stages;
} ra_grid;
/* Collective over world. */
void ra_grid_make(const ra_comm *world, ra_grid *out);

/* ---- one rank's computation ---- */
typedef struct ra_engine ra_engine;
/* Buffers for micro-batches of at most `rows` pack rows. keep: backward passes will follow. */
ra_engine *ra_engine_new(ra_model *m, int32_t rows, bool keep, ra_timers *timers);
void ra_engine_free(ra_engine *e);
size_t ra_engine_bytes(const ra_engine *e);
/* The reference's head for Retain rows, (V, hidden) A; NULL: the model's own, frozen. */
void ra_engine_set_reference_head(ra_engine *e, const void *weight);
/* Forward over a micro-batch: fills response[].logp; with `ref_hidden` (Retain rows' normalised reference states, (head_rows - kl_first, hidden) A, backend memory) also item[].loss of
 * Retain items = eq. 3; other items' loss by `objective`. */
void ra_engine_forward(ra_engine *e, ra_microbatch *mb, const ra_objective *objective, const void *ref_hidden);
/* After ra_engine_forward on the same micro-batch: gradients of sum_i weight_i L_i, ended as `mode` says. mode->dot is by pack row. */
void ra_engine_backward(ra_engine *e, ra_microbatch *mb, const ra_objective *objective, const ra_backward *mode);
/* After ra_engine_forward: contraction, dot[i] = <tangent, grad weight_i L_i> for every item of the micro-batch. */
void ra_engine_contract(ra_engine *e, ra_microbatch *mb, const ra_objective *objective, const void *tangent_r,
                        const void *tangent_a, double *dot);
/* Per-row results of the last forward: log p and KL of every head row. */
const double *ra_engine_logp(const ra_engine *e);
const double *ra_engine_kl(const ra_engine *e);
/* Normalised final hidden states of the last forward's head rows, (head_rows, hidden) A. */
const void *ra_engine_hidden(const ra_engine *e);

/* ---- batches into micro-batches ---- */
typedef struct {
    int64_t sample;
    ra_loss_kind kind;
    double weight;
    double reference[RA_ROLES];
} ra_work; /* one sample's part in a step */

typedef struct {
    int32_t packs;
    int32_t *begin; /* (packs + 1) */
    int64_t *order; /* indices into the work list: pack p takes order[begin[p] .. begin[p + 1]), Retain items last */
} ra_packing;
/* Deals work items to packs of at most `rows` rows: at least `minimum` packs where there are as many items, balanced by rows; a pure function of its arguments,
 * whatever the rank count. `in_order` keeps the items' order and fills packs one after the other. Returns RA_ERR_DATA where one item alone does not fit. Free with ra_packing_free. */
ra_err ra_packing_make(const ra_store *store, const ra_work *work, int64_t n, int32_t rows, int32_t minimum, bool in_order,
                       ra_packing *out);
void ra_packing_free(ra_packing *p);
/* Fills mb with pack p. */
void ra_packing_fill(const ra_packing *p, int32_t pack, const ra_store *store, const ra_work *work, ra_microbatch *mb);

/* ---- the optimiser: AdamW, its state sharded over the data dimension (ZeRO-1) ---- */
typedef struct ra_optimiser ra_optimiser;
typedef struct {
    double lr, beta1, beta2, eps, weight_decay, clip; /* clip: largest gradient norm, 0: none */
    int64_t warmup_steps, total_steps;
    enum { RA_SCHEDULE_CONSTANT, RA_SCHEDULE_LINEAR, RA_SCHEDULE_COSINE } schedule;
    double min_lr_ratio;
} ra_optimiser_config;

ra_optimiser *ra_optimiser_new(ra_model *m, const ra_grid *grid, const ra_optimiser_config *config);
void ra_optimiser_free(ra_optimiser *o);
/* This rank's gradient, trainable layout, R: backward passes add to it. */
void *ra_optimiser_gradient(ra_optimiser *o);
/* Learning rate of step t (from 1): linear warm-up, then the schedule. */
double ra_learning_rate(const ra_optimiser_config *c, int64_t t);
/* Collective over grid->data. Reduces the gradient in rank order, clips, updates, shares the masters, refreshes the model, zeroes the gradient. `norm` [out]: before clipping.
 * RA_ERR_NUMERIC on a non-finite norm, on all ranks, before anything was changed. */
ra_err ra_optimiser_step(ra_optimiser *o, double *norm);
/* Collective. Reduces without updating: every rank then holds the whole summed gradient in ra_optimiser_gradient. */
void ra_optimiser_reduce(ra_optimiser *o);
int64_t ra_optimiser_steps(const ra_optimiser *o);
void ra_optimiser_set_steps(ra_optimiser *o, int64_t steps);
/* The range [begin, end) of the trainable vector whose moments this rank holds, and the moments. */
void ra_optimiser_range(const ra_optimiser *o, int64_t *begin, int64_t *end);
void *ra_optimiser_moment(ra_optimiser *o, int which); /* 0: m, 1: v; (end - begin) R */

#endif
