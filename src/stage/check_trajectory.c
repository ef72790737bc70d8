/* Five AdamW steps. AdamW's first steps divide a gradient by its own size: an element whose gradient is a sum that cancels to below the rounding of its terms moves by up to the whole
 * rate in either direction, and what follows depends on it. How closely a value along the way can be known in the backend's precision is therefore asked of the backend itself: the same
 * steps from weights moved by half a unit in the last place. No value is held to more than that, and without need it is not asked. */
#include "check.h"

#include <realign/mem.h>
#include <realign/rng.h>

#include <math.h>
#include <stdlib.h>

enum { STEPS = 5, VALUES = 2 * STEPS /* loss, gradient norm before clipping */, DRAWS = 4 };

typedef struct {
    ra_model *m;
    ra_optimiser *o;
    ra_engine *e;
} walk;

static void end_walk(walk *w)
{
    ra_engine_free(w->e);
    ra_optimiser_free(w->o);
    ra_model_close(w->m);
}

/* Moves every weight of a tensor by half a unit in the last place of A, up or down, by its place in the whole network: both places of a tied embedding alike. */
static void disturb_tensor(ra_backend *b, const ra_param *p, uint64_t draw, void *masters)
{
    float half_unit = b->a == RA_DTYPE_BF16 ? 0x1p-9f : 0x1p-24f, *values = ra_alloc((size_t)p->count, sizeof *values);
    ra_rng rng = ra_rng_make(draw, (uint64_t)RA_STREAM_TEST << 32 | (uint64_t)p->number);
    char *at = (char *)masters + (size_t)p->offset * b->r_size;
    b->ops->download(b, values, at, (size_t)p->count * sizeof *values);
    for (int64_t i = 0; i < p->count; i++) values[i] *= ra_rng_u32(&rng) & 1 ? 1.0f + 2.0f * half_unit : 1.0f - half_unit;
    b->ops->upload(b, at, values, (size_t)p->count * sizeof *values);
    ra_free(values);
}

static void disturb(ra_checker *c, ra_model *m, uint64_t draw)
{
    for (int32_t i = 0; i < m->base.count; i++) disturb_tensor(c->b, &m->base.param[i], draw, m->w_r);
    ra_model_refresh(m);
}

/* draw 0: from the weights as they are. */
static ra_err take_steps(ra_checker *c, ra_engine *reference, const double *weight, uint64_t draw, walk *w, double got[VALUES])
{
    *w = (walk){0};
    RA_TRY(ra_check_open_model(c, "reference", RA_TRAIN_FULL, NULL, &w->m));
    if (draw) disturb(c, w->m, draw);
    ra_optimiser_config config = {.lr = c->f.lr,
                                  .beta1 = c->f.beta1,
                                  .beta2 = c->f.beta2,
                                  .eps = c->f.eps,
                                  .clip = c->f.clip,
                                  .schedule = RA_SCHEDULE_CONSTANT};
    w->o = ra_optimiser_new(w->m, &c->grid, &config);
    RA_TRY(ra_check_open_engine(c, w->m, true, &w->e));
    for (int step = 0; step < STEPS; step++) {
        RA_TRY(ra_check_objective(c, w->e, reference, weight, ra_optimiser_gradient(w->o), &got[2 * step]));
        RA_TRY(ra_optimiser_step(w->o, &got[2 * step + 1]));
    }
    return RA_OK;
}

static double distance(double a, double b)
{
    return fabs(a - b) / fmax(fabs(b), 1e-12);
}

/* Largest relative distance of losses (which = 0) or norms (1). */
static double farthest(const double *a, const double *b, int which)
{
    double worst = 0.0;
    for (int i = which; i < VALUES; i += 2) {
        double d = distance(a[i], b[i]);
        if (!(d <= worst)) worst = d; /* a NaN stays */
        if (isnan(d)) break;
    }
    return worst;
}

/* What rounding leaves open of losses and of norms. */
static ra_err ask_rounding(ra_checker *c, ra_engine *reference, const double *weight, const double *got, double open[2])
{
    for (uint64_t draw = 1; draw <= DRAWS; draw++) {
        walk w;
        double other[VALUES];
        ra_err err = take_steps(c, reference, weight, draw, &w, other);
        end_walk(&w);
        RA_TRY(err);
        for (int which = 0; which < 2; which++) open[which] = fmax(open[which], farthest(other, got, which));
    }
    return RA_OK;
}

ra_err ra_check_trajectory(ra_checker *c, ra_engine *reference)
{
    double *weight = ra_calloc((size_t)c->f.samples, sizeof *weight), got[VALUES] = {0}, want[VALUES], open[2] = {0};
    walk w = {0};
    ra_err err = ra_check_read(c, "impact/weight", c->f.samples, weight);
    if (err == RA_OK) err = ra_check_read(c, "trajectory", VALUES, want);
    if (err == RA_OK) err = take_steps(c, reference, weight, 0, &w, got);
    double tolerance[2] = {c->tol.objective, c->tol.late_norm};
    bool close = farthest(got, want, 0) <= tolerance[0] && farthest(got, want, 1) <= tolerance[1];
    if (err == RA_OK && !close && c->b->a != RA_DTYPE_F64) {
        err = ask_rounding(c, reference, weight, got, open);
        c->table.note = "The tolerance of the trajectory's losses and norms is how far half a unit in the last place of the "
                        "weights moves them.";
    }
    for (int i = 0; i < VALUES && err == RA_OK; i++) {
        const char *row = i % 2 ? "trajectory: gradient norm" : "trajectory: loss of five AdamW steps";
        ra_check_compare(&c->table, row, fmax(tolerance[i % 2], open[i % 2]), 1e-12, &got[i], &want[i], 1);
    }
    if (err == RA_OK) {
        err = ra_check_tensors(c, &w.m->base, "trajectory_final", "trajectory: final parameters", c->tol.parameters, w.m->w_r);
    }
    end_walk(&w);
    ra_free(weight);
    return err;
}
