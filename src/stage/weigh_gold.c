/* The gold batch and g_J, reduced over ranks (METHOD eq. 5). */
#include "weigh.h"

#include <realign/log.h>
#include <realign/mem.h>

#include <math.h>

typedef struct {
    ra_weigh *g;
    int32_t *joined; /* a row of `positions` ids for every pair */
    int64_t *begin;  /* (packs + 1) pairs */
    int32_t packs;
    double dot; /* what self_check sums */
} gold_pass;

static bool add_pair(const gold_pass *p, int64_t i, ra_microbatch *mb)
{
    const ra_run *r = &p->g->run;
    ra_sample s = ra_gold_sample(r->store, &p->g->pair[i], p->joined + i * r->positions, r->positions);
    s.id = i;
    return ra_microbatch_add(mb, &s, RA_LOSS_PAIR, 1.0, NULL);
}

/* Pairs into packs, in order. */
static void place_pairs(gold_pass *p)
{
    ra_microbatch *mb = ra_microbatch_new(p->g->run.rows);
    for (int64_t i = 0; i < p->g->pairs; i++) {
        if (i == 0 || !add_pair(p, i, mb)) {
            ra_microbatch_clear(mb);
            if (!add_pair(p, i, mb)) ra_die("gold pair %lld has more tokens than a pack takes", (long long)i);
            p->begin[p->packs++] = i;
        }
    }
    p->begin[p->packs] = p->g->pairs;
    ra_microbatch_free(mb);
}

static gold_pass begin_pass(ra_weigh *g)
{
    gold_pass p = {.g = g,
                   .joined = ra_alloc((size_t)g->pairs * (size_t)g->run.positions, sizeof *p.joined),
                   .begin = ra_alloc((size_t)g->pairs + 1, sizeof *p.begin)};
    place_pairs(&p);
    return p;
}

static void end_pass(gold_pass *p)
{
    ra_free(p->joined);
    ra_free(p->begin);
}

/* Packs are dealt to replicas. */
static void fill_gold(void *context, int32_t index, ra_microbatch *mb)
{
    const gold_pass *p = context;
    const ra_comm *data = &p->g->run.grid.data;
    int32_t pack = data->rank + index * data->size;
    ra_microbatch_clear(mb);
    for (int64_t i = p->begin[pack]; i < p->begin[pack + 1]; i++) add_pair(p, i, mb);
}

ra_err ra_weigh_reference_is_own(void *context, int32_t index, ra_microbatch *mb, const double *logp, const void *hidden)
{
    (void)context;
    (void)index;
    (void)logp;
    (void)hidden;
    for (int32_t i = 0; i < mb->responses; i++) mb->response[i].reference = mb->response[i].logp;
    return RA_OK;
}

static ra_err add_products(void *context, int32_t index, const ra_microbatch *mb, const double *dot)
{
    (void)index;
    for (int32_t i = 0; i < mb->items; i++) ((gold_pass *)context)->dot += dot[i];
    return RA_OK;
}

static ra_err run_packs(gold_pass *p, int32_t count, const ra_backward *mode)
{
    ra_pass pass = {.context = p,
                    .count = count,
                    .fill = fill_gold,
                    .scored = ra_weigh_reference_is_own,
                    .result = mode->gradient ? NULL : add_products,
                    .backward = mode};
    return ra_engine_run(p->g->e, &p->g->run.objective, &pass);
}

/* A first pack's gradient, contracted with itself, must give its squared norm: both endings of the backward pass against each other, on this model and this data. */
static ra_err self_check(gold_pass *p)
{
    ra_weigh *g = p->g;
    ra_backend *b = g->run.b;
    int64_t n = ra_model_trainable(g->m)->size;
    RA_TRY(run_packs(p, 1, &(ra_backward){.gradient = g->target}));
    ra_grid_sum_tied(&g->run.grid, g->m, g->target);
    double squares = ra_grid_sum_squares(&g->run.grid, g->m, g->target);
    if (g->target_a != g->target) b->ops->cast_to_a(b, n, g->target, g->target_a);
    ra_err err = run_packs(p, 1, &(ra_backward){.tangent_r = g->target, .tangent_a = g->target_a});
    g->w.self_check = fabs(p->dot / squares - 1.0);
    b->ops->zero(b, g->target, (size_t)n * b->r_size);
    return err;
}

/* The gradient of the gold batch, summed over replicas, into target. */
static ra_err run_gold(ra_weigh *g)
{
    ra_run *r = &g->run;
    ra_backend *b = r->b;
    const ra_comm *data = &r->grid.data;
    int64_t n = ra_model_trainable(g->m)->size;
    gold_pass p = begin_pass(g);
    int32_t mine = ra_run_packs(r, p.packs);
    ra_err err = mine > 0 ? self_check(&p) : RA_OK;
    if (err == RA_OK) err = run_packs(&p, mine, &(ra_backward){.gradient = g->target});
    end_pass(&p);
    RA_TRY(ra_comm_agree(r->world, err));
    ra_host_view view = ra_host_view_of(b, g->target, (size_t)n * b->r_size);
    if (b->r == RA_DTYPE_F64) {
        ra_comm_sum_f64(data, view.host, n);
    } else {
        ra_comm_sum_f32(data, view.host, n);
    }
    ra_host_view_end(b, &view, true);
    ra_grid_sum_tied(&r->grid, g->m, g->target);
    return RA_OK;
}

ra_err ra_weigh_draw(ra_weigh *g, int32_t *packs)
{
    ra_run *r = &g->run;
    int64_t size = ra_set_int(r->s, "gold.size");
    g->pair = ra_alloc((size_t)size, sizeof *g->pair);
    g->pairs = ra_gold_draw(r->store, r->action, size, (uint64_t)ra_set_int(r->s, "seed"), g->pair);
    g->w.gold = g->pairs;
    if (g->pairs == 0) {
        return ra_fail(
            RA_ERR_DATA,
            "the gold batch is empty: there is no Retain or Invert sample, so nothing says where the new policy wants the model");
    }
    if (g->pairs < size)
        ra_info("gold batch: %lld pairs of %lld asked for (the sets hold no more)", (long long)g->pairs, (long long)size);
    gold_pass p = begin_pass(g);
    *packs = p.packs;
    end_pass(&p);
    return RA_OK;
}

ra_err ra_weigh_target(ra_weigh *g)
{
    ra_run *r = &g->run;
    ra_backend *b = r->b;
    int64_t n = ra_model_trainable(g->m)->size;
    size_t bytes, bytes_a;
    ra_memory_tangent(g->m, &bytes, &bytes_a);
    g->target = b->ops->alloc(b, bytes);
    g->target_a = bytes_a ? b->ops->alloc(b, bytes_a) : g->target;
    RA_TRY(run_gold(g));
    ra_comm_max_f64(&r->grid.data, &g->w.self_check, 1);
    double squares = ra_grid_sum_squares(&r->grid, g->m, g->target);
    g->w.target_norm = sqrt(squares);
    if (!isfinite(squares) || squares == 0.0) return ra_fail(RA_ERR_NUMERIC, "the norm of g_J is %g", g->w.target_norm);
    if (g->target_a != g->target) b->ops->cast_to_a(b, n, g->target, g->target_a);
    double tolerance = b->a == RA_DTYPE_BF16 ? 5e-2 : b->a == RA_DTYPE_F32 ? 1e-4 : 1e-10;
    ra_info("gold batch: %lld pairs, |g_J| %.4g; a pack's gradient contracted with itself differs from its squared norm by %.1e "
            "(at most %.0e)",
            (long long)g->pairs, g->w.target_norm, g->w.self_check, tolerance);
    if (g->w.self_check <= tolerance) return RA_OK;
    return ra_fail(RA_ERR_NUMERIC, "the two endings of the backward pass disagree: contraction and squared norm differ by %.2e",
                   g->w.self_check);
}
