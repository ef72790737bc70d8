/* The engine: micro-batches through the stages of a pipeline with either ending of the backward pass, gradients reduced over the data dimension, the optimiser. */
#ifndef REALIGN_ENGINE_H
#define REALIGN_ENGINE_H
#include <realign/comm.h>
#include <realign/cost.h>
#include <realign/loss.h>
#include <realign/model.h>
#include <realign/schedule.h>
#include <realign/settings.h>
#include <realign/split.h>
#include <realign/timer.h>

/* ---- grid: data x pipeline. Rank = replica * stages + stage: the stages of a replica are neighbours. ---- */
typedef struct {
    ra_comm world;
    ra_comm data;     /* ranks of one stage, by replica */
    ra_comm pipeline; /* ranks of one replica, by stage */
    ra_comm ends;     /* first and last stage of a replica; size 0 on other ranks and where there is one stage */
    int32_t stage, stages;
} ra_grid;
/* Not collective. What ra_grid_make gives rank `rank` of `ranks`, without communicators: sizes and places alone, for plans. Nothing to free. */
ra_err ra_grid_imagine(int32_t ranks, int32_t stages, int32_t rank, ra_grid *out);
/* Collective over world. RA_ERR_ARG where `stages` does not divide the ranks. Free with ra_grid_free (collective). */
ra_err ra_grid_make(const ra_comm *world, int32_t stages, ra_grid *out);
void ra_grid_free(ra_grid *grid);
/* Not collective. A grid of this rank alone, which calls no MPI; nothing to free. */
ra_grid ra_grid_alone(void);
/* Not collective. One run of layers for this rank's stage, as long as the others' but for one layer: what inference takes, whatever the model. RA_ERR_ARG where there are more stages than layers. */
ra_err ra_grid_share(const ra_grid *grid, const ra_arch *arch, ra_part *out);
/* Collective over grid->pipeline. The same code of error on all stages: ra_comm_agree, and nothing where there is one stage. */
ra_err ra_grid_agree(const ra_grid *grid, ra_err mine);
/* Collective over grid->pipeline: stage 0 calls the others to join in something, they wait until it does. What the words mean is the callers' affair. A call does nothing where there is
 * one stage, and nobody may wait there. */
void ra_grid_call(const ra_grid *grid, int32_t word);
int32_t ra_grid_await(const ra_grid *grid);
/* Vectors in the trainable layout of a model that holds a stage's part. A tied embedding is on the first and on the last stage; what either has of its gradient is summed: collective
 * over grid->ends. Nothing where it is not tied or not trained. */
void ra_grid_sum_tied(const ra_grid *grid, const ra_model *m, void *vector);
/* Collective over grid->pipeline. |vector|^2 over all stages, each tensor once; the same on all of them. */
double ra_grid_sum_squares(const ra_grid *grid, const ra_model *m, const void *vector);

/* Not collective. From the settings: grid.data against the rank count; the layers of this rank's stage (grid.chunks, grid.layers or balanced for `work`). Errors name the key. */
ra_err ra_grid_check(const ra_settings *s, const ra_grid *grid);
ra_err ra_grid_part(const ra_settings *s, const ra_grid *grid, const ra_arch *arch, const ra_workload *work, ra_part *out);

/* How a model is laid over ranks: grid.* and what goes with it. */
typedef struct {
    int32_t ranks, stages, chunks; /* stages divides ranks */
    int32_t copies;                /* grid.data; 0: as many as there are ranks for */
    const char *layers;            /* grid.layers; "": balanced by cost */
    ra_pipeline_kind schedule;
    ra_recompute recompute;
    int32_t rows; /* pack.tokens */
} ra_grid_layout;
/* Not collective. From the settings, which must outlive it. */
ra_err ra_grid_layout_of(const ra_settings *s, int32_t ranks, ra_grid_layout *out);
/* Not collective. The layers of all virtual stages. Errors name the key. Free with ra_split_free. */
ra_err ra_grid_split(const ra_grid_layout *layout, const ra_arch *arch, const ra_workload *work, ra_split *out);
/* Not collective. A stage's part of a split. */
ra_part ra_grid_part_of(const ra_split *split, int32_t stages, int32_t stage);

/* ---- a replica's computation ---- */

/* What a pass asks of an engine's memory. */
typedef struct {
    bool backward, contracts; /* contracts: its backward pass ends in products with tangents */
    int32_t count;            /* micro-batches of this replica */
} ra_pass_shape;

typedef struct {
    int32_t rows;              /* of a micro-batch's pack, at most */
    bool keep;                 /* backward passes will follow */
    ra_pipeline_kind schedule; /* of passes with a backward */
    ra_recompute recompute;    /* not with RA_PIPELINE_ZERO_BUBBLE */
    const ra_pass_shape *
        pass; /* (passes) to come: room for them is made at once, and any other makes what it lacks when it comes; read by ra_engine_new alone */
    int32_t passes; /* 0: one that is long enough to fill the pipeline */
} ra_engine_config;

/* Bytes of backend memory that ra_engine_new takes for a model laid out so. */
typedef struct {
    int32_t slots;      /* micro-batches (of a chunk's layers) whose activations are held at once */
    int32_t inboxes;    /* receive buffers */
    size_t activations; /* of all slots, and the gradient that the head begins */
    size_t messages, head, dots;
} ra_engine_sizes;
/* Not collective. RA_ERR_ARG for settings that do not go together. */
ra_err ra_engine_sizes_of(const ra_model *m, const ra_grid *grid, const ra_engine_config *config, ra_engine_sizes *out);
/* The same in two steps, for a whole pipeline: the tables of the passes to come are made once, for all its stages. */
typedef struct {
    int32_t slots, inboxes; /* as above */
} ra_engine_room;
/* Not collective. room [out] (stages). */
ra_err ra_engine_room_of(const ra_engine_config *config, int32_t stages, int32_t chunks, ra_engine_room *room);
/* Not collective. Settings are not checked. */
ra_engine_sizes ra_engine_sizes_in(const ra_model *m, const ra_engine_config *config, const ra_engine_room *room);
/* Not collective. RA_ERR_ARG, which names the key, for settings that do not go together. */
ra_err ra_engine_check(ra_pipeline_kind schedule, ra_recompute recompute, int32_t stages, int32_t chunks);

/* One pass over micro-batches. Callbacks get `context`; those marked (last) are called on the last stage alone. */
typedef struct {
    void *context;
    int32_t count; /* micro-batches of this replica; the same on all its ranks */
    /* Fills mb with micro-batch `index`: a pure function of it, the same on all stages, called more than once. */
    void (*fill)(void *context, int32_t index, ra_microbatch *mb);
    /* (last, may be NULL) Retain rows' normalised reference states, (head_rows - kl_first, hidden) A, backend memory; NULL: none. */
    const void *(*reference)(void *context, const ra_microbatch *mb);
    /* (last, may be NULL) Log p and losses are there, the backward pass is to come. logp: of every head row; hidden: normalised final states, (head_rows, hidden) A. It may set
     * response[].reference. An error ends the pass after its last slot, so that no rank is left waiting. */
    ra_err (*scored)(void *context, int32_t index, ra_microbatch *mb, const double *logp, const void *hidden);
    /* (may be NULL) On all stages, in ascending order, after the pass: response[].logp, item[].loss; dot: what each item contributes to <tangent, grad L> where the pass contracts, else NULL. */
    ra_err (*result)(void *context, int32_t index, const ra_microbatch *mb, const double *dot);
    const ra_backward *backward; /* gradient, or both tangents (dot is not read); NULL: forward alone */
} ra_pass;

/* schedule and recompute from the settings. RA_ERR_ARG, which names the key, for settings that do not go together (ra_engine_check). */
ra_err ra_engine_configure(const ra_settings *s, ra_engine_config *config);

typedef struct ra_engine ra_engine;
/* The model must hold this rank's part. RA_ERR_ARG for settings that do not go together. */
ra_err ra_engine_new(ra_model *m, const ra_grid *grid, const ra_engine_config *config, ra_timers *timers, ra_engine **out);
void ra_engine_free(ra_engine *e);
/* The reference's head for Retain rows, (V, hidden) A; NULL: the model's own, frozen. */
void ra_engine_set_reference_head(ra_engine *e, const void *weight);
/* Collective over grid->pipeline. Losses: eq. 3 for Retain items with a reference (0 without), else by `objective`; gradients are of sum_i weight_i L_i. Returns the lowest failing stage's
 * error on all stages. */
ra_err ra_engine_run(ra_engine *e, const ra_objective *objective, const ra_pass *pass);

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

/* Bytes of backend memory that ra_optimiser_new takes on a rank of `data` for a model laid out so. */
typedef struct {
    size_t gradient, moments;
} ra_optimiser_sizes;
ra_optimiser_sizes ra_optimiser_sizes_of(const ra_model *m, const ra_comm *data);
/* Collective over grid->data. */
ra_optimiser *ra_optimiser_new(ra_model *m, const ra_grid *grid, const ra_optimiser_config *config);
void ra_optimiser_free(ra_optimiser *o);
/* This rank's gradient, trainable layout, R: backward passes add to it. */
void *ra_optimiser_gradient(ra_optimiser *o);
/* Learning rate of step t (from 1): linear warm-up, then the schedule. */
double ra_learning_rate(const ra_optimiser_config *c, int64_t t);
/* Collective over grid->world. Reduces the gradient in rank order, clips by the norm over all stages, updates, shares the masters within the stage, refreshes the model, zeroes the
 * gradient. `norm` [out]: before clipping. RA_ERR_NUMERIC on a non-finite norm, on all ranks, before anything was changed. */
ra_err ra_optimiser_step(ra_optimiser *o, double *norm);
int64_t ra_optimiser_steps(const ra_optimiser *o);
void ra_optimiser_set_steps(ra_optimiser *o, int64_t steps);
/* The range [begin, end) of the trainable vector whose moments this rank holds, and the moments. */
void ra_optimiser_range(const ra_optimiser *o, int64_t *begin, int64_t *end);
void *ra_optimiser_moment(ra_optimiser *o, int which); /* 0: m, 1: v; (end - begin) R */

#endif
