/* Impact weights: g_J, products with it by contraction, norms by explicit gradients. */
#include "check.h"

#include <realign/mem.h>

#include <math.h>
#include <stdio.h>

/* a(y) of METHOD section 4: <g_J, grad log p(y|x)>, by contraction, one response at a time. */
static ra_err directional(ra_checker *c, ra_engine *e, const ra_check_sample *s, const ra_backward *tangent, double a[RA_ROLES])
{
    for (int role = 0; role < RA_ROLES; role++) {
        ra_sample alone = s->sample;
        for (int r = 0; r < RA_ROLES; r++) {
            if (r != role) alone.response[r].count = 0;
        }
        a[role] = 0.0;
        if (alone.response[role].count == 0) continue;
        RA_TRY(ra_check_run(c, e, &(ra_check_step){.sample = &alone, .kind = RA_LOSS_SCORE, .weight = 1.0, .backward = tangent},
                            NULL, &a[role]));
    }
    return RA_OK;
}

typedef struct {
    double *a, *dot, *norm, *cosine, *weight, *want;
} impact_values;

/* Rows that do not conflict (Retain) have no weight; the file holds values for all rows, by the loss of each row's action. */
static ra_err compare_impact(ra_checker *c, const char *group, const impact_values *v, double target_norm)
{
    int64_t n = c->f.samples;
    char row[64];
    double scale = 0.0;
    RA_TRY(ra_check_read_vector(c, group, "directional", n * RA_ROLES, v->want));
    for (int64_t i = 0; i < n * RA_ROLES; i++) scale = fmax(scale, fabs(v->want[i]));
    snprintf(row, sizeof row, "%s: a(y), directional", group);
    ra_check_compare(&c->table, row, c->tol.product, scale, v->a, v->want, n * RA_ROLES);
    RA_TRY(ra_check_read_vector(c, group, "gradient_norm", n, v->want));
    double largest = 0.0;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, v->want[i]);
    snprintf(row, sizeof row, "%s: |grad L_i|, explicit", group);
    ra_check_compare(&c->table, row, c->tol.norm, 1e-3 * largest, v->norm, v->want, n);
    /* at theta_ref a Retain gradient is zero up to rounding (section 8, trap 3) and has no direction */
    for (int64_t i = 0; i < n; i++) v->cosine[i] = v->want[i] > 1e-9 * largest ? v->dot[i] / (target_norm * v->norm[i]) : NAN;
    RA_TRY(ra_check_read_vector(c, group, "cosine", n, v->want));
    snprintf(row, sizeof row, "%s: cosine", group);
    for (int64_t i = 0; i < n; i++) {
        if (!isnan(v->cosine[i]) || c->f.sample[i].action != 2)
            ra_check_compare(&c->table, row, c->tol.product, 1.0, &v->cosine[i], &v->want[i], 1);
    }
    RA_TRY(ra_check_read_vector(c, group, "dot", n, v->want));
    scale = 0.0;
    for (int64_t i = 0; i < n; i++) scale = fmax(scale, fabs(v->want[i]));
    snprintf(row, sizeof row, "%s: <g_J, grad L_i>, contraction", group);
    ra_check_compare(&c->table, row, c->tol.product, scale, v->dot, v->want, n);
    double total = 0.0;
    for (int64_t i = 0; i < n; i++) {
        v->weight[i] = c->f.sample[i].action == 2 ? 0.0 : fmax(0.0, v->dot[i] / c->f.gamma);
        total += v->weight[i];
    }
    for (int64_t i = 0; i < n && total > 0.0; i++) v->weight[i] /= total;
    RA_TRY(ra_check_read_vector(c, group, "weight", n, v->want));
    snprintf(row, sizeof row, "%s: w_i (eq. 5)", group);
    scale = 0.0;
    for (int64_t i = 0; i < n; i++) scale = fmax(scale, v->want[i]);
    ra_check_compare(&c->table, row, c->tol.product, scale, v->weight, v->want, n);
    return RA_OK;
}

typedef struct {
    ra_model *m;
    ra_engine *e;
    void *target, *target_a, *own; /* g_J in R and A; one sample's gradient */
} gradients;

static void open_gradients(ra_checker *c, gradients *g)
{
    ra_backend *b = c->b;
    size_t n = (size_t)ra_model_trainable(g->m)->size;
    g->target = b->ops->alloc(b, n * b->r_size);
    g->own = b->ops->alloc(b, n * b->r_size);
    g->target_a = b->a == b->r ? g->target : b->ops->alloc(b, n * b->a_size);
}

static void close_gradients(ra_checker *c, gradients *g)
{
    ra_backend *b = c->b;
    if (g->target_a && g->target_a != g->target) b->ops->release(b, g->target_a);
    if (g->target) b->ops->release(b, g->target);
    if (g->own) b->ops->release(b, g->own);
    ra_engine_free(g->e);
    ra_model_close(g->m);
}

/* eq. 5: the model is its own reference, so its own log p stand for log p_ref. */
static ra_err add_pairs(ra_checker *c, gradients *g)
{
    const ra_comm *data = &c->grid.data;
    ra_backward gradient = {.gradient = g->target};
    for (int64_t i = data->rank; i < c->f.gold; i += data->size) {
        ra_check_step step = {
            .sample = &c->f.pair[i].sample, .kind = RA_LOSS_PAIR, .weight = 1.0, .own_reference = true, .backward = &gradient};
        RA_TRY(ra_check_run(c, g->e, &step, NULL, NULL));
    }
    return RA_OK;
}

static ra_err make_target(ra_checker *c, gradients *g)
{
    RA_TRY(ra_comm_agree(&c->grid.world, add_pairs(c, g)));
    ra_check_reduce(c, g->m, g->target);
    if (g->target_a != g->target) c->b->ops->cast_to_a(c->b, ra_model_trainable(g->m)->size, g->target, g->target_a);
    return RA_OK;
}

/* Product with g_J, and norm, of one sample's own gradient. */
static ra_err weigh_one(ra_checker *c, gradients *g, const ra_check_sample *s, double *dot, double *norm)
{
    ra_backend *b = c->b;
    const ra_backward tangent = {.tangent_r = g->target, .tangent_a = g->target_a}, gradient = {.gradient = g->own};
    double reference[RA_ROLES];
    ra_check_references(s, reference);
    ra_check_step step = {
        .sample = &s->sample, .kind = ra_check_kind(s), .weight = 1.0, .reference = reference, .own_reference = true};
    if (step.kind == RA_LOSS_RETAIN) {
        ra_check_step first = step;
        first.keep_states = true;
        RA_TRY(ra_check_run(c, g->e, &first, NULL, NULL));
        step.with_states = true;
    }
    step.backward = &tangent;
    RA_TRY(ra_check_run(c, g->e, &step, NULL, dot));
    b->ops->zero(b, g->own, (size_t)ra_model_trainable(g->m)->size * b->r_size);
    step.backward = &gradient;
    RA_TRY(ra_check_run(c, g->e, &step, NULL, NULL));
    ra_grid_sum_tied(&c->grid, g->m, g->own);
    *norm = sqrt(ra_grid_sum_squares(&c->grid, g->m, g->own));
    return RA_OK;
}

static ra_err weigh_all(ra_checker *c, gradients *g, const char *group)
{
    const ra_backward tangent = {.tangent_r = g->target, .tangent_a = g->target_a};
    int64_t n = c->f.samples;
    double *block = ra_calloc((size_t)n * (4 + 2 * RA_ROLES), sizeof *block);
    impact_values v = {block, block + 3 * n, block + 4 * n, block + 5 * n, block + 6 * n, block + 7 * n};
    ra_err err = RA_OK;
    for (int64_t i = 0; i < n && err == RA_OK; i++) {
        const ra_check_sample *s = &c->f.sample[i];
        err = directional(c, g->e, s, &tangent, v.a + i * RA_ROLES);
        if (err == RA_OK) err = weigh_one(c, g, s, &v.dot[i], &v.norm[i]);
    }
    if (err == RA_OK) err = compare_impact(c, group, &v, sqrt(ra_grid_sum_squares(&c->grid, g->m, g->target)));
    ra_free(block);
    return err;
}

ra_err ra_check_impact(ra_checker *c, ra_training training, const char *adapter, const char *group)
{
    gradients g = {0};
    ra_err err = ra_check_open_model(c, "reference", training, adapter, &g.m);
    if (err == RA_OK) err = ra_check_open_engine(c, g.m, true, &g.e);
    if (err == RA_OK) {
        char row[64], path[64];
        snprintf(row, sizeof row, "%s: g_J (eq. 5)", group);
        snprintf(path, sizeof path, "%s/target_gradient", group);
        open_gradients(c, &g);
        err = make_target(c, &g);
        if (err == RA_OK) err = ra_check_tensors(c, ra_model_trainable(g.m), path, row, c->tol.gradient, g.target);
    }
    if (err == RA_OK) err = weigh_all(c, &g, group);
    close_gradients(c, &g);
    return err;
}
