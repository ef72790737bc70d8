/* AdamW with its moments sharded over the data dimension: reduce-scatter, update of the own range, all-gather of the masters. Each stage of a pipeline does so with its part of the
 * parameters; what they share is the norm that clips. */
#include <realign/engine.h>
#include <realign/mem.h>

#include <math.h>

struct ra_optimiser {
    ra_model *m;
    const ra_grid *grid;
    ra_optimiser_config config;
    int64_t size, begin, end, steps;
    void *gradient;  /* (size) R */
    void *moment[2]; /* (end - begin) R */
    ra_link *link;   /* over the data dimension */
};

/* The range whose moments a rank of `data` holds; the double-precision yardstick updates everything on every rank. */
static void find_range(const ra_model *m, const ra_comm *data, int64_t *begin, int64_t *end)
{
    int64_t size = ra_model_trainable(m)->size;
    bool sharded = m->b->r == RA_DTYPE_F32;
    *begin = sharded ? ra_comm_range_begin(data, size, data->rank) : 0;
    *end = sharded ? ra_comm_range_begin(data, size, data->rank + 1) : size;
}

ra_optimiser_sizes ra_optimiser_sizes_of(const ra_model *m, const ra_comm *data)
{
    int64_t begin, end;
    find_range(m, data, &begin, &end);
    return (ra_optimiser_sizes){.gradient = (size_t)ra_model_trainable(m)->size * m->b->r_size,
                                .moments = 2 * (size_t)(end - begin) * m->b->r_size};
}

ra_optimiser *ra_optimiser_new(ra_model *m, const ra_grid *grid, const ra_optimiser_config *config)
{
    ra_optimiser *o = ra_calloc(1, sizeof *o);
    ra_backend *b = m->b;
    o->m = m;
    o->grid = grid;
    o->config = *config;
    o->size = ra_model_trainable(m)->size;
    find_range(m, &grid->data, &o->begin, &o->end);
    ra_optimiser_sizes sizes = ra_optimiser_sizes_of(m, &grid->data);
    o->gradient = b->ops->alloc(b, sizes.gradient);
    for (int i = 0; i < 2; i++) o->moment[i] = b->ops->alloc(b, sizes.moments / 2);
    o->link = b->ops->link_open(b, &grid->data, "data");
    return o;
}

void ra_optimiser_free(ra_optimiser *o)
{
    if (!o) return;
    ra_backend *b = o->m->b;
    b->ops->link_close(b, o->link);
    b->ops->release(b, o->gradient);
    for (int i = 0; i < 2; i++) b->ops->release(b, o->moment[i]);
    ra_free(o);
}

void *ra_optimiser_gradient(ra_optimiser *o)
{
    return o->gradient;
}

int64_t ra_optimiser_steps(const ra_optimiser *o)
{
    return o->steps;
}

void ra_optimiser_set_steps(ra_optimiser *o, int64_t steps)
{
    o->steps = steps;
}

void ra_optimiser_range(const ra_optimiser *o, int64_t *begin, int64_t *end)
{
    *begin = o->begin;
    *end = o->end;
}

void *ra_optimiser_moment(ra_optimiser *o, int which)
{
    return o->moment[which];
}

double ra_learning_rate(const ra_optimiser_config *c, int64_t t)
{
    if (t <= c->warmup_steps) return c->lr * (double)t / (double)c->warmup_steps;
    if (c->schedule == RA_SCHEDULE_CONSTANT || c->total_steps <= c->warmup_steps) return c->lr;
    double done = (double)(t - 1 - c->warmup_steps) / (double)(c->total_steps - c->warmup_steps);
    if (done > 1.0) done = 1.0;
    double shape = c->schedule == RA_SCHEDULE_LINEAR ? 1.0 - done : 0.5 * (1.0 + cos(3.14159265358979323846 * done));
    return c->lr * (c->min_lr_ratio + (1.0 - c->min_lr_ratio) * shape);
}

/* Sums over the data dimension; where the state is sharded, this rank's range alone. The double-precision yardstick's memory is the host's. */
static void reduce(ra_optimiser *o, bool sharded)
{
    if (sharded) {
        o->m->b->ops->link_reduce_scatter(o->m->b, o->link, o->gradient, o->size);
    } else {
        ra_comm_sum_f64(&o->grid->data, o->gradient, o->size);
    }
}

/* Over all stages and each tensor once: a copy of a tied head, which comes last, is the first stage's. */
static double norm_of(const ra_optimiser *o, bool sharded)
{
    ra_backend *b = o->m->b;
    int64_t own = ra_model_trainable(o->m)->own_size, end = o->end < own ? o->end : own;
    size_t skip = (size_t)o->begin * b->r_size;
    double squares = end > o->begin ? b->ops->sum_squares(b, end - o->begin, (char *)o->gradient + skip) : 0.0;
    if (sharded) ra_comm_sum_f64(&o->grid->data, &squares, 1);
    ra_comm_sum_f64(&o->grid->pipeline, &squares, 1);
    return sqrt(squares);
}

ra_err ra_optimiser_step(ra_optimiser *o, double *norm)
{
    ra_backend *b = o->m->b;
    bool sharded = b->r == RA_DTYPE_F32;
    ra_grid_sum_tied(o->grid, o->m, o->gradient);
    reduce(o, sharded);
    *norm = norm_of(o, sharded);
    if (!isfinite(*norm)) return ra_fail(RA_ERR_NUMERIC, "step %lld: the gradient's norm is not finite", (long long)o->steps + 1);
    size_t skip = (size_t)o->begin * b->r_size;
    int64_t n = o->end - o->begin;
    const ra_optimiser_config *c = &o->config;
    int64_t t = o->steps + 1;
    ra_adamw h = {.lr = ra_learning_rate(c, t),
                  .beta1 = c->beta1,
                  .beta2 = c->beta2,
                  .eps = c->eps,
                  .weight_decay = c->weight_decay,
                  .correction1 = 1.0 - pow(c->beta1, (double)t),
                  .correction2 = 1.0 - pow(c->beta2, (double)t),
                  .gradient_scale = c->clip > 0.0 && *norm > c->clip ? c->clip / (*norm + 1e-6) : 1.0};
    char *masters = ra_model_masters(o->m);
    b->ops->adamw(b, n, &h, (char *)o->gradient + skip, o->moment[0], o->moment[1], masters + skip);
    if (sharded) b->ops->link_all_gather(b, o->link, (float *)(void *)masters, o->size);
    b->ops->zero(b, o->gradient, (size_t)o->size * b->r_size);
    ra_model_refresh(o->m);
    o->steps = t;
    return RA_OK;
}
