/* The grid of ranks, and sums over its dimensions of vectors that stages hold in parts. */
#include <realign/engine.h>

static ra_comm split(const ra_comm *world, int colour, int key)
{
    ra_comm part = {.comm = MPI_COMM_NULL};
    RA_MPI(MPI_Comm_split(world->comm, colour, key, &part.comm));
    if (part.comm == MPI_COMM_NULL) return part;
    RA_MPI(MPI_Comm_set_errhandler(part.comm, MPI_ERRORS_RETURN));
    RA_MPI(MPI_Comm_rank(part.comm, &part.rank));
    RA_MPI(MPI_Comm_size(part.comm, &part.size));
    return part;
}

static ra_err check_stages(int32_t ranks, int32_t stages)
{
    if (stages >= 1 && ranks % stages == 0) return RA_OK;
    return ra_fail(RA_ERR_ARG, "grid.pipeline: %d stages do not divide %d ranks; accepted: a divisor of the rank count", stages,
                   ranks);
}

ra_err ra_grid_imagine(int32_t ranks, int32_t stages, int32_t rank, ra_grid *out)
{
    RA_TRY(check_stages(ranks, stages));
    const int32_t stage = rank % stages;
    const bool end = stages > 1 && (stage == 0 || stage == stages - 1);
    *out = (ra_grid){.world = {MPI_COMM_NULL, rank, ranks},
                     .data = {MPI_COMM_NULL, rank / stages, ranks / stages},
                     .pipeline = {MPI_COMM_NULL, stage, stages},
                     .ends = {MPI_COMM_NULL, end && stage > 0, end ? 2 : 0},
                     .stage = stage,
                     .stages = stages};
    return RA_OK;
}

ra_err ra_grid_make(const ra_comm *world, int32_t stages, ra_grid *out)
{
    *out = (ra_grid){.world = *world, .stages = stages};
    RA_TRY(check_stages(world->size, stages));
    int32_t replica = world->rank / stages;
    out->stage = world->rank % stages;
    out->data = split(world, out->stage, replica);
    out->pipeline = split(world, replica, out->stage);
    bool end = stages > 1 && (out->stage == 0 || out->stage == stages - 1);
    out->ends = split(world, end ? replica : MPI_UNDEFINED, out->stage);
    return RA_OK;
}

void ra_grid_free(ra_grid *grid)
{
    ra_comm *parts[] = {&grid->data, &grid->pipeline, &grid->ends};
    for (int i = 0; i < 3; i++) {
        if (parts[i]->size > 0) RA_MPI(MPI_Comm_free(&parts[i]->comm));
    }
    *grid = (ra_grid){0};
}

ra_grid ra_grid_alone(void)
{
    const ra_comm self = {.comm = MPI_COMM_SELF, .size = 1};
    return (ra_grid){.world = self, .data = self, .pipeline = self, .ends = {.comm = MPI_COMM_NULL}, .stages = 1};
}

ra_err ra_grid_share(const ra_grid *grid, const ra_arch *arch, ra_part *out)
{
    *out = (ra_part){.chunks = 1};
    if (grid->stages > arch->layers) {
        return ra_fail(RA_ERR_ARG, "grid.pipeline %d: the model has %d layers, and a stage holds one at least", grid->stages,
                       arch->layers);
    }
    out->chunk[0].first = (int32_t)((int64_t)arch->layers * grid->stage / grid->stages);
    out->chunk[0].count = (int32_t)((int64_t)arch->layers * (grid->stage + 1) / grid->stages) - out->chunk[0].first;
    return RA_OK;
}

ra_err ra_grid_agree(const ra_grid *grid, ra_err mine)
{
    return grid->stages == 1 ? mine : ra_comm_agree_as(&grid->pipeline, mine, "stage");
}

void ra_grid_call(const ra_grid *grid, int32_t word)
{
    if (grid->stages > 1) ra_comm_bcast(&grid->pipeline, &word, sizeof word, 0);
}

int32_t ra_grid_await(const ra_grid *grid)
{
    int32_t word;
    ra_comm_bcast(&grid->pipeline, &word, sizeof word, 0);
    return word;
}

/* The part of a stage's vector that is the tied embedding. */
static bool tied_range(const ra_grid *grid, const ra_model *m, int64_t *begin, int64_t *count)
{
    if (grid->ends.size < 2 || m->training != RA_TRAIN_FULL || !m->arch.tied) return false;
    *begin = m->first ? m->embedding : m->head;
    *count = (int64_t)m->arch.vocabulary * m->arch.hidden;
    return true;
}

void ra_grid_sum_tied(const ra_grid *grid, const ra_model *m, void *vector)
{
    ra_backend *b = m->b;
    int64_t begin, count;
    if (!tied_range(grid, m, &begin, &count)) return;
    ra_host_view view = ra_host_view_of(b, (char *)vector + (size_t)begin * b->r_size, (size_t)count * b->r_size);
    if (b->r == RA_DTYPE_F64) {
        ra_comm_sum_f64(&grid->ends, view.host, count);
    } else {
        ra_comm_sum_f32(&grid->ends, view.host, count);
    }
    ra_host_view_end(b, &view, true);
}

double ra_grid_sum_squares(const ra_grid *grid, const ra_model *m, const void *vector)
{
    double squares = m->b->ops->sum_squares(m->b, ra_model_trainable(m)->own_size, vector);
    ra_comm_sum_f64(&grid->pipeline, &squares, 1);
    return squares;
}
