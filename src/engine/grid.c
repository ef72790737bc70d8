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

ra_err ra_grid_make(const ra_comm *world, int32_t stages, ra_grid *out)
{
    *out = (ra_grid){.world = *world, .stages = stages};
    if (stages < 1 || world->size % stages != 0) {
        return ra_fail(RA_ERR_ARG, "grid.pipeline: %d stages do not divide %d ranks; accepted: a divisor of the rank count",
                       stages, world->size);
    }
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
