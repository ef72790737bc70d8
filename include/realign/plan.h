/* Memory before anything is allocated: what a stage of the run will take of a backend on every rank, by the functions that allocate, and what would fit where that is too much.
 * Pure functions of shapes, not collective; the same on every rank. */
#ifndef REALIGN_PLAN_H
#define REALIGN_PLAN_H
#include <realign/engine.h>

typedef enum {
    RA_MEMORY_WEIGHTS,     /* what products read, type A */
    RA_MEMORY_MASTERS,     /* the same in R, where that is another copy or the only one */
    RA_MEMORY_VECTORS,     /* norm gains and biases */
    RA_MEMORY_ADAPTER,     /* both copies */
    RA_MEMORY_ROPE,        /* cosines and sines */
    RA_MEMORY_GRADIENT,    /* training: the gradient. weighing: g_J in R and A, and a sample's gradient for cosines */
    RA_MEMORY_MOMENTS,     /* this rank's share */
    RA_MEMORY_ACTIVATIONS, /* of the micro-batches in flight, with scratch */
    RA_MEMORY_HEAD,        /* blocks of logits */
    RA_MEMORY_MESSAGES,    /* receive buffers */
    RA_MEMORY_REFERENCE,   /* of Retain samples: states of a pack, and the head that does not move */
    RA_MEMORY_DOTS,        /* a number a row */
    RA_MEMORY_KINDS
} ra_memory_kind;
extern const char *const ra_memory_kind_name[RA_MEMORY_KINDS];

/* What a stage holds beside model and engine. */
typedef struct {
    bool updates;   /* training: gradient and moments */
    bool tangent;   /* weighing: g_J */
    bool norms;     /* weighing by cosine: the gradient of one sample */
    bool reference; /* training with Retain samples */
} ra_memory_needs;

/* Bytes of g_J, or any vector in the trainable layout: in R, and in A where that is another type (else 0). */
void ra_memory_tangent(const ra_model *m, size_t *r, size_t *a);
/* Bytes on the last stage for packs of `rows` rows (0 elsewhere): the reference's states, and its head where the model's own moves. */
void ra_memory_reference(const ra_model *m, int32_t rows, size_t *states, size_t *head);

typedef struct {
    size_t bytes[RA_MEMORY_KINDS], total;
    int32_t slots; /* ra_engine_sizes.slots */
} ra_memory_plan;
/* Of one rank: a model laid out (ra_model_lay_out), its place among the model's copies (data of ra_grid_make or ra_grid_imagine), its engine and the room of that on its stage. */
ra_memory_plan ra_memory_plan_of(const ra_model *m, const ra_comm *data, const ra_engine_config *engine,
                                 const ra_engine_room *room, const ra_memory_needs *needs);

/* ---- a whole grid ---- */

/* Micro-batches of a kind of pass, when pack and grid are not known yet. */
typedef struct {
    bool backward, contracts;
    double rows; /* that all replicas take together; packs are at least `minimum` */
    int32_t minimum;
    bool rounds; /* taken in rounds of ra_engine_round packs at most */
} ra_plan_load;
enum { RA_PLAN_LOADS = 4 };
/* Packs a replica takes between two questions whether to stop, in passes over all samples: enough to fill a pipeline. */
int32_t ra_engine_round(int32_t stages);

typedef struct {
    const ra_backend *types; /* a, r, sizes: of an open backend or ra_backend_outline */
    const ra_arch *arch;
    ra_training training;
    ra_lora_config lora; /* of RA_TRAIN_ADAPTER */
    ra_grid_layout layout;
    ra_workload work; /* but for what is trained and made again */
    ra_memory_needs needs;
    bool keep;
    int32_t longest; /* rows of the longest sample: packs of layout.rows hold it or are as large */
    int32_t positions;
    ra_plan_load load[RA_PLAN_LOADS];
    int32_t loads;
} ra_plan_request;

typedef struct {
    ra_split split;
    int32_t stages, fullest; /* fullest: the stage with most memory */
    int32_t most;            /* micro-batches of a replica in the longest pass */
    ra_memory_plan *stage;   /* (stages) of the replica that has most of the moments */
} ra_plan;
/* One rank of the request's layout, whose passes are known; the request's loads are not read. Errors name the key. */
ra_err ra_plan_rank(const ra_plan_request *request, const ra_grid *grid, const ra_pass_shape *pass, int32_t passes,
                    ra_memory_plan *out);
/* Errors name the key. Free with ra_plan_free. */
ra_err ra_plan_make(const ra_plan_request *request, ra_plan *out);
void ra_plan_free(ra_plan *plan);

/* The schedule that the request's backward passes (forward ones, where it keeps nothing) run by. */
ra_pipeline_kind ra_plan_schedule(const ra_plan_request *request);
/* FLOPs of a pack through every virtual stage, as the engine's slots take them (the head's forward pass is part of the last stage's backward slot): cost [out] (plan->split.stages), and their mean,
 * whose `stage` is cost. For ra_schedule_time. */
ra_schedule_costs ra_plan_costs(const ra_plan_request *request, const ra_plan *plan, ra_schedule_costs *cost);

/* "recompute=inputs (21.3 GiB), or lora.enabled=true recompute=full (9.10 GiB), or 4 ranks grid.pipeline=2 (19.7 GiB)": changes with which every rank stays within `limit` bytes, and what the
 * fullest rank then takes; first those that leave the result as it is ("as it is" where nothing need change), then an adapter (`adapter_key`: the setting that gives one, NULL where it may not
 * be), then more ranks. "nothing that was tried here fits" otherwise. Words after "ranks" can be given as they stand: what is set and stands in the way is undone. Appends. */
void ra_plan_suggest(const ra_plan_request *request, const char *adapter_key, size_t limit, ra_buf *out);

/* Appends "12.3 GiB", with three digits. */
void ra_plan_write_bytes(ra_buf *out, double bytes);

#endif
