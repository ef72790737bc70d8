/* The memory of one rank, and of a grid. */
#include "plan_impl.h"

#include <realign/mem.h>

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

ra_memory_plan ra_memory_plan_of(const ra_model *m, const ra_comm *data, const ra_engine_config *engine,
                                 const ra_engine_room *room, const ra_memory_needs *needs)
{
    ra_memory_plan plan, *out = &plan;
    const ra_engine_sizes e = ra_engine_sizes_in(m, engine, room);
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
        const ra_optimiser_sizes o = ra_optimiser_sizes_of(m, data);
        out->bytes[RA_MEMORY_GRADIENT] += o.gradient;
        out->bytes[RA_MEMORY_MOMENTS] = o.moments;
    }
    if (needs->reference) {
        ra_memory_reference(m, engine->rows, &r, &a);
        out->bytes[RA_MEMORY_REFERENCE] = r + a;
    }
    for (int k = 0; k < RA_MEMORY_KINDS; k++) out->total += out->bytes[k];
    return plan;
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
        double packs = fmax(ceil(l->rows / ra_plan_rows(q)), l->minimum), count = ceil(packs / replicas);
        if (l->rounds) count = fmin(count, ra_engine_round(q->layout.stages));
        pass[i] = (ra_pass_shape){l->backward, l->contracts, (int32_t)fmin(count, RA_SCHEDULE_MOST_TAGS / 2 / q->layout.chunks)};
    }
}

static ra_err split_of(const ra_plan_request *q, ra_split *out)
{
    ra_workload work = q->work;
    work.training = q->training;
    if (q->training == RA_TRAIN_ADAPTER) work.lora = q->lora;
    return ra_grid_split(&q->layout, q->arch, &work, out);
}

static ra_engine_config engine_of(const ra_plan_request *q, const ra_pass_shape *pass, int32_t passes)
{
    return (ra_engine_config){.rows = ra_plan_rows(q),
                              .keep = q->keep,
                              .schedule = q->layout.schedule,
                              .recompute = q->layout.recompute,
                              .pass = pass,
                              .passes = passes};
}

/* A stage's model, laid out without memory. Free with drop_model. */
static ra_model *lay_out(const ra_plan_request *q, const ra_split *split, int32_t stage)
{
    ra_model *m = ra_calloc(1, sizeof *m);
    m->b = (ra_backend *)(uintptr_t)q->types;
    m->arch = *q->arch;
    m->training = q->training;
    if (q->training == RA_TRAIN_ADAPTER) m->lora = q->lora;
    m->rope_positions = q->positions;
    m->part = ra_grid_part_of(split, q->layout.stages, stage);
    ra_model_lay_out(m);
    return m;
}

static void drop_model(ra_model *m)
{
    m->arch = (ra_arch){0}; /* the caller's */
    ra_model_close(m);
}

static ra_err check(const ra_plan_request *q)
{
    return ra_engine_check(q->layout.schedule, q->layout.recompute, q->layout.stages, q->layout.chunks);
}

ra_err ra_plan_rank(const ra_plan_request *q, const ra_grid *grid, const ra_pass_shape *pass, int32_t passes, ra_memory_plan *out)
{
    ra_split split;
    RA_TRY(check(q));
    RA_TRY(split_of(q, &split));
    const ra_engine_config engine = engine_of(q, pass, passes);
    ra_engine_room *room = ra_alloc((size_t)grid->stages, sizeof *room);
    ra_err err = ra_engine_room_of(&engine, grid->stages, q->layout.chunks, room);
    if (err == RA_OK) {
        ra_model *m = lay_out(q, &split, grid->stage);
        *out = ra_memory_plan_of(m, &grid->data, &engine, &room[grid->stage], &q->needs);
        drop_model(m);
    }
    ra_free(room);
    ra_split_free(&split);
    return err;
}

/* Of a stage's ranks one that holds the longest range of the moments; in all else they are the same. */
static ra_comm fullest_replica(const ra_plan_request *q, const ra_model *m)
{
    ra_comm data = {MPI_COMM_NULL, 0, q->layout.ranks / q->layout.stages}, most = data;
    size_t moments = 0;
    for (; q->needs.updates && data.rank < data.size; data.rank++) {
        const ra_optimiser_sizes sizes = ra_optimiser_sizes_of(m, &data);
        if (sizes.moments > moments) {
            moments = sizes.moments;
            most = data;
        }
    }
    return most;
}

/* room NULL: the least that any schedule takes, on any rank of a stage, which is quickly said. False where a stage has more than `limit`. */
static bool plan_stages(const ra_plan_request *q, const ra_engine_config *engine, const ra_engine_room *room, size_t limit,
                        ra_plan *out)
{
    static const ra_engine_room least = {.slots = 1};
    const ra_comm any = {MPI_COMM_NULL, 0, q->layout.ranks / q->layout.stages};
    bool within = true;
    for (int32_t s = 0; s < out->stages && within; s++) {
        ra_model *m = lay_out(q, &out->split, s);
        const ra_comm data = room ? fullest_replica(q, m) : any;
        out->stage[s] = ra_memory_plan_of(m, &data, engine, room ? &room[s] : &least, &q->needs);
        drop_model(m);
        within = out->stage[s].total <= limit;
        if (out->stage[s].total > out->stage[out->fullest].total) out->fullest = s;
    }
    return within;
}

ra_err ra_plan_make_within(const ra_plan_request *q, size_t limit, ra_plan *out, bool *within)
{
    *out = (ra_plan){.stages = q->layout.stages};
    ra_pass_shape pass[RA_PLAN_LOADS];
    ra_grid grid;
    RA_TRY(ra_grid_imagine(q->layout.ranks, q->layout.stages, 0, &grid));
    RA_TRY(check(q));
    RA_TRY(split_of(q, &out->split));
    shape_passes(q, pass);
    for (int32_t i = 0; i < q->loads; i++) out->most = pass[i].count > out->most ? pass[i].count : out->most;
    out->stage = ra_calloc((size_t)out->stages, sizeof *out->stage);
    const ra_engine_config engine = engine_of(q, pass, q->loads);
    *within = limit == SIZE_MAX || plan_stages(q, &engine, NULL, limit, out);
    if (!*within) return RA_OK;
    ra_engine_room *room = ra_alloc((size_t)out->stages, sizeof *room);
    ra_err err = ra_engine_room_of(&engine, out->stages, q->layout.chunks, room);
    if (err == RA_OK) *within = plan_stages(q, &engine, room, limit, out);
    ra_free(room);
    if (err != RA_OK) ra_plan_free(out);
    return err;
}

ra_err ra_plan_make(const ra_plan_request *q, ra_plan *out)
{
    bool within;
    return ra_plan_make_within(q, SIZE_MAX, out, &within);
}

void ra_plan_free(ra_plan *plan)
{
    ra_split_free(&plan->split);
    ra_free(plan->stage);
    *plan = (ra_plan){0};
}
