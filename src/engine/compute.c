/* One rank's forward and backward over micro-batches. */
#include <realign/engine.h>
#include <realign/mem.h>

#include <string.h>

struct ra_engine {
    ra_model *m;
    ra_activations *acts;
    ra_head *head;
    ra_timers *timers;
    const void *ref_head;
    void *dx;                        /* (rows, hidden) R */
    double *logp, *kl, *coefficient; /* (head rows) */
    double *dot;                     /* (rows) */
};

ra_engine *ra_engine_new(ra_model *m, int32_t rows, bool keep, ra_timers *timers)
{
    ra_engine *e = ra_calloc(1, sizeof *e);
    e->m = m;
    e->timers = timers;
    e->acts = ra_activations_new(m, rows, keep);
    e->head = ra_head_new(m, rows);
    e->ref_head = (const char *)m->w_a + (size_t)m->head * m->b->a_size;
    if (keep) e->dx = m->b->ops->alloc(m->b, (size_t)rows * (size_t)m->arch.hidden * m->b->r_size);
    e->logp = ra_calloc((size_t)rows, sizeof(double));
    e->kl = ra_calloc((size_t)rows, sizeof(double));
    e->coefficient = ra_calloc((size_t)rows, sizeof(double));
    e->dot = ra_calloc((size_t)rows, sizeof(double));
    return e;
}

void ra_engine_free(ra_engine *e)
{
    if (!e) return;
    if (e->dx) e->m->b->ops->release(e->m->b, e->dx);
    ra_activations_free(e->acts);
    ra_head_free(e->head);
    ra_free(e->logp);
    ra_free(e->kl);
    ra_free(e->coefficient);
    ra_free(e->dot);
    ra_free(e);
}

size_t ra_engine_bytes(const ra_engine *e)
{
    return ra_activations_bytes(e->acts);
}

void ra_engine_set_reference_head(ra_engine *e, const void *weight)
{
    e->ref_head = weight;
}

const double *ra_engine_logp(const ra_engine *e)
{
    return e->logp;
}

const double *ra_engine_kl(const ra_engine *e)
{
    return e->kl;
}

const void *ra_engine_hidden(const ra_engine *e)
{
    return ra_head_hidden(e->head);
}

static double sum(const double *values, int32_t first, int32_t count)
{
    double total = 0.0;
    for (int32_t i = 0; i < count; i++) total += values[first + i];
    return total;
}

static void log_ratios(const ra_microbatch *mb, const ra_item *item, double r[RA_ROLES])
{
    for (int role = 0; role < RA_ROLES; role++) {
        int32_t i = item->response[role];
        r[role] = i < 0 ? 0.0 : mb->response[i].logp - mb->response[i].reference;
    }
}

void ra_engine_forward(ra_engine *e, ra_microbatch *mb, const ra_objective *objective, const void *ref_hidden)
{
    ra_timer_begin(e->timers, "forward");
    ra_model_forward(e->m, &mb->pack, e->acts);
    ra_timer_end(e->timers, "forward");
    ra_timer_begin(e->timers, "head forward");
    ra_head_set_reference(e->head, e->ref_head, ref_hidden);
    ra_head_forward(e->head, mb, ra_activations_last(e->acts), e->logp, e->kl);
    ra_timer_end(e->timers, "head forward");
    for (int32_t i = 0; i < mb->responses; i++) mb->response[i].logp = sum(e->logp, mb->response[i].first, mb->response[i].count);
    for (int32_t i = 0; i < mb->items; i++) {
        ra_item *item = &mb->item[i];
        if (item->kind == RA_LOSS_RETAIN) {
            const ra_response *y = &mb->response[item->response[RA_CHOSEN]];
            item->loss = ref_hidden ? sum(e->kl, y->first, y->count) / y->count : 0.0;
        } else if (item->kind != RA_LOSS_SCORE) {
            double r[RA_ROLES];
            log_ratios(mb, item, r);
            item->loss = ra_loss_pairwise(objective, item->kind, r).loss;
        }
    }
}

/* dL/dlog p of every head row: the slope of its sample's loss; dL/dKL of a Retain row: weight / T. */
static void fill_coefficients(ra_engine *e, const ra_microbatch *mb, const ra_objective *objective)
{
    for (int32_t i = 0; i < mb->items; i++) {
        const ra_item *item = &mb->item[i];
        double r[RA_ROLES];
        log_ratios(mb, item, r);
        ra_loss_value v = ra_loss_pairwise(objective, item->kind, r);
        for (int role = 0; role < RA_ROLES; role++) {
            if (item->response[role] < 0) continue;
            const ra_response *y = &mb->response[item->response[role]];
            double c = item->kind == RA_LOSS_RETAIN  ? item->weight / y->count
                       : item->kind == RA_LOSS_SCORE ? item->weight
                                                     : item->weight * v.slope[role];
            for (int32_t j = 0; j < y->count; j++) e->coefficient[y->first + j] = c;
        }
    }
}

void ra_engine_backward(ra_engine *e, ra_microbatch *mb, const ra_objective *objective, const ra_backward *mode)
{
    fill_coefficients(e, mb, objective);
    ra_timer_begin(e->timers, "head backward");
    ra_head_backward(e->head, mb, e->coefficient, e->dx, mode);
    ra_timer_end(e->timers, "head backward");
    ra_timer_begin(e->timers, "backward");
    ra_model_backward(e->m, &mb->pack, e->acts, e->dx, mode);
    ra_timer_end(e->timers, "backward");
}

void ra_engine_contract(ra_engine *e, ra_microbatch *mb, const ra_objective *objective, const void *tangent_r,
                        const void *tangent_a, double *dot)
{
    memset(e->dot, 0, (size_t)mb->pack.rows * sizeof *e->dot);
    ra_backward mode = {.tangent_r = tangent_r, .tangent_a = tangent_a, .dot = e->dot};
    ra_engine_backward(e, mb, objective, &mode);
    for (int32_t t = 0; t < mb->items; t++) {
        int32_t begin = ra_pack_tree_row(&mb->pack, t);
        dot[t] = sum(e->dot, begin, ra_pack_tree_row(&mb->pack, t + 1) - begin);
    }
}
