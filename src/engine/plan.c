/* The memory of one rank, and of a grid. */
#include <realign/mem.h>
#include <realign/plan.h>

#include <math.h>

const char *const ra_memory_kind_name[RA_MEMORY_KINDS] = {
    [RA_MEMORY_WEIGHTS] = "weights",     [RA_MEMORY_MASTERS] = "masters",
    [RA_MEMORY_VECTORS] = "vectors",     [RA_MEMORY_ADAPTER] = "adapter",
    [RA_MEMORY_ROPE] = "rope",           [RA_MEMORY_GRADIENT] = "gradient",
    [RA_MEMORY_MOMENTS] = "moments",     [RA_MEMORY_ACTIVATIONS] = "activations",
    [RA_MEMORY_HEAD] = "head",           [RA_MEMORY_MESSAGES] = "messages",
    [RA_MEMORY_REFERENCE] = "reference", [RA_MEMORY_DOTS] = "dots",
};

void ra_memory_tangent(const ra_model *m, size_t *r, size_t *a)
{
    size_t n = (size_t)ra_model_trainable(m)->size;
    *r = n * m->b->r_size;
    *a = m->b->a == m->b->r ? 0 : n * m->b->a_size;
}

void ra_memory_reference(const ra_model *m, int32_t rows, size_t *states, size_t *head)
{
    size_t row = (size_t)m->arch.hidden * m->b->a_size;
    *states = m->last ? (size_t)rows * row : 0;
    *head = m->last && m->training == RA_TRAIN_FULL ? (size_t)m->arch.vocabulary * row : 0;
}

ra_err ra_memory_plan_make(const ra_model *m, const ra_grid *grid, const ra_engine_config *engine, const ra_memory_needs *needs,
                           ra_memory_plan *out)
{
    ra_engine_sizes e;
    RA_TRY(ra_engine_sizes_of(m, grid, engine, &e));
    const ra_model_sizes s = ra_model_sizes_of(m);
    *out = (ra_memory_plan){.bytes = {[RA_MEMORY_WEIGHTS] = s.weights,
                                      [RA_MEMORY_MASTERS] = s.masters,
                                      [RA_MEMORY_VECTORS] = s.vectors,
                                      [RA_MEMORY_ADAPTER] = s.adapter_masters + s.adapter,
                                      [RA_MEMORY_ROPE] = s.rope,
                                      [RA_MEMORY_ACTIVATIONS] = e.activations,
                                      [RA_MEMORY_HEAD] = e.head,
                                      [RA_MEMORY_MESSAGES] = e.messages,
                                      [RA_MEMORY_DOTS] = e.dots},
                            .slots = e.slots};
    size_t r, a;
    ra_memory_tangent(m, &r, &a);
    if (needs->tangent) out->bytes[RA_MEMORY_GRADIENT] += r + a;
    if (needs->norms) out->bytes[RA_MEMORY_GRADIENT] += r;
    if (needs->updates) {
        const ra_optimiser_sizes o = ra_optimiser_sizes_of(m, &grid->data);
        out->bytes[RA_MEMORY_GRADIENT] += o.gradient;
        out->bytes[RA_MEMORY_MOMENTS] = o.moments;
    }
    if (needs->reference) {
        ra_memory_reference(m, engine->rows, &r, &a);
        out->bytes[RA_MEMORY_REFERENCE] = r + a;
    }
    for (int k = 0; k < RA_MEMORY_KINDS; k++) out->total += out->bytes[k];
    return RA_OK;
}

int32_t ra_engine_round(int32_t stages)
{
    return stages == 1 ? 1 : 8 * stages;
}

/* ---- a whole grid ---- */

/* Micro-batches that each kind of pass has on a replica, as far as rows tell. */
static void shape_passes(const ra_plan_request *q, ra_pass_shape *pass)
{
    const int32_t replicas = q->layout.ranks / q->layout.stages;
    for (int32_t i = 0; i < q->loads; i++) {
        const ra_plan_load *l = &q->load[i];
        double packs = fmax(ceil(l->rows / q->layout.rows), l->minimum), count = ceil(packs / replicas);
        if (l->rounds) count = fmin(count, ra_engine_round(q->layout.stages));
        pass[i] = (ra_pass_shape){l->backward, l->contracts, (int32_t)fmin(count, RA_SCHEDULE_MOST_TAGS)};
    }
}

static ra_err split_of(const ra_plan_request *q, ra_split *out)
{
    ra_workload work = q->work;
    work.training = q->training;
    if (q->training == RA_TRAIN_ADAPTER) work.lora = q->lora;
    return ra_grid_split(&q->layout, q->arch, &work, out);
}

static ra_err plan_rank(const ra_plan_request *q, const ra_split *split, const ra_grid *grid, const ra_pass_shape *pass,
                        int32_t passes, ra_memory_plan *out)
{
    const ra_engine_config engine = {.rows = q->layout.rows > q->longest ? q->layout.rows : q->longest,
                                     .keep = q->keep,
                                     .schedule = q->layout.schedule,
                                     .recompute = q->layout.recompute,
                                     .pass = pass,
                                     .passes = passes};
    ra_model *m = ra_calloc(1, sizeof *m);
    m->b = (ra_backend *)(uintptr_t)q->types;
    m->arch = *q->arch;
    m->training = q->training;
    if (q->training == RA_TRAIN_ADAPTER) m->lora = q->lora;
    m->rope_positions = q->positions;
    m->part = ra_grid_part_of(split, q->layout.stages, grid->stage);
    ra_model_lay_out(m);
    ra_err err = ra_memory_plan_make(m, grid, &engine, &q->needs, out);
    m->arch = (ra_arch){0}; /* the caller's */
    ra_model_close(m);
    return err;
}

ra_err ra_plan_rank(const ra_plan_request *q, const ra_grid *grid, const ra_pass_shape *pass, int32_t passes, ra_memory_plan *out)
{
    ra_split split;
    RA_TRY(split_of(q, &split));
    ra_err err = plan_rank(q, &split, grid, pass, passes, out);
    ra_split_free(&split);
    return err;
}

/* Of a stage's ranks the one that holds the longest range of the moments. */
static ra_err plan_stage(const ra_plan_request *q, const ra_pass_shape *pass, int32_t stage, ra_plan *out)
{
    ra_memory_plan *most = &out->stage[stage];
    for (int32_t rank = stage; rank < q->layout.ranks; rank += q->layout.stages) {
        ra_grid grid;
        ra_memory_plan plan;
        RA_TRY(ra_grid_imagine(q->layout.ranks, q->layout.stages, rank, &grid));
        RA_TRY(plan_rank(q, &out->split, &grid, pass, q->loads, &plan));
        if (plan.total > most->total) *most = plan;
        if (!q->needs.updates) break; /* the others are the same */
    }
    return RA_OK;
}

ra_err ra_plan_make(const ra_plan_request *q, ra_plan *out)
{
    *out = (ra_plan){.stages = q->layout.stages};
    ra_pass_shape pass[RA_PLAN_LOADS];
    ra_grid grid;
    RA_TRY(ra_grid_imagine(q->layout.ranks, q->layout.stages, 0, &grid));
    RA_TRY(split_of(q, &out->split));
    shape_passes(q, pass);
    for (int32_t i = 0; i < q->loads; i++) out->most = pass[i].count > out->most ? pass[i].count : out->most;
    out->stage = ra_calloc((size_t)out->stages, sizeof *out->stage);
    ra_err err = RA_OK;
    for (int32_t s = 0; s < out->stages && err == RA_OK; s++) {
        err = plan_stage(q, pass, s, out);
        if (out->stage[s].total > out->stage[out->fullest].total) out->fullest = s;
    }
    if (err != RA_OK) ra_plan_free(out);
    return err;
}

void ra_plan_free(ra_plan *plan)
{
    ra_split_free(&plan->split);
    ra_free(plan->stage);
    *plan = (ra_plan){0};
}
