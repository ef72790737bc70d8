/* The gold batch and g_J, reduced over ranks (METHOD eq. 5). */
#include "weigh.h"

#include <realign/log.h>
#include <realign/mem.h>

#include <math.h>

/* The gold pairs [begin, *end) that fit one micro-batch. `joined` holds a row of `positions` ids for every pair. */
static void fill_gold(ra_weigh *g, int64_t begin, int64_t *end, int32_t *joined)
{
    ra_microbatch_clear(g->mb);
    int64_t i = begin;
    for (; i < g->pairs; i++) {
        ra_sample s = ra_gold_sample(g->run.store, &g->pair[i], joined + i * g->run.positions, g->run.positions);
        s.id = i;
        if (!ra_microbatch_add(g->mb, &s, RA_LOSS_PAIR, 1.0, NULL)) break;
    }
    if (i == begin) ra_die("gold pair %lld has more tokens than a pack takes", (long long)i);
    *end = i;
}

/* theta = theta_ref: the model's own log p is the reference's. */
void ra_weigh_reference_is_own(ra_microbatch *mb)
{
    for (int32_t i = 0; i < mb->responses; i++) mb->response[i].reference = mb->response[i].logp;
}

/* A first micro-batch's gradient, contracted with itself, must give its squared norm: both endings of the backward pass against each other, on this model and this data. */
static void self_check(ra_weigh *g)
{
    ra_backend *b = g->run.b;
    int64_t n = ra_model_trainable(g->m)->size;
    double *dot = ra_alloc((size_t)g->mb->items, sizeof *dot), sum = 0.0, squares = b->ops->sum_squares(b, n, g->target);
    if (g->target_a != g->target) b->ops->cast_to_a(b, n, g->target, g->target_a);
    ra_engine_contract(g->e, g->mb, &g->run.objective, g->target, g->target_a, dot);
    for (int32_t i = 0; i < g->mb->items; i++) sum += dot[i];
    g->w.self_check = fabs(sum / squares - 1.0);
    ra_free(dot);
}

/* Adds the gradient of the gold batch to target; packs are dealt to ranks. */
static void gold_pass(ra_weigh *g)
{
    ra_run *r = &g->run;
    int32_t *joined = ra_alloc((size_t)g->pairs * (size_t)r->positions, sizeof *joined);
    int64_t pack = 0;
    for (int64_t begin = 0, end; begin < g->pairs; begin = end, pack++) {
        fill_gold(g, begin, &end, joined);
        if (pack % r->grid.data.size != r->grid.data.rank) continue;
        ra_engine_forward(g->e, g->mb, &r->objective, NULL);
        ra_weigh_reference_is_own(g->mb);
        ra_engine_backward(g->e, g->mb, &r->objective, &(ra_backward){.gradient = g->target});
        if (pack == r->grid.data.rank) self_check(g);
        ra_progress(0, "weigh: gold batch, %lld of %lld pairs", (long long)end, (long long)g->pairs);
    }
    ra_free(joined);
}

ra_err ra_weigh_target(ra_weigh *g)
{
    ra_run *r = &g->run;
    ra_backend *b = r->b;
    int64_t size = ra_set_int(r->s, "gold.size"), n = ra_model_trainable(g->m)->size;
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
    g->target = b->ops->alloc(b, (size_t)n * b->r_size);
    g->target_a = b->a == b->r ? g->target : b->ops->alloc(b, (size_t)n * b->a_size);
    gold_pass(g);
    if (b->r == RA_DTYPE_F64) {
        ra_comm_sum_f64(&r->grid.data, g->target, n);
    } else {
        ra_comm_sum_f32(&r->grid.data, g->target, n);
    }
    ra_comm_max_f64(&r->grid.data, &g->w.self_check, 1);
    double squares = b->ops->sum_squares(b, n, g->target);
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
